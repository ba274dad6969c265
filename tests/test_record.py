"""The record: what is written is read back, nothing is half written, and the page stands alone."""

import csv
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.errors import RequestError, StorageError
from search.record import ranking, record, states
from search.record.record import Record, Row
from search.task.classification import METRICS
from search.task.objective import Objective

ADAM = {"unfreeze_depth": 2, "learning_rate": 1e-3, "optimizer": "adam"}
SGD = {"unfreeze_depth": 0, "learning_rate": 0.1 + 0.2, "optimizer": "sgd", "momentum": 0.9}
FIGURES = {"val_accuracy": 0.75, "val_loss": 0.5}
LOWER = {"val_accuracy": 0.625, "val_loss": 0.875}
BEST: dict[str, Any] = {"best_epoch": 3, "figures": FIGURES}
ROWS = [
    Row("0000", ADAM, states.COMPLETED, "all epochs", 5, **BEST, seconds=1.25),
    Row("0001", SGD, states.STOPPED, "by ASHA at epoch 2", 2, 1, LOWER, 0.5, rung=2),
    Row("0002", ADAM, states.DIVERGED, "loss is nan in epoch 1", 1, seconds=0.25),
    Row("0003", SGD, states.FAILED, 'OSError: a "quoted", cause', 0),
    Row("0004", ADAM),
]
ABOUT: dict[str, Any] = {
    "status": "running",
    "space": {"objective": "val_accuracy"},
    "data": {"skipped": [["cat/<b>.png", "no image & no hope"]]},
    "command": "python -m search.run --data '<photos>'",
    "versions": {"keras": "3.15.1"},
}


def events(row: Row) -> list[dict[str, Any]]:
    """What happened to a trial that ends as `row` says."""
    about = {"trial": row.trial, "at": 1.0}
    found = [{"event": "started", **about, "parameters": dict(row.parameters)}]
    if row.epochs:
        best = {"best_epoch": row.best_epoch, **row.figures, "seconds": row.seconds}
        itself = row.state in (states.COMPLETED, states.DIVERGED)
        ending = {"ending": row.state, "reason": row.reason} if itself else {"ending": "", "reason": ""}
        metrics = {"epoch": row.epochs, "objective": row.value("val_accuracy"), **best, **ending}
        rung = 2 if row.state == states.STOPPED else None
        found.append({"event": "epoch", **about, "metrics": metrics, "rung": rung})
    elif row.state != states.RUNNING:
        found.append({"event": "ended", **about, "state": row.state, "reason": row.reason})
    return found


def written(folder: Path, rows: list[Row]) -> Record:
    """A record with these rows on disk."""
    folder.mkdir(exist_ok=True)
    made = Record(folder)
    for row in rows:
        for event in events(row):
            made.note(event)
    made.write_trials()
    return made


@pytest.fixture
def search(tmp_path: Path) -> Record:
    """A search that is still running, with every kind of trial."""
    made = written(tmp_path / "photos", ROWS)
    record.write_json(made.files.search, ABOUT)
    return made


# trials.csv


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    """Numbers would come back as text, rounded, or as 0 where there is nothing."""
    read = record.read(written(tmp_path, ROWS).folder)

    assert list(read.rows.values()) == ROWS
    assert [type(value) for value in read.rows["0001"].parameters.values()] == [int, float, str, float]


def test_the_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    """Scripts that read `trials.csv` would break; a parameter that does not apply would not be empty."""
    with written(tmp_path, ROWS).files.trials.open(newline="") as file:
        head, first, second, *_ = csv.reader(file)

    assert head == [
        *("trial", "state", "reason", "epochs", "best_epoch", *METRICS, "seconds"),
        *("unfreeze_depth", "learning_rate", "optimizer", "momentum"),
    ]
    figures = ["0.75", "0.5", *[""] * (len(METRICS) - len(FIGURES))]
    assert first == ["0000", "completed", "all epochs", "5", "3", *figures, "1.25", "2", "0.001", "adam", ""]
    assert second[-1] == "0.9"


def test_trials_are_in_order_and_each_has_one_row(tmp_path: Path) -> None:
    """Trials that run side by side would be mixed, or a trial have a row for each epoch."""
    changed = replace(ROWS[4], epochs=1)
    made = written(tmp_path, [ROWS[4], ROWS[2], ROWS[0], changed, changed])

    assert list(record.read(made.folder).rows.values()) == [ROWS[0], ROWS[2], changed]


def test_the_file_follows_what_happened(tmp_path: Path) -> None:
    """It would lag behind for ever where nothing else happens; or the end of a trial come late."""
    made = written(tmp_path, ROWS[:1])
    made.note(events(ROWS[1])[0], now=True)
    begun = made.files.trials.read_text().splitlines()
    made.note(events(ROWS[1])[1] | {"rung": None})
    later = made.files.trials.read_text().splitlines()
    time.sleep(record.SECONDS_BETWEEN_WRITES)
    made.follow()

    assert begun[-1].startswith("0001,running,,0")
    assert later == begun
    assert made.files.trials.read_text().splitlines()[-1].startswith("0001,running,,2")


def test_a_long_file_is_not_written_for_every_trial(tmp_path: Path) -> None:
    """The search's own work would grow with the square of the number of trials."""
    made = written(tmp_path, [Row(f"{number:04d}", ADAM) for number in range(1000)])
    written_files = set()
    for number in range(1000, 1010):
        made.note(events(Row(f"{number:04d}", ADAM))[0], now=True)
        written_files.add(made.files.trials.stat().st_ino)

    assert len(written_files) == 1
    made.write_trials()
    assert made.files.trials.read_text().count("\n") == 1 + 1010


def test_every_event_is_on_disk_at_once(tmp_path: Path) -> None:
    """What happened in the last second would be missing when the search is killed."""
    made = Record(tmp_path)
    for row in ROWS:
        for event in events(row):
            made.note(event)
        found = record.read(tmp_path)

        assert found.rows[row.trial] == row
        assert (found.rows, found.curves, found.seconds) == (made.rows, made.curves, made.seconds)


def test_a_trial_that_ended_is_in_the_table_at_once(tmp_path: Path) -> None:
    """A script that waits for a trial would see it running after its end."""
    made = Record(tmp_path)
    for row in ROWS[:4]:
        for event in events(row):
            made.note(event)
        with made.files.trials.open(newline="") as file:
            assert list(csv.DictReader(file))[-1]["state"] == row.state


# the history


def test_nothing_changes_a_trial_that_has_ended(tmp_path: Path) -> None:
    """A process that is slow to end would open a trial again, which then waits for ever."""
    made = written(tmp_path, ROWS[:2])
    for event in events(replace(ROWS[1], trial="0000", epochs=7)):
        assert made.note(event) is None

    assert record.read(tmp_path).rows == {row.trial: row for row in ROWS[:2]}


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
def test_a_line_that_was_cut_short_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    """A crash or a full disk in the middle of a line would cost the whole search, or the next line too."""
    made = written(tmp_path, ROWS[:2])
    made.history.close()
    whole = made.history.path.read_bytes()
    made.history.path.write_bytes(whole[:-cut])
    found = record.read(tmp_path)

    assert found.rows["0000"] == ROWS[0]
    assert found.damaged == (cut > 1)
    for event in events(ROWS[1])[1:]:
        found.note(event)
    assert record.read(tmp_path).rows == {row.trial: row for row in ROWS[:2]}


def test_lines_of_rubbish_are_left_out_and_counted(tmp_path: Path) -> None:
    """A damaged file would end the command in a traceback, or what is missing go unseen."""
    made = written(tmp_path, ROWS[:2])
    lines = made.history.path.read_bytes().splitlines(keepends=True)
    rubbish = [b"\0\0\0\n", b"[1]\n", b"{}\n", b"\xff\xfe{\n"]
    made.history.path.write_bytes(b"".join([*lines[:2], *rubbish, *lines[2:]]))
    found = record.read(tmp_path)

    assert found.damaged == len(rubbish)
    assert found.rows == {row.trial: row for row in ROWS[:2]}


def test_a_history_that_is_gone_is_told_of(tmp_path: Path) -> None:
    """A search would silently begin again, and its trials be lost."""
    made = written(tmp_path, ROWS[:2])
    made.history.path.unlink()

    with pytest.raises(StorageError, match=r"history\.jsonl is gone"):
        record.read(tmp_path)


def test_a_history_that_is_removed_while_it_is_written_is_noticed(tmp_path: Path) -> None:
    """What is learned from then on would go into a file that nobody can find."""
    made = written(tmp_path, ROWS[:1])
    made.history.path.unlink()

    with pytest.raises(FileNotFoundError, match=r"history\.jsonl"):
        made.note(events(ROWS[1])[0])


def test_the_time_that_was_used_is_known(tmp_path: Path) -> None:
    """A search that goes on would be given its whole time budget again."""
    made = written(tmp_path, ROWS[:2])
    made.note({"event": "alive", "trial": "", "at": 77.5})

    assert record.read(tmp_path).seconds == 77.5


def test_a_search_without_trials_has_none(tmp_path: Path) -> None:
    """A report of a search that has just begun would fail."""
    assert record.read(tmp_path).rows == {}


# search.json and atomic writes


def test_fields_of_search_json_change_one_by_one(tmp_path: Path) -> None:
    """The end of a search would wipe out what was asked."""
    made = Record(tmp_path)
    made.create(status="running", seed=7, command="python -m … --data Füße/")
    made.write_search(status="done", ended="2026-01-01T00:00:00Z")

    assert json.loads(made.files.search.read_text(encoding="utf-8")) == {
        "status": "done",
        "seed": 7,
        "command": "python -m … --data Füße/",
        "ended": "2026-01-01T00:00:00Z",
    }


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A full disk or a kill would leave half a file in place of a good one."""
    made = written(tmp_path, ROWS[:1])
    old = made.files.trials.read_bytes()
    made.files.trials.with_name("trials.csv.tmp").mkdir()

    with pytest.raises(OSError, match="trials"):
        made.note(events(ROWS[1])[0], now=True)
    assert made.files.trials.read_bytes() == old


def test_not_a_number_is_never_written_as_json(tmp_path: Path) -> None:
    """Python's `NaN` is no JSON: browsers and other languages cannot read the file."""
    path = tmp_path / "metrics.json"
    record.write_json(path, {"test_loss": 1.0})

    with pytest.raises(ValueError, match="JSON"):
        record.write_json(path, {"test_loss": float("nan")})
    assert json.loads(path.read_text()) == {"test_loss": 1.0}


def test_nothing_is_left_beside_a_written_file(tmp_path: Path) -> None:
    """The search's folder would fill with temporary files."""
    record.write_json(written(tmp_path, ROWS).files.search, ABOUT)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "search.json", "trials.csv"]


def test_behind_a_damaged_search_json_lies_the_one_before(tmp_path: Path) -> None:
    """A file that a crash spoilt would cost the whole search."""
    made = Record(tmp_path)
    made.create(status="running", seed=7)
    made.write_search(status="done")
    made.files.search.write_text('{"status": "do')

    assert record.read_search(tmp_path) == {"status": "running", "seed": 7}
    (tmp_path / "search.json.previous").write_text("")
    with pytest.raises(StorageError, match=r"search\.json: .*\n.*search\.json\.previous: "):
        record.read_search(tmp_path)


def test_a_search_is_never_begun_over_another(tmp_path: Path) -> None:
    """Two searches would be merged into one folder, and neither be true."""
    Record(tmp_path).create(status="running", seed=7)

    with pytest.raises(RequestError, match="holds a search already"):
        Record(tmp_path).create(status="running", seed=8)
    assert record.read_search(tmp_path)["seed"] == 7


# a row from start to end


def reported(epoch: int, **changes: Any) -> dict[str, Any]:
    """What a trial reports."""
    return {"epoch": epoch, "objective": 0.75, "best_epoch": 3, **FIGURES, "seconds": 1.0, "ending": "", **changes}


def test_a_row_follows_its_trial() -> None:
    """The table would show the last epoch's figures in place of the best one's."""
    row = Row("0000", ADAM)

    assert (row.state, row.epochs, row.best_epoch) == (states.RUNNING, 0, None)
    assert row.after(reported(4)) == replace(row, epochs=4, **BEST, seconds=1.0)


def test_not_a_number_never_enters_a_row() -> None:
    """A trial that diverged at once would show `nan` as its accuracy; later, it would lose its best epoch."""
    nothing = {"objective": None, "best_epoch": 0, "val_accuracy": None, "val_loss": None}
    row = Row("0000", ADAM).after(reported(1, **nothing))

    assert (row.epochs, row.best_epoch, row.figures) == (1, None, {})
    assert Row("0000", ADAM).after(reported(3)).after(reported(4, **nothing)).value("val_accuracy") == 0.75


@pytest.mark.parametrize(
    ("ending", "state", "reason"),
    [
        ("all epochs", "completed", "all epochs"),
        ("converged", "completed", "converged"),
        ("diverged: loss is nan in epoch 2", "diverged", "loss is nan in epoch 2"),
        ("", "stopped", "by ASHA at epoch 2"),
    ],
)
def test_a_row_says_how_its_trial_ended(tmp_path: Path, ending: str, state: str, reason: str) -> None:
    """ASHA's stop would pass for the trial's own early stopping, or a divergence for a success."""
    made = written(tmp_path, ROWS[4:])
    about = {"trial": "0004", "at": 1.0, "rung": None if ending else 2}
    ended: Any = made.note({"event": "epoch", **about, "metrics": reported(2, ending=ending)})

    assert (ended.state, ended.reason, ended.epochs, ended.value("val_accuracy")) == (state, reason, 2, 0.75)


def test_a_failed_row_keeps_its_figures_and_the_cause() -> None:
    """What went wrong would be lost."""
    row = Row("0000", ADAM).after(reported(2))

    assert row.ended("failed", "OSError: disk full") == replace(row, state="failed", reason="OSError: disk full")


# who wins


def test_the_winner_is_the_best_of_those_that_can_win() -> None:
    """A trial that diverged, failed or still runs would be exported, whatever its figures once were."""
    losers = [
        replace(ROWS[0], trial=f"001{place}", state=state, figures={**FIGURES, "val_accuracy": 0.99})
        for place, state in enumerate((states.DIVERGED, states.FAILED, states.RUNNING))
    ]
    unstarted = Row("0020", ADAM, states.STOPPED, "time budget used up")

    assert ranking.ranked([*losers, ROWS[1], unstarted, ROWS[0]], Objective("val_accuracy")) == [ROWS[0], ROWS[1]]


def test_the_objective_decides_then_the_other_metric_then_the_number() -> None:
    """A search for the lowest loss would export the most accurate trial; ties would fall by chance."""
    figures = {"0000": (0.75, 0.5), "0001": (0.875, 0.75), "0002": (0.75, 0.25), "0003": (0.75, 0.25), "0004": (0.5, 1)}
    rows = [
        replace(ROWS[0], trial=trial, figures={"val_accuracy": accuracy, "val_loss": loss})
        for trial, (accuracy, loss) in reversed(figures.items())
    ]

    assert [row.trial for row in ranking.ranked(rows, Objective("val_accuracy"))] == [
        "0001",
        "0002",
        "0003",
        "0000",
        "0004",
    ]
    assert [row.trial for row in ranking.ranked(rows, Objective("val_loss"))] == [
        "0002",
        "0003",
        "0000",
        "0001",
        "0004",
    ]
