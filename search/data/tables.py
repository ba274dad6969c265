"""Reads a table of images, with pyarrow: CSV, TSV, JSON lines or Parquet → rows of text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from search.data import columns
from search.data.folders import printable
from search.data.labels import Label
from search.data.settings import DataSettings
from search.errors import DataError

NO_ROWS = "the table has no rows"
NOTHING = Label("")


@dataclass(frozen=True)
class Row:
    """One row of a table: where it stands (`line 7`), and its texts without spaces around; "" where it has none.

    Args:
        texts: in the columns of the label.
        label: what they say; `fault` is why nothing can be read from them.
    """

    where: str
    path: str
    texts: tuple[str, ...]
    split: str = ""
    group: str = ""
    label: Label = NOTHING
    fault: str = ""


@dataclass(frozen=True)
class Table:
    """What a table says.

    Args:
        rows: in the order of the table.
        bad: (where, reason) of the lines that are no rows.
        columns: role → its columns: `path`, `label`, and `split` and `group` if the table has them.
        note: which column is used for what.
    """

    rows: tuple[Row, ...]
    bad: tuple[tuple[str, str], ...]
    columns: Mapping[str, tuple[str, ...]]
    note: str


@dataclass(frozen=True)
class _Content:
    """A table as it was parsed: its columns, the place of each row, and the lines that are no rows."""

    table: Any  # a pyarrow.Table
    places: Sequence[str]
    bad: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path, settings: DataSettings) -> Table:
    """Read a table and find its columns.

    Raises:
        DataError: it cannot be read, it has no rows, or columns are missing or not of text; names every fault.
    """
    try:
        content = KINDS[path.suffix.lower()](path)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among these
        raise DataError([_why(error)], subject=str(path)) from error
    names = content.table.column_names
    found = columns.find(names, settings)
    if isinstance(found, list):
        raise DataError(found, subject=str(path))
    texts, faults = dict[str, list[str]](), list[str]()
    for role, name in ((role, name) for role, several in found.items() for name in several):
        try:
            texts[name] = _texts(content.table.column(name))
        except (ValueError, NotImplementedError):
            kind = content.table.schema.field(name).type
            faults.append(f"the column '{printable(name)}' ({role}) holds {kind}, which is no text")
    if not content.table.num_rows and not content.bad:
        faults.append(NO_ROWS)
    if faults:
        raise DataError(faults, subject=str(path))
    alone = {role: texts[several[0]] for role, several in found.items() if role != "label"}
    labels = zip(*(texts[name] for name in found["label"]), strict=True)
    missing = [""] * len(content.places)
    columns_of = [alone.get(role, missing) for role in ("path", "split", "group")]
    every = [
        Row(where, path, label, split, group)
        for where, label, path, split, group in zip(content.places, labels, *columns_of, strict=True)
    ]
    rows = tuple(row for row in every if row.path or any(row.texts) or row.split or row.group)
    return Table(rows, tuple(content.bad), found, columns.note(names, found))


def _why(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if "empty" in said.lower():
        return NO_ROWS
    advice = "; save it as UTF-8" if "utf8" in said.lower() or "utf-8" in said.lower() else ""
    return f"the table cannot be read: {printable(said.splitlines()[0])}{advice}"


def _texts(column: Any) -> list[str]:
    """The values of a column as text, without spaces around.

    Raises:
        ValueError, NotImplementedError: its type has no text.
    """
    import pyarrow

    return [(value or "").strip() for value in column.cast(pyarrow.string()).to_pylist()]


def _delimited(path: Path, delimiter: str) -> _Content:
    """A table in CSV. All values are read as text, so that `007` and `NA` stay what they are.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    from pyarrow import csv, string

    broken: dict[int, Any] = {}  # number of the record → what is wrong

    def skip(row: Any) -> str:
        broken[row.number] = row
        return "skip"

    read = csv.ReadOptions(use_threads=False)
    parse = csv.ParseOptions(
        delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
    )
    with csv.open_csv(path, read, parse) as reader:
        names = reader.schema.names
    if len(names) == 1 and delimiter == "," and ";" in names[0]:
        return _delimited(path, ";")
    broken.clear()
    table = csv.read_csv(path, read, parse, csv.ConvertOptions(column_types=dict.fromkeys(names, string())))
    return _placed(table, broken)


def _placed(table: Any, broken: Mapping[int, Any]) -> _Content:
    """The table with the line of each row: values may hold line breaks, and records that are no rows are skipped."""
    places, bad, line = list[str](), list[tuple[str, str]](), 2 + sum(name.count("\n") for name in table.column_names)
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    for record in range(2, 2 + table.num_rows + len(broken)):
        where = f"line {line}"
        if wrong := broken.get(record):
            found, wanted = wrong.actual_columns, wrong.expected_columns
            bad.append((where, f"{found} value{'s' * (found != 1)}, and the table has {wanted} columns"))
            line += 1 + wrong.text.count("\n")
        else:
            places.append(where)
            line += 1 + sum((value or "").count("\n") for value in next(rows))
    return _Content(table, places, bad)


def _json_lines(path: Path) -> _Content:
    from pyarrow import json

    with path.open("rb") as file:
        filled = [f"line {number}" for number, line in enumerate(file, start=1) if line.strip()]
    return _Content(json.read_json(path), filled)


def _parquet(path: Path) -> _Content:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return _Content(table, [f"row {number}" for number in range(1, table.num_rows + 1)])


KINDS: Mapping[str, Callable[[Path], _Content]] = {
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
