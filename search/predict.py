"""The command that predicts the classes of images with the model of a search: a table in CSV."""

import argparse
import contextlib
import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from search import atomic, best, machine
from search.data import unseen
from search.data.folders import printable
from search.data.reading import Pixels
from search.data.scan import Progress, in_threads
from search.data.sources import Unread
from search.errors import RequestError, SearchError, cause
from search.process import importing_keras
from search.record.record import keep_others_out
from search.report.console import Steps, aside, complain, quiet, steady

DONE, FAILED, WRONG_REQUEST, SOME_UNREAD, INTERRUPTED = 0, 1, 2, 3, 130
OF_CLASS = "p_"  # what the columns of the classes begin with, so that no class is called like another column
OF_NUMBER = "predicted_"
BETWEEN = "|"  # the labels of an image
BATCH = 32
NAMED = 3  # files

Predict = Callable[[NDArray[Any]], NDArray[Any]]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="python -m search.predict",
        description="Predict the classes of images with the model of a search, which reads them as the search read its "
        "own. The result is CSV (UTF-8), one row per file: file, class, probability (of that class), error (why the "
        f"file could not be read; else empty), and {OF_CLASS}CLASS, the probability of each class. Where images have "
        f"several labels: labels, those above their thresholds, with '{BETWEEN}' between, in the place of class and "
        f"probability. Where numbers are predicted: {OF_NUMBER}NAME, each number.",
        epilog="Exit status: 0 done; 1 it failed: the model or every file could not be read, or the table not be "
        "written; 2 the request is wrong; 3 done, but some files could not be read, as their rows say.",
        allow_abbrev=False,
    )
    add = options.add_argument
    add("name", metavar="NAME", help="a search's folder under --storage")
    add("images", metavar="IMAGES", type=Path, help="a folder, with all folders in it, or one file")
    add("--storage", default="results", metavar="DIR|URI", help="where searches are kept (default: results)")
    add("--output", type=Path, metavar="FILE.csv", help="where to write the table (default: the standard output)")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    keep_others_out()
    try:
        images, found = _checked(options)
        with contextlib.ExitStack() as held:
            table, progress = held.enter_context(_table(options.output)), Steps(held.enter_context(aside()))
            held.enter_context(quiet(Path(held.enter_context(tempfile.TemporaryDirectory())) / "log"))
            unread = _predict(found, options.images, images, table, progress)
    except SearchError as error:
        complain(f"error: {error}")
        return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
    except BrokenPipeError:  # whoever reads the table has enough of it
        return DONE
    except OSError as error:
        complain(f"error: the table cannot be written: {cause(error)}")
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    if unread:
        more = f"; and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
        said = "; ".join(f"{printable(name)}: {reason}" for name, reason in unread[:NAMED])
        complain(f"{len(unread)} of {len(images)} files could not be read: {said}{more}")
    return DONE if not unread else FAILED if len(unread) == len(images) else SOME_UNREAD


def rows(
    paths: Sequence[Path], read: Callable[[Path], Pixels | Unread], predict: Predict, progress: Progress
) -> Iterator[tuple[Path, NDArray[Any] | str]]:
    """Predict image files, `BATCH` at a time.

    Args:
        read: of `unseen.reader`.
        predict: images (n, size, size, 3), uint8 → outputs (n, outputs).

    Yields:
        Each file, in the order given, with its outputs (outputs,), or why it could not be read.
    """
    results = zip(paths, in_threads(read, paths, "predicting", progress), strict=True)
    while batch := [pair for _, pair in zip(range(BATCH), results, strict=False)]:
        images = [pixels for _, pixels in batch if not isinstance(pixels, Unread)]
        found = iter(predict(np.stack(images)) if images else ())
        for path, pixels in batch:
            yield path, pixels.reason if isinstance(pixels, Unread) else next(found)


def _predict(
    found: best.Best, given: Path, paths: Sequence[Path], table: IO[str], progress: Progress
) -> list[tuple[str, str]]:
    """Write the table; return the files that could not be read, with the reason."""
    with importing_keras(machine.cpus()):
        model = best.load(found)
    folder, unread = given if given.is_dir() else given.parent, []
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns(found))
    read = unseen.reader(found.image_size, found.greys)
    for path, said in rows(paths, read, model.predict_on_batch, progress):
        name = path.relative_to(folder).as_posix()
        if isinstance(said, str):
            unread.append((name, said))
        writer.writerow([name, *cells(found, said)])
    table.flush()
    return unread


def columns(found: best.Best) -> list[str]:
    """The head of the table."""
    if found.task.scaled:
        return ["file", "error", *(f"{OF_NUMBER}{name}" for name in found.classes)]
    told = ["labels"] if found.task.vector else ["class", "probability"]
    return ["file", *told, "error", *(f"{OF_CLASS}{name}" for name in found.classes)]


def cells(found: best.Best, said: NDArray[Any] | str) -> list[str]:
    """The cells of an image, but for its file.

    Args:
        said: the outputs of its model (outputs,), or why it could not be read.
    """
    if isinstance(said, str):
        return [said if name == "error" else "" for name in columns(found)[1:]]
    outputs = [f"{output:.6g}" for output in said]
    if found.task.scaled:
        return ["", *outputs]
    if found.task.vector:
        has = [name for name, share, at in zip(found.classes, said, found.thresholds, strict=True) if share > at]
        return [BETWEEN.join(has), "", *outputs]
    likeliest = int(found.task.answer(said[np.newaxis])[0])
    return [found.classes[likeliest], outputs[likeliest], "", *outputs]


def _checked(options: argparse.Namespace) -> tuple[list[Path], best.Best]:
    """The files to predict, and the model.

    Raises:
        RequestError: names every fault.
        StorageError: a file of the search cannot be read.
    """
    images, faults = _files(options.images, options.output)
    faults += _output_faults(options.output)
    try:
        found = best.find(options.storage, options.name)
    except RequestError as error:
        raise RequestError([*error.faults, *faults]) from error
    if faults:
        raise RequestError(faults)
    return images, found


def _files(given: Path, output: Path | None) -> tuple[list[Path], list[str]]:
    """The files to predict, without the table of an earlier time; and what is wrong where there are none."""
    if not given.exists():
        return [], [f"{given}: there is no such folder or file"]
    try:
        found = [path for path in unseen.find(given) if output is None or path.resolve() != output.resolve()]
    except OSError as error:
        return [], [f"{error.filename or given}: {error.strerror}"]
    return found, [] if found else [f"{given}: there are no image files in this folder, nor in folders in it"]


def _output_faults(output: Path | None) -> list[str]:
    if output is None:
        return []
    if output.exists() and not output.is_file():
        return [f"--output {output}: not a file; leave --output out to write to the standard output"]
    folder = output.absolute().parent
    fault = machine.unwritable(folder) if folder.is_dir() else f"there is no folder {folder}"
    return [f"--output {output}: {fault}"] if fault else []


@contextlib.contextmanager
def _table(output: Path | None) -> Iterator[IO[str]]:
    """Where the table is written to: a file, which is there whole or not at all; or the standard output."""
    how: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names are any bytes
    if output is None:
        with open(os.dup(1), "w", **how) as file:  # noqa: PTH123 a descriptor
            yield file
        return
    with atomic.replacing(output) as raw:
        file = io.TextIOWrapper(raw, write_through=True, **how)
        yield file
        file.detach()


if __name__ == "__main__":
    steady()
    sys.exit(main())
