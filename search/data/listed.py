"""Finds the images that a table lists: each row is an image of a class, or wrong, with its line and the reason."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path

from search.data import folders, labels, tables
from search.data.folders import PICTURES, SPLITS, printable
from search.data.scan import Found, Progress, Scan, as_they_are, check, in_threads, why
from search.data.settings import DataSettings
from search.data.tables import Row
from search.errors import DataError, unknown

_OUTSIDE = "outside the folder of the table"
_FEW = 8
_ADVICE = "put the table into the folder that holds the images, or into one above it"


@dataclass
class _Rows:
    """What tables say: the rows by the image that they are about, and (file, reason) of those about none."""

    of: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    split: bool = False  # whether each row must have a split
    labelled: tuple[str, ...] = ()  # the columns that hold the label


def tables_in(root: Path) -> dict[Path, str]:
    """The tables that say what the images of a folder are, each with the split of its images ("": it is not known).

    Either one table lies directly in the folder, and the images beside it or in the only folder beside it; or all
    folders in it are called like splits, and each is such a folder. Several folders of images are classes, whatever
    tables lie beside.

    Raises:
        OSError: the folder cannot be read.
    """
    if table := _table_of(root):
        return {table: ""}
    found = {folder: folders.split_of(folder.name) for folder in folders.subfolders(root)}
    named = {table: split for folder, split in found.items() if split and (table := _table_of(folder))}
    return named if len(named) == len(found) else {}


def tables_in_sight(root: Path) -> list[Path]:
    """The tables directly in a folder, sorted, without hidden ones."""
    visible = [path for path in sorted(root.iterdir()) if not folders.left_out(path.name)]
    return [path for path in visible if path.suffix.lower() in tables.KINDS and path.is_file()]


def scan(root: Path, given: Mapping[Path, str], settings: DataSettings, progress: Progress) -> Scan:
    """Read tables, and check every image in them, in threads.

    Args:
        root: a resolved path; no image may lie outside.
        given: the tables in it, each with the split of its images; "" if its rows say it, or nobody does.
        progress: called after every few dozen files.

    Raises:
        DataError: a table cannot be used, or a split is missing; names every fault.
    """
    rows = _read(root, given, settings)
    bad, fitting, repeated = list(rows.bad), dict[str, Row](), 0
    for path, same in sorted(rows.of.items()):
        reasons = [_fault(row, same, rows.split) for row in same]
        bad += [(path, f"{row.where}: {reason}") for row, reason in zip(same, reasons, strict=True) if reason]
        if not any(reasons):
            fitting[path], repeated = same[0], repeated + len(same) - 1
    images, advice = list[Found](), dict[str, None]()
    files = [(root / path, _obstacle(root / path, root)) for path in fitting]
    checked = in_threads(partial(check, root), files, "scanning images", progress)
    for (path, row), one in zip(fitting.items(), checked, strict=True):
        if one.digest:
            images.append(
                Found(path, row.label.text, row.split, one.digest, one.header, row.group, _more(row, settings))
            )
        else:
            bad.append((path, f"{row.where}: {one.reason or 'not an image'}"))
            advice |= {one.advice: None} if one.advice else {}
    if any(reason.endswith(_OUTSIDE) for _, reason in bad):
        advice[_ADVICE] = None
    again = f"rows that say once more what another one says: {repeated}"
    return Scan(
        splits=tuple(split for split in SPLITS if any(row.split == split for row in fitting.values())),
        classes=labels.names(settings.task, rows.labelled, (row.label for row in fitting.values())),
        images=tuple(images),
        bad=tuple((printable(path), reason) for path, reason in sorted(bad, key=itemgetter(0))),
        notes=(*rows.notes, *[again] * bool(repeated), *as_they_are(images), *_may_be(fitting.values(), settings)),
        advice=tuple(advice),
        kind=settings.task,
    )


def _more(row: Row, settings: DataSettings) -> labels.Label | None:
    """The label, where it is more than a class."""
    return None if settings.task == "classification" else row.label


def _table_of(folder: Path) -> Path | None:
    """The one table directly in a folder whose images lie beside it, or in one folder beside it; else `None`."""
    found, inside = tables_in_sight(folder), folders.subfolders(folder)
    if len(found) != 1 or len(inside) > 1 or any(folders.subfolders(one) for one in inside):
        return None
    pictures = (path for one in (folder, *inside) for path in one.iterdir() if path.suffix.lower() in PICTURES)
    return found[0] if any(pictures) else None


def _read(root: Path, given: Mapping[Path, str], settings: DataSettings) -> _Rows:
    """The rows of all tables.

    Raises:
        DataError: a table cannot be used, or a split is missing.
    """
    rows, faults, splits = _Rows(), list[str](), set[str]()
    for file, split in given.items():
        name = file.relative_to(root).as_posix()
        try:
            table = tables.read(file, settings)
        except DataError as error:
            faults += [f"{printable(name)}: {fault}" if len(given) > 1 else fault for fault in error.faults]
            continue
        rows.notes[table.note] = None
        rows.split |= bool(split) or "split" in table.columns
        rows.bad += [(name, f"{where}: {reason}") for where, reason in table.bad]
        rows.labelled = table.columns["label"]
        read = labels.reader(settings.task, rows.labelled, [row.texts for row in table.rows], settings.label_separator)
        for row in table.rows:
            where = f"{name}, {row.where}" if len(given) > 1 else row.where
            said = split or folders.split_of(row.split) or row.split
            splits.add(said)
            if path := _place(file, row.path, root):
                rows.of[path].append(_labelled(replace(row, where=where, split=said), read))
            else:
                rows.bad.append((row.path or name, f"{where}: {_OUTSIDE if row.path else 'no path'}"))
    known = [split for split in SPLITS if split in splits]
    if known and not faults:
        others = ", ".join(f"'{printable(name)}'" for name in sorted(splits.difference(SPLITS, {""}))[:_FEW])
        told = f"; no split is called {others}" if others else ""
        gone = [split for split in ("train", "test") if split not in known]
        faults += [f"images are given for {' and '.join(known)}, none for {split}: add them{told}" for split in gone]
    if faults:
        raise DataError(faults, subject=str(root if len(given) > 1 else next(iter(given))))
    return rows


def _may_be(rows: Iterable[Row], settings: DataSettings) -> list[str]:
    """A note if labels that are taken for classes look like several labels, or like numbers."""
    if settings.task != "classification":
        return []
    texts = {row.label.text for row in rows}
    if several := next((text for text in sorted(texts) if "|" in text or ";" in text), ""):
        return [f"'{printable(several)}' is taken for one class; --set task=multilabel takes it for several labels"]
    if len(texts) > _FEW and all(labels.number(text) is not None for text in texts) and any("." in t for t in texts):
        return [f"labels such as '{min(texts)}' are taken for classes; --set task=regression takes them for numbers"]
    return []


def _labelled(row: Row, read: labels.Read) -> Row:
    """The row with its label, or with the reason why it has none."""
    try:
        return replace(row, label=read(row.texts))
    except ValueError as error:
        return replace(row, fault=str(error))


def _place(file: Path, path: str, root: Path) -> str | None:
    """The path of an image relative to the root, in posix form; `None` if it is none, or lies outside.

    Args:
        file: the table, to whose folder `path` is relative, if it is.
    """
    place = Path(os.path.normpath(file.parent / path))
    if not path or place == file.parent or not place.is_relative_to(root):
        return None
    return place.relative_to(root).as_posix()


def _fault(row: Row, same: Iterable[Row], split: bool) -> str:
    """What is wrong with a row, whether or not its image can be read; "" if nothing is.

    Args:
        same: all rows about the same image.
        split: whether a row must have a split.
    """
    for other in same:
        for role in ("label", "split", "group"):
            if getattr(other, role) != getattr(row, role):
                return f"but {other.where} says that its {role} is '{printable(str(getattr(other, role)))}'"
    if row.fault:
        return row.fault
    if split and row.split not in SPLITS:
        return printable(unknown("split", row.split, SPLITS)) if row.split else "no split"
    return ""


def _obstacle(path: Path, root: Path) -> str:
    try:
        place = path.resolve(strict=True)
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else "there is no such file"
    except (OSError, RuntimeError, ValueError) as error:
        return why(error)
    return "" if place.is_relative_to(root) else "a link that leaves the folder"
