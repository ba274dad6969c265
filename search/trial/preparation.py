"""What a node does once before the trials, in a process of its own, for the driver never imports Keras: it describes
the backbone, computes the features and trains the probe.

A description is kept in the node's cache, so that the next search with the same backbone need not wait for it.
"""

import contextlib
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from search import atomic, features, machine
from search.backbone.backbones import Source
from search.data.store import Progress
from search.errors import BackboneError
from search.features import Place
from search.process import importing_keras
from search.signals import kept_away
from search.task.objective import Objective

SHOW_EVERY_S = 0.2
MARK = b"search.preparation "  # before each line that is meant; libraries print too
BACKBONE = Path(__file__).parents[1] / "backbone"


class Preparation:
    """The process, as its user sees it; it is started when it is needed. Leaving the context ends it.

    Args:
        source: of the backbone.
        cache: the node's.
    """

    def __init__(self, source: Source, cache: Path) -> None:
        self._source = source
        self._kept = cache / "backbones" / f"{_digest(source)}.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: dict[str, Any] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 it is closed with the context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def start(self) -> None:
        """Begin to describe the backbone, unless its description is known."""
        if not self._kept.exists():
            self._begin()

    def describe(self) -> dict[str, Any]:
        """What `backbones.describe` says.

        Raises:
            BackboneError: names every fault.
        """
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self._kept.read_text("utf-8")))
        if not self._process:
            self._begin()
        described = self._receive()
        if "faults" in described:
            raise BackboneError(described["faults"])
        with contextlib.suppress(OSError):
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(self._kept, self._kept.with_suffix(f".{os.getpid()}")) as file:
                file.write(json.dumps(described).encode())
        return described

    def fill(self, place: Place, cuts: Sequence[int], limit: int, probed: Objective | None) -> None:
        """Begin to compute the features that are missing, see `features.fill`, and to train the probe.

        Returns once no trial can come before the pass.

        Args:
            probed: the objective of the probe; `None`: there is none.
        """
        if not features.missing(place, cuts):
            return
        if not self._process:
            self._begin()
            self._receive()
        self._send((place, tuple(cuts), limit, probed))
        self._answer = self._receive()

    def wait(self, progress: Progress) -> str:
        """Wait for the features; return why they are not kept, or nothing."""
        while self._answer and "done" in self._answer:
            progress(features.WHAT, self._answer["done"], self._answer["total"])
            self._answer = self._receive()
        return str(self._answer["fault"]) if self._answer else ""

    def _begin(self) -> None:
        pipe, command = subprocess.PIPE, [sys.executable, "-m", "search.trial.preparation"]
        with kept_away():
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors)
        self._send(self._source)

    def _send(self, message: object) -> None:
        into = cast("IO[bytes]", cast("subprocess.Popen[bytes]", self._process).stdin)
        with contextlib.suppress(BrokenPipeError):  # what happened is received
            pickle.dump(message, into)
            into.flush()

    def _receive(self) -> dict[str, Any]:
        for line in cast("IO[bytes]", cast("subprocess.Popen[bytes]", self._process).stdout):
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return found
        self._errors.seek(0)
        raise RuntimeError(f"the backbone could not be prepared:\n{self._errors.read().decode(errors='replace')}")


def _digest(source: Source) -> str:
    """SHA-256 in hex of all that decides a description: the request, the files it names, Keras and our own code."""
    files = [*sorted(BACKBONE.glob("*.*")), Path(source.name), Path(source.weights)]
    found = hashlib.sha256(f"{tuple(source)} keras {metadata.version('keras')}".encode())
    for file in files:
        with contextlib.suppress(OSError), file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()


def main() -> None:
    """Read what is asked from standard input, pickled, and answer in lines of JSON."""
    with importing_keras(machine.cpus()):
        from search.backbone import backbones, sources
        from search.trial import probe
        from search.trial.reuse import Pool

    pool = Pool()
    asked: Source = pickle.load(sys.stdin.buffer)  # noqa: S301 from our own parent
    try:
        if faults := backbones.check(asked.name, asked.weights):
            raise BackboneError(faults)
        source = asked._replace(image_size=asked.image_size or sources.own_image_size(asked.name))
        backbone = pool.backbone(source)
    except BackboneError as error:
        _say({"faults": error.faults})
        return
    _say(backbones.describe(backbone))
    try:
        place, cuts, limit, probed = pickle.load(sys.stdin.buffer)  # noqa: S301
    except EOFError:
        return
    fault = ""
    try:
        features.fill(place, cuts, backbone, limit, _Shown())
    except OSError as error:
        fault = str(error)
    _say({"fault": fault})
    if probed and not fault:
        probe.head(pool, source, place, probed)


class _Shown:
    """Progress, said now and then."""

    def __init__(self) -> None:
        self._said_at = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:  # noqa: ARG002
        if done in (0, total) or time.monotonic() - self._said_at >= SHOW_EVERY_S:
            self._said_at = time.monotonic()
            _say({"done": done, "total": total})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(MARK + json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
