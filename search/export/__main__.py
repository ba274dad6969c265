"""The command that exports the model of a search, runs what it has written, and compares it with the model itself."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from search import atomic, best, machine
from search.data.scan import Progress
from search.errors import RequestError, SearchError, StorageError, cause, unknown
from search.export import comparison, samples
from search.export.comparison import BATCH, Agreement, Latency
from search.export.formats import FORMATS, Format, Predict, Runtime, quantizations
from search.process import importing_keras
from search.record.lock import Lock
from search.record.mirror import Mirror
from search.record.record import keep_others_out, write_json
from search.report.console import Steps, aside, complain, console, quiet, steady

DONE, FAILED, WRONG_REQUEST, DIFFERS, INTERRUPTED = 0, 1, 2, 3, 130
SAME = 0.99  # the share of test images whose class must stay for the status to be `DONE`
CALIBRATING = 200  # images; TensorFlow's guide asks for 100 to 500


@dataclass(frozen=True)
class Asked:
    """What to export.

    Args:
        to: a key of `FORMATS`.
        quantize: one of the format's ways; `None`: as it is.
    """

    to: str
    quantize: str | None

    @property
    def format(self) -> Format:
        """The row of the table."""
        return FORMATS[self.to]

    @property
    def name(self) -> str:
        """Of the folder below `best/export`, and in `metrics.json`."""
        return f"{self.to}-{self.quantize}" if self.quantize else self.to

    def faults(self) -> list[str]:
        """What cannot be had, and what to do."""
        if self.to not in FORMATS:
            return [f"--to: {unknown('format', self.to, FORMATS)}"]
        missing = self.format.missing()
        faults = [f"--to {self.to}: {missing}"] if missing else []
        if self.quantize and self.quantize not in self.format.quantized:
            having = "; ".join(
                f"{name} has {', '.join(row.quantized)}" for name, row in FORMATS.items() if row.quantized
            )
            faults.append(f"--quantize {self.quantize}: {self.to} does not have it; {having}")
        return faults


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    known = "; ".join(f"{name}: {row.words}" for name, row in FORMATS.items())
    options = argparse.ArgumentParser(
        prog="python -m search.export",
        description="Export the model of a search to best/export/, run it in its own runtime on the test images, and "
        "compare answers, figures and latency with those of model.keras; the figures are also written to "
        f"best/metrics.json. Formats: {known}.",
        epilog="Exit status: 0 done; 1 it failed: the model cannot be read, converted, run or written; 2 the request "
        f"is wrong; 3 done, but more than {100 * (1 - SAME):.0f} % of the test images get another answer; "
        "130 interrupted.",
        allow_abbrev=False,
    )
    add = options.add_argument
    add("name", metavar="NAME", help="a search's folder under --storage")
    add("--to", required=True, metavar="|".join(FORMATS), help="the format")
    add("--quantize", metavar="|".join(quantizations()), help="smaller and faster weights (litert)")
    add("--storage", default="results", metavar="DIR|URI", help="where searches are kept (default: results)")
    add("--data", metavar="DIR", help="where the images of the search lie now (default: where they lay then)")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    keep_others_out()
    asked = Asked(options.to, options.quantize)
    try:
        with aside() as progress:
            found = _checked(options, asked)
            with Lock(found.record.folder):
                images = samples.find(found, options.data, Steps(progress))
                agreed = export(found, asked, images, console(), Steps(progress))
    except SearchError as error:
        complain(f"error: {error}")
        return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
    except KeyboardInterrupt:
        complain("interrupted; nothing was changed")
        return INTERRUPTED
    return DONE if agreed.same >= SAME else DIFFERS


def _checked(options: argparse.Namespace, asked: Asked) -> best.Best:
    """The model of the search.

    Raises:
        RequestError: names every fault.
    """
    faults = asked.faults()
    try:
        found = best.find(options.storage, options.name)
    except RequestError as error:
        raise RequestError([*error.faults, *faults]) from error
    if faults:
        raise RequestError(faults)
    return found


def export(found: best.Best, asked: Asked, images: samples.Samples, shown: Console, progress: Progress) -> Agreement:
    """Export a model, compare it, and write what came of it into the search.

    The folder of the exported model is there whole or not at all.

    Raises:
        StorageError: the model cannot be loaded, converted, run or written.
    """
    final = found.record.files.exports / asked.name
    making = final.with_name(final.name + atomic.ENDING)
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as logs, quiet(Path(logs) / "log"):
            agreed, model, exported, about = _made(found, asked, making / asked.format.file, images, progress)
        size = _size(making)
        shutil.rmtree(final, ignore_errors=True)
        making.rename(final)
        path = final / asked.format.file
        figures = {"file": path.relative_to(found.record.files.best).as_posix(), "bytes": size, **about}
        _note(found, asked.name, {**figures, **comparison.figures(agreed, model, exported)})
    except OSError as error:
        raise StorageError(f"{final} cannot be written: {cause(error)}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    shown.print(_table(asked, agreed, (model, exported), (found.model.stat().st_size, size)))
    for line in _said(found, final, agreed, about):
        shown.print(line, markup=False, highlight=False, soft_wrap=True)
    return agreed


def _made(
    found: best.Best, asked: Asked, path: Path, images: samples.Samples, progress: Progress
) -> tuple[Agreement, Latency, Latency, dict[str, Any]]:
    """Write the model and compare it; return the answers, the latency of both, and what is known of the runtime."""
    with importing_keras(machine.cpus()):
        model = best.load(found)
    quantized = asked.format.quantized.get(asked.quantize or "")
    how = quantized(lambda: images.training(CALIBRATING, progress)) if quantized else {}
    what, first = f"the {asked.name} model", images.first()
    predict: Predict = lambda pixels: np.asarray(model.predict_on_batch(pixels))  # noqa: E731
    alone = comparison.latency(predict, first)  # Keras converts only models that have been called
    asked.format.readied(model)
    _or_say(
        f"Keras cannot convert the model to {asked.name}",
        lambda: model.export(str(path), format=asked.format.known_as, verbose=False, **how),
    )
    runtime: Runtime = _or_say(f"{what} cannot be loaded", lambda: asked.format.opened(path, machine.cpus()))
    exported = _or_say(f"{what} cannot be run", lambda: comparison.latency(runtime.predict, first))
    agreed = comparison.agreement(predict, runtime.predict, images.test(BATCH, progress), images.dataset.target)
    return agreed, alone, exported, {**runtime.about, "threads": machine.cpus()}


def _or_say(what: str, done: Callable[[], Any]) -> Any:
    """What a step of another package gives.

    Raises:
        StorageError: it failed; says what, and the package's own reason.
    """
    try:
        return done()
    except Exception as error:
        raise StorageError(f"{what}: {cause(error)}; nothing was written") from error


def _note(found: best.Best, name: str, figures: dict[str, Any]) -> None:
    """Add the figures of an exported model to `metrics.json`; in object storage too, with the model."""
    exports = {**found.metrics.get("exports", {}), name: figures}
    files = found.record.files
    write_json(files.metrics, {**found.metrics, "exports": dict(sorted(exports.items()))})
    if found.uri:
        parts = (files.exports / name, files.metrics)
        mirror = Mirror(found.uri, found.record.folder)
        mirror.send(*(path.relative_to(found.record.folder).as_posix() for path in parts))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _table(asked: Asked, agreed: Agreement, latency: tuple[Latency, Latency], size: tuple[int, int]) -> Table:
    table = Table(title=f"{agreed.images} test images", title_justify="left")
    for column in ("model", "size", agreed.metric.replace("_", " "), "one image", f"each of {BATCH}"):
        table.add_column(column, justify="left" if column == "model" else "right")
    figures = (agreed.figure, agreed.exported)
    for name, held, right, took in zip(("model.keras", asked.name), size, figures, latency, strict=True):
        table.add_row(name, f"{held / 2**20:.2f} MiB", f"{right:.4f}", f"{took.one:.2f} ms", f"{took.of_batch:.2f} ms")
    return table


def _said(found: best.Best, final: Path, agreed: Agreement, about: dict[str, Any]) -> list[str]:
    lower = "computes_in" in about and about["computes_in"] != "f32"
    computing = f", which computes in {about['computes_in']} on this processor" if lower else ""
    lines = [
        f"same answer for {agreed.same:.2%} of the test images; outputs differ by at most "
        f"{agreed.difference:.2g}; run by {about['runtime']}{computing}"
    ]
    if agreed.same < SAME:
        lines.append(f"more than {1 - SAME:.0%} of the test images get another answer: compare the figures before use")
    if agreed.same < 1 and lower:
        lines.append('nearer to model.keras, and slower: compile_model(…, config={"INFERENCE_PRECISION_HINT": "f32"})')
    return [*lines, f"exported: {Mirror(found.uri, found.record.folder).at(final) if found.uri else final}"]


if __name__ == "__main__":
    steady()
    sys.exit(main())
