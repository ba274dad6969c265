"""A search's folder in object storage, by way of a folder of this machine.

Whatever writes a search writes a folder, and adds to its files; objects can only be written whole. So every machine has
a folder that mirrors the objects: the driver sends what it wrote every few seconds, a trial's process what it wrote
before each report, and whoever goes on with something fetches it first.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from search.errors import CheckpointError, RequestError, StorageError
from search.record.lock import BEAT_EVERY_S, SILENT_AFTER_S

SEND_EVERY_S = 2.0
SETTLED_AFTER_S = 2.0  # longer than anybody takes between looking for a lock and writing one
RECORD = ("search.json", "search.json.previous", "history.jsonl", "trials.csv")
TRIALS, LOCK = "trials", "lock"


def remote(storage: str) -> bool:
    """Whether a storage is in object storage, not a folder."""
    return "://" in storage


def joined(storage: str, *parts: str) -> str:
    """A URI below a storage, whose query stays at its end."""
    path, mark, query = storage.partition("?")
    return "/".join([path.rstrip("/"), *parts]) + mark + query


def below(uri: str) -> str:
    """The URI that holds another one."""
    path, mark, query = uri.partition("?")
    return path.rpartition("/")[0] + mark + query


def local(storage: str, cache: Path) -> Path:
    """The folder of this machine that stands for a storage."""
    return cache / "mirrors" / hashlib.sha256(storage.encode()).hexdigest()[:16]


def fetch_record(storage: str, name: str, folder: Path, *others: str) -> None:
    """Fetch what a search goes on from.

    Args:
        others: the beginnings of what else is needed.

    Raises:
        StorageError: it cannot be read.
    """
    from pyarrow import ArrowException

    try:
        Mirror(joined(storage, name), folder).fetch_record(*others)
    except (OSError, ValueError, ArrowException) as error:
        raise StorageError(f"{joined(storage, name)} cannot be read: {str(error).splitlines()[0]}") from error


def forget(folder: Path) -> None:
    """Empty a folder that mirrored an earlier search of the same name, but for its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def fault(storage: str) -> str | None:
    """Why objects cannot be written there; `None` when they can."""
    from pyarrow import ArrowException

    try:
        probe = Mirror(joined(storage, f".probe-{uuid.uuid4()}"), Path())
        probe.write("probe", b"probe")
        probe.clear()
    except (OSError, ValueError, ArrowException) as error:
        return f"cannot be written: {str(error).splitlines()[0]}"
    return None


class Mirror:
    """A folder and the objects it stands for. As a context it holds the search's lock there, and sends what changes.

    Args:
        uri: of the search, such as `s3://bucket/results/name`, with `?endpoint_override=…` for other services than S3.
        folder: of this machine.

    Attributes:
        fault: why nothing can be sent any more.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        from pyarrow import fs

        self.uri, self.folder = uri, folder
        self._objects, self._root = fs.FileSystem.from_uri(uri)
        self._sent: dict[str, tuple[int, int]] = {}
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="mirror")
        self._me = {"host": socket.gethostname(), "process": os.getpid(), "id": str(uuid.uuid4())}
        self.fault: OSError | None = None

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        try:
            if self._holder() == self._me:
                self.send()
                self.remove(LOCK)
        except OSError as lost:
            if kind is None:
                raise StorageError(f"{self.uri} cannot be written: {lost}") from lost

    @property
    def storage(self) -> str:
        """The URI of the storage that the search is in."""
        return below(self.uri)

    def at(self, path: Path) -> str:
        """The URI of a file of the folder, without a query."""
        return joined(self.uri.partition("?")[0], path.relative_to(self.folder).as_posix())

    @property
    def empty(self) -> bool:
        """Whether nothing is there but a lock."""
        return all(name == LOCK for name in self._names(""))

    def read(self, name: str) -> bytes:
        """An object's content.

        Raises:
            OSError: it cannot be read.
        """
        with self._objects.open_input_stream(f"{self._root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write an object.

        Raises:
            OSError: it cannot be written.
        """
        with self._objects.open_output_stream(f"{self._root}/{name}") as stream:
            stream.write(content)

    def holds(self, name: str) -> bool:
        """Whether an object is there."""
        return name in self._names("")

    def clear(self) -> None:
        """Remove all objects, and what stands for the folder itself."""
        with contextlib.suppress(FileNotFoundError):
            self._objects.delete_dir(self._root)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._objects.delete_file(f"{self._root}/{name}")

    def fetch_record(self, *others: str) -> None:
        """Make the record, and files that begin with `others`, what they are in the storage; the rest stays."""
        for name in RECORD:
            (self.folder / name).unlink(missing_ok=True)
        for name in self._names(""):
            if name in RECORD or name.startswith(others):
                self._fetch(name)

    def fetch(self, part: str) -> None:
        """Make a part of the folder what the objects are.

        Raises:
            OSError: they cannot be read.
        """
        shutil.rmtree(self.folder / part, ignore_errors=True)
        (self.folder / part).mkdir(parents=True)
        for name in self._names(part):
            self._fetch(name)

    def send(self, *parts: str) -> None:
        """Send the files that changed since: in these parts of the folder, or all but those of trials.

        Raises:
            OSError: they cannot be written.
        """
        with self._sending:
            for path in self._files(parts):
                name = path.relative_to(self.folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
                    state = _state(path)
                    if self._sent.get(name) != state:
                        self.write(name, path.read_bytes())
                        self._sent[name] = state

    def send_trial(self, part: str, *others: str) -> None:
        """Send a trial's checkpoints and other parts, unless another process has taken the trial.

        Raises:
            CheckpointError: it has.
            StorageError: the objects cannot be written.
        """
        try:
            name = f"{part}/owner"
            owner = self.folder / name
            known = owner.exists() and self._sent.get(name) == _state(owner)  # else it has just been taken
            if known and self.read(name) != owner.read_bytes():
                raise CheckpointError(f"{part} belongs to another process, which goes on with the trial")
            self.send(part, *others)
        except OSError as error:
            raise StorageError(f"{self.uri} cannot be written: {error}") from error

    def _files(self, parts: tuple[str, ...]) -> Iterator[Path]:
        if parts:
            tops = [self.folder / part for part in parts]
        else:
            tops = [path for path in self.folder.iterdir() if path.name not in (TRIALS, LOCK)]
        for top in tops:
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file() and path.suffix != ".tmp":
                    yield path

    def _names(self, part: str) -> list[str]:
        """The objects below a part."""
        from pyarrow import fs

        top = f"{self._root}/{part}".rstrip("/")
        found = self._objects.get_file_info(fs.FileSelector(top, recursive=True, allow_not_found=True))
        return [info.path.removeprefix(self._root).strip("/") for info in found if info.type == fs.FileType.File]

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.read(name))
        self._sent[name] = _state(path)

    def _live(self) -> None:
        """Send what changes; tell that this process lives."""
        beat_at = time.monotonic()
        while not self._over.wait(SEND_EVERY_S):
            try:
                self.send()
                if time.monotonic() - beat_at >= BEAT_EVERY_S:
                    if self._holder() != self._me:  # this one was silent for long
                        raise OSError("another process has taken the search")
                    self._beat()
                    beat_at = time.monotonic()
            except OSError as error:
                self.fault = error
                return

    def _take(self) -> None:
        """Take the search's lock.

        Of several that begin at once, the last one to write has it: all look again when each has written.

        Raises:
            RequestError: a process of another machine writes it.
        """
        holder = self._holder()
        if not holder or holder["host"] == self._me["host"] or self._age() >= SILENT_AFTER_S:
            self._beat()
            time.sleep(SETTLED_AFTER_S)
            holder = self._holder()
        if holder != self._me:
            who = f"process {holder['process']} on {holder['host']}"
            raise RequestError([f"{self.uri} is in use by {who}, where its search runs; wait for it, or end it"])

    def _holder(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.read(LOCK)))
        except (FileNotFoundError, ValueError):
            return {}

    def _age(self) -> float:
        """Seconds since the holder was heard of, by the clock of the storage."""
        probe = f"{LOCK}-{uuid.uuid4()}"
        self.write(probe, b"")
        now, then = self._objects.get_file_info([f"{self._root}/{name}" for name in (probe, LOCK)])
        self.remove(probe)
        return float(now.mtime_ns - then.mtime_ns) / 1e9

    def _beat(self) -> None:
        self.write(LOCK, json.dumps(self._me).encode())


def _state(path: Path) -> tuple[int, int]:
    """What tells a changed file from the one that was sent."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
