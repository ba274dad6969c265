"""What tests of faults share: a search to which something is done in the middle, and what must be true at its end."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from searches import ONE_BY_ONE, in_the_middle, rows, run, running, study, uneven_space, wait_for

from search.record import record

Rows = dict[str, dict[str, str]]
TRIALS, EPOCHS = 3, 40  # one has ended, one is in the middle, one has not begun
PAIRS = TRIALS + 1  # of a search that runs two at a time


def known(search: Path) -> Rows:
    """Trial → its row."""
    return {row["trial"]: row for row in rows(search)}


def ended(found: Rows) -> Rows:
    """The rows of trials that have ended."""
    return {trial: row for trial, row in found.items() if row["state"] != "running"}


def events(search: Path) -> list[dict[str, Any]]:
    """What happened to the trials."""
    found, damaged = record.History(search / "history.jsonl").read()
    assert not damaged
    return found


def demand_whole(search: Path, trials: int, before: Rows) -> None:
    """Check that a search is over, with every trial once, and those that had ended before as they were."""
    found = known(search)
    assert sorted(found) == [f"{number:04d}" for number in range(trials)]
    assert {trial: found[trial] for trial in before} == before
    assert "running" not in {row["state"] for row in found.values()}
    told = {f"{trial.number:04d}": trial.state for trial in study(search).trials}
    words = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    expected = {trial: words.get(row["state"], TrialState.FAIL) for trial, row in found.items()}
    expected |= {trial: TrialState.FAIL for trial, row in found.items() if row["epochs"] == "0"}
    assert told == expected
    assert json.loads((search / "search.json").read_text())["status"] == "done"
    metrics = json.loads((search / "best" / "metrics.json").read_text())
    best = max(float(row["val_accuracy"] or 0) for row in found.values() if row["state"] == "completed")
    assert metrics["val_accuracy"] >= best
    starts = [event["trial"] for event in events(search) if event["event"] == "started"]
    assert all(starts.count(trial) == 1 for trial in before), "a trial that had ended ran again"


def leave_out_what_is_damaged(search: Path) -> None:
    """Take the lines out of the history that cannot be read."""
    lines = []
    for line in (search / "history.jsonl").read_bytes().splitlines(keepends=True):
        with contextlib.suppress(ValueError):
            lines.append((json.loads(line), line)[1])
    (search / "history.jsonl").write_bytes(b"".join(lines))


def resume(folder: Path, name: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Go on with a search."""
    done = run(folder, "--resume", name)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def copied(search: Path, folder: Path) -> Path:
    """A copy of a search in the storage of a test, to go on with."""
    return Path(shutil.copytree(search, folder / "results" / search.name))


@contextlib.contextmanager
def at_work(
    folder: Path, name: str, *options: str, trials: int = TRIALS
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A search in the middle of its trials, and its folder."""
    search = folder / "results" / name
    pace = ONE_BY_ONE if trials == TRIALS else ()
    with running(folder, "--space", uneven_space(folder, trials, EPOCHS), "--name", name, *pace, *options) as process:
        wait_for(lambda: in_the_middle(search), process)
        yield process, search
