"""The record: what is written is read back, nothing is half written, and the page stands alone."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from search import record, report
from search.record import Record, Row

ADAM = {"unfreeze_depth": 2, "learning_rate": 1e-3, "optimizer": "adam"}
SGD = {"unfreeze_depth": 0, "learning_rate": 0.1 + 0.2, "optimizer": "sgd", "momentum": 0.9}
BEST = {"best_epoch": 3, "val_accuracy": 0.75, "val_loss": 0.5}
ROWS = [
    Row("0000", ADAM, record.COMPLETED, "all epochs", 5, **BEST, seconds=1.25),
    Row("0001", SGD, record.STOPPED, "by ASHA at epoch 2", 2, 1, 0.625, 0.875, 0.5),
    Row("0002", ADAM, record.DIVERGED, "loss is nan in epoch 1", 1, seconds=0.25),
    Row("0003", SGD, record.FAILED, 'OSError: a "quoted", cause', 0),
    Row("0004", ADAM),
]
ABOUT: dict[str, Any] = {
    "status": "running",
    "space": {"objective": "val_accuracy"},
    "data": {"skipped": [["cat/<b>.png", "no image & no hope"]]},
    "command": "python -m search.run --data '<photos>'",
    "versions": {"keras": "3.15.1"},
}
METRICS = {
    "trial": "0000",
    "classes": ["<cat>", "dog"],
    "confusion_matrix": [[5, 1], [2, 7]],
    "test_accuracy": 0.8,
    "val_accuracy": 0.75,
}


def written(folder: Path, rows: list[Row]) -> Record:
    """A record with these rows on disk."""
    made = Record(folder)
    for row in rows:
        made.update(row)
    made.write_trials()
    return made


@pytest.fixture
def search(tmp_path: Path) -> Record:
    """A search that is still running, with every kind of trial."""
    made = written(tmp_path / "photos", ROWS)
    made.write_search(**ABOUT)
    return made


# trials.csv


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    """Numbers would come back as text, rounded, or as 0 where there is nothing."""
    read = record.read(written(tmp_path, ROWS).folder)

    assert list(read.rows.values()) == ROWS
    assert [type(value) for value in read.rows["0001"].parameters.values()] == [int, float, str, float]


def test_the_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    """Scripts that read `trials.csv` would break; a parameter that does not apply would not be empty."""
    with written(tmp_path, ROWS).trials.open(newline="") as file:
        head, first, second, *_ = csv.reader(file)

    assert head == [
        *("trial", "state", "reason", "epochs", "best_epoch", "val_accuracy", "val_loss", "seconds"),
        *("unfreeze_depth", "learning_rate", "optimizer", "momentum"),
    ]
    assert first == ["0000", "completed", "all epochs", "5", "3", "0.75", "0.5", "1.25", "2", "0.001", "adam", ""]
    assert second[-1] == "0.9"


def test_trials_are_in_order_and_each_has_one_row(tmp_path: Path) -> None:
    """Trials that run side by side would be mixed, or a trial have a row for each epoch."""
    changed = replace(ROWS[4], epochs=1)
    made = written(tmp_path, [ROWS[4], ROWS[2], ROWS[0], changed])

    assert list(record.read(made.folder).rows.values()) == [ROWS[0], ROWS[2], changed]


def test_an_update_that_must_not_wait_is_on_disk_at_once(tmp_path: Path) -> None:
    """A trial that just ended would be missing when the search is killed."""
    made = Record(tmp_path)
    for row in ROWS:
        made.update(row, now=True)

        assert record.read(tmp_path).rows[row.trial] == row


def test_a_search_without_trials_has_none(tmp_path: Path) -> None:
    """A report of a search that has just begun would fail."""
    assert record.read(tmp_path).rows == {}


# search.json and atomic writes


def test_fields_of_search_json_change_one_by_one(tmp_path: Path) -> None:
    """The end of a search would wipe out what was asked."""
    made = Record(tmp_path / "new")
    made.write_search(status="running", seed=7, command="python -m … --data Füße/")
    made.write_search(status="done", ended="2026-01-01T00:00:00Z")

    assert json.loads(made.search.read_text(encoding="utf-8")) == {
        "status": "done",
        "seed": 7,
        "command": "python -m … --data Füße/",
        "ended": "2026-01-01T00:00:00Z",
    }


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A full disk or a kill would leave half a file in place of a good one."""
    made = written(tmp_path, ROWS[:1])
    old = made.trials.read_bytes()
    made.trials.with_name("trials.csv.tmp").mkdir()

    with pytest.raises(OSError, match="trials"):
        made.update(ROWS[1], now=True)
    assert made.trials.read_bytes() == old


def test_not_a_number_is_never_written_as_json(tmp_path: Path) -> None:
    """Python's `NaN` is no JSON: browsers and other languages cannot read the file."""
    path = tmp_path / "metrics.json"
    record.write_json(path, {"test_loss": 1.0})

    with pytest.raises(ValueError, match="JSON"):
        record.write_json(path, {"test_loss": float("nan")})
    assert json.loads(path.read_text()) == {"test_loss": 1.0}


def test_nothing_is_left_beside_a_written_file(tmp_path: Path) -> None:
    """The search's folder would fill with temporary files."""
    written(tmp_path, ROWS).write_search(status="done")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.json", "trials.csv"]


# a row from start to end


def reported(epoch: int, **changes: Any) -> dict[str, Any]:
    """What a trial reports."""
    return {"epoch": epoch, "objective": 0.75, **BEST, "seconds": 1.0, "ending": "", **changes}


def test_a_row_follows_its_trial() -> None:
    """The table would show the last epoch's figures in place of the best one's."""
    row = Row("0000", ADAM)

    assert (row.state, row.epochs, row.best_epoch) == (record.RUNNING, 0, None)
    assert row.after(reported(4)) == replace(row, epochs=4, **BEST, seconds=1.0)


def test_not_a_number_never_enters_a_row() -> None:
    """A trial that diverged at once would show `nan` as its accuracy; later, it would lose its best epoch."""
    nothing = {"objective": float("nan"), "best_epoch": 0, "val_accuracy": float("nan"), "val_loss": float("nan")}
    row = Row("0000", ADAM).after(reported(1, **nothing))

    assert (row.epochs, row.best_epoch, row.val_accuracy, row.val_loss) == (1, None, None, None)
    assert Row("0000", ADAM).after(reported(3)).after(reported(4, **nothing)).val_accuracy == 0.75


@pytest.mark.parametrize(
    ("ending", "state", "reason"),
    [
        ("all epochs", "completed", "all epochs"),
        ("converged", "completed", "converged"),
        ("diverged: loss is nan in epoch 2", "diverged", "loss is nan in epoch 2"),
        ("", "stopped", "by ASHA at epoch 2"),
    ],
)
def test_a_row_says_how_its_trial_ended(ending: str, state: str, reason: str) -> None:
    """ASHA's stop would pass for the trial's own early stopping, or a divergence for a success."""
    ended = Row("0000", ADAM).after(reported(2)).ended(ending, "by ASHA at epoch 2")

    assert (ended.state, ended.reason, ended.epochs, ended.val_accuracy) == (state, reason, 2, 0.75)


def test_a_failed_row_keeps_its_figures_and_the_cause() -> None:
    """What went wrong would be lost."""
    row = Row("0000", ADAM).after(reported(2))

    assert row.failed("OSError: disk full") == replace(row, state="failed", reason="OSError: disk full")


# who wins


def test_the_winner_is_the_best_of_those_that_can_win() -> None:
    """A trial that diverged, failed or still runs would be exported, whatever its figures once were."""
    losers = [
        replace(ROWS[0], trial=f"001{place}", state=state, val_accuracy=0.99)
        for place, state in enumerate((record.DIVERGED, record.FAILED, record.RUNNING))
    ]
    unstarted = Row("0020", ADAM, record.STOPPED, "time budget used up")

    assert record.ranked([*losers, ROWS[1], unstarted, ROWS[0]], "val_accuracy") == [ROWS[0], ROWS[1]]


def test_the_objective_decides_then_the_other_metric_then_the_number() -> None:
    """A search for the lowest loss would export the most accurate trial; ties would fall by chance."""
    figures = {"0000": (0.75, 0.5), "0001": (0.875, 0.75), "0002": (0.75, 0.25), "0003": (0.75, 0.25), "0004": (0.5, 1)}
    rows = [
        replace(ROWS[0], trial=trial, val_accuracy=accuracy, val_loss=loss)
        for trial, (accuracy, loss) in reversed(figures.items())
    ]

    assert [row.trial for row in record.ranked(rows, "val_accuracy")] == ["0001", "0002", "0003", "0000", "0004"]
    assert [row.trial for row in record.ranked(rows, "val_loss")] == ["0002", "0003", "0000", "0001", "0004"]


# report.html


class Page(HTMLParser):
    """What a page says and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note the tag and what it refers to."""
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += data + "\n"


def test_the_page_of_a_running_search_shows_every_trial(search: Record) -> None:
    """The page would need the search to be over, or leave out trials without a model."""
    page = Page(report.page(record.read(search.folder)))

    assert not search.best.exists()
    assert "running: 1 completed, 1 diverged, 1 failed, 1 running, 1 stopped" in page.text
    for row in ROWS:
        assert row.trial in page.text
        assert row.reason in page.text
    assert re.search(r"0000.*0001.*0002", page.text, re.DOTALL), "not best first"


def test_the_page_of_a_finished_search_shows_the_test(search: Record) -> None:
    """The one figure that counts would be missing."""
    record.write_json(search.best / "metrics.json", METRICS)
    page = Page(report.page(record.read(search.folder)))

    assert "Best trial: 0000" in page.text
    assert "Test accuracy 0.8000" in page.text
    assert re.search(r"<cat>\n5\n1\ndog\n2\n7", page.text), "the confusion matrix is not there"


def test_text_from_outside_stays_text(search: Record) -> None:
    """A file name, a class or an error message would be taken for markup and run in the reader's browser."""
    search.update(replace(ROWS[3], reason="ValueError: <script>alert(1)</script>"))
    record.write_json(search.best / "metrics.json", METRICS)
    page = Page(report.page(search))

    assert not page.tags & {"script", "b", "photos", "cat"}
    for text in ("<script>alert(1)</script>", "cat/<b>.png", "no image & no hope", "'<photos>'", "<cat>"):
        assert text in page.text


def test_the_page_loads_nothing(search: Record) -> None:
    """The page would not be self-contained: it could not be mailed, and would tell others who reads it."""
    record.write_json(search.best / "metrics.json", METRICS)
    text = report.page(search)
    page = Page(text)

    assert page.links == []
    assert not page.tags & {"script", "link", "iframe", "img", "object"}
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_report_command_prints_and_writes(search: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m search.report NAME` would not do what the contract says."""
    status = report.main(["photos", "--storage", str(search.folder.parent)])
    shown = capsys.readouterr().out

    assert status == 0
    assert "0000" in shown
    assert "running: 1 completed" in shown
    assert search.report.read_text(encoding="utf-8") == report.page(search)


def test_the_report_of_an_unknown_search_names_the_nearest(search: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name would end in a traceback."""
    status = report.main(["photo", "--storage", str(search.folder.parent)])

    assert status == 2
    assert "unknown search 'photo'; did you mean 'photos'?" in capsys.readouterr().err
