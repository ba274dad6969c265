"""A finished or running search → its leaderboard and one page. Reads JSON and CSV only, never a pickle."""

import argparse
import html
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from search import mirror
from search.console import complain, console, described, leaderboard
from search.errors import RequestError, SearchError, unknown
from search.record import NAME, Record, Row, ranked, read, write_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a search's leaderboard and write its `report.html`; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m search.report", description=main.__doc__)
    parser.add_argument("name", metavar="NAME", help="the search's folder under --storage")
    parser.add_argument("--storage", default="results", metavar="DIR|URI", help="where searches are kept")
    options = parser.parse_args(arguments)
    try:
        record = load(options.storage, options.name)
        write_text(record.report, page(record))
    except SearchError as error:
        complain(f"error: {error}")
        return 2
    about = json.loads(record.search.read_text("utf-8"))
    shown = console()
    shown.print(leaderboard(ranked(record.rows.values(), about["space"]["objective"])))
    shown.print(f"{about['status']}: {counted(record.rows.values())}", highlight=False)
    shown.print(f"report: {record.report}", markup=False, highlight=False, soft_wrap=True)
    return 0


def load(given: str, name: str) -> Record:
    """Read the record of a search. Of one in object storage it is fetched; its page stays on this machine.

    Raises:
        RequestError: there is no such search.
    """
    away = mirror.remote(given)
    storage = mirror.local(given, Path(tempfile.mkdtemp(prefix="finetune-search-"))) if away else Path(given)
    if away and NAME.fullmatch(name):
        (storage / name).mkdir(parents=True)
        mirror.fetch_record(given, name, storage / name)
    if not NAME.fullmatch(name) or not (storage / name / "search.json").is_file():
        known = [path.parent.name for path in storage.glob("*/search.json")]
        raise RequestError([f"{unknown('search', name, known)} in {given}"])
    return read(storage / name)


def counted(rows: Iterable[Row]) -> str:
    """How many trials ended how."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial yet"


def page(record: Record) -> str:
    """The page: how the search went, its best trial on the test split, every trial, and how to run it again."""
    about = json.loads(record.search.read_text("utf-8"))
    best = ranked(record.rows.values(), about["space"]["objective"])
    others = [row for _, row in sorted(record.rows.items()) if row not in best]
    title = html.escape(record.folder.name)
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>',
            f"<h1>{title}</h1><p>{html.escape(about['status'])}: {counted(record.rows.values())}</p>",
            *_test(record),
            "<h2>Trials, best first</h2>",
            _table(
                ["trial", "state", "val_accuracy", "val_loss", "epochs", "seconds", "parameters"],
                map(_cells, best + others),
            ),
            *_skipped(about),
            f"<h2>Run it again</h2><pre>{html.escape(about['command'])}</pre>",
            _table(["package", "version"], sorted(about["versions"].items())),
            "</html>\n",
        ]
    )


def _test(record: Record) -> list[str]:
    """The winner's figures, once there is a winner."""
    path = record.best / "metrics.json"
    if not path.exists():
        return []
    metrics = json.loads(path.read_text("utf-8"))
    rows = [(name, *counts) for name, counts in zip(metrics["classes"], metrics["confusion_matrix"], strict=True)]
    return [
        f"<h2>Best trial: {metrics['trial']}</h2>",
        f"<p>Test accuracy {metrics['test_accuracy']:.4f}, validation accuracy {metrics['val_accuracy']:.4f}.</p>",
        "<p>Confusion matrix on the test split: a row for each true class, a column for each predicted one.</p>",
        _table(["", *metrics["classes"]], rows),
    ]


def _skipped(about: dict[str, Any]) -> list[str]:
    skipped = about["data"]["skipped"]
    return ["<h2>Skipped files</h2>", _table(["file", "reason"], skipped)] if skipped else []


def _cells(row: Row) -> tuple[object, ...]:
    state = f"{row.state}: {row.reason}" if row.reason else row.state
    return (row.trial, state, row.val_accuracy, row.val_loss, row.epochs, row.seconds, described(row))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    return f"<table><tr>{names}</tr>{''.join(lines)}</table>"


def _cell(value: object) -> str:
    match value:
        case None:
            return "<td></td>"
        case float():
            return f'<td class="number">{value:.4f}</td>'
        case int():
            return f'<td class="number">{value}</td>'
        case _:
            return f"<td>{html.escape(str(value))}</td>"


if __name__ == "__main__":
    sys.exit(main())
