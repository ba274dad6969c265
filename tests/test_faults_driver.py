"""Faults of the process that leads a search, caused for real: it is killed, interrupted, late. See docs/faults.md."""

import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from faults import PAIRS, at_work, copied, demand_whole, ended, events, known, leave_out_what_is_damaged, resume
from searches import PATIENCE_S, running, wait_for

from search.signals import TOGETHER_S

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]

BUDGET_S = 900
DAMAGED = b'{"event": "epo'  # as a machine that loses power may leave it


# while it starts


MOMENTS = {"before Ray": (signal.SIGINT, 1.5), "with Ray": (signal.SIGTERM, 4), "with trials": (signal.SIGINT, 7)}


@dataclass(frozen=True)
class Interrupted:
    """A search that was interrupted while it started, what it said, and the processes that it had then."""

    search: Path
    status: int
    output: str
    errors: str
    processes: list[psutil.Process]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> dict[str, Interrupted]:
    """Moment → what became of a search that was interrupted at it."""
    found = {}
    for moment, (sent, seconds) in MOMENTS.items():
        folder = tmp_path_factory.mktemp("early")
        (folder / "cache").symlink_to(shared_cache)
        with running(folder, "--space", "smoke", "--name", "early") as process:
            time.sleep(seconds)
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(sent)
            output, errors = process.communicate(timeout=PATIENCE_S)
        found[moment] = Interrupted(folder / "results" / "early", process.returncode, output, errors, children)
    return found


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_while_it_starts(interrupted: dict[str, Interrupted], moment: str) -> None:
    """Ray dies of it with a signal of its own, or the exit status says nothing."""
    found = interrupted[moment]
    said = found.output + found.errors

    assert found.status == 130, said
    assert "Traceback" not in said
    if found.search.exists():
        assert "--resume early" in said
        assert json.loads((found.search / "search.json").read_text())["status"] == "interrupted"
    else:
        assert "nothing was changed" in found.errors


# killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A search whose driver was killed in the middle, long before the end of its time; it is copied, not changed."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "cache").symlink_to(shared_cache)
    with at_work(folder, "killed", "--time-budget", str(BUDGET_S), trials=PAIRS) as (process, search):
        process.kill()
        process.wait()
    return search


def all_ended(search: Path) -> bool | None:
    """Whether every trial has; the winner is exported then."""
    found = known(search)
    return (len(found) == len(ended(found)) == PAIRS) or None


def test_driver_killed(tmp_path: Path, killed: Path) -> None:
    """What was learned is lost with the process that collects it; or trials are run again, or twice.

    It is killed in the middle, and once more when it has gone on, before the export.
    """
    search = copied(killed, tmp_path)
    before = ended(known(search))
    lose_power(search)
    with (tmp_path / "said").open("w+") as said:
        with running(tmp_path, "--resume", "killed", stdout=said, stderr=subprocess.STDOUT) as process:
            wait_for(lambda: all_ended(search), process)
            process.kill()
            process.wait()
        said.seek(0)
        assert "1 damaged lines are left out" in said.read()
    then = ended(known(search))
    assert {trial: then[trial] for trial in before} == before
    assert len(before) < len(then) == PAIRS
    assert not (search / "best" / "metrics.json").exists()
    leave_out_what_is_damaged(search)
    begun = starts(search)
    lose_power(search)
    done = resume(tmp_path, "killed")

    assert "1 damaged lines are left out" in done.stdout
    leave_out_what_is_damaged(search)
    assert starts(search) == begun, "a trial that had ended ran again"
    assert {trial: known(search)[trial] for trial in then} == then
    demand_whole(search, PAIRS, before)


def starts(search: Path) -> list[str]:
    """The trials that were started, as often as they were."""
    return [event["trial"] for event in events(search) if event["event"] == "started"]


def lose_power(search: Path) -> None:
    """Leave half a line in the history, and nothing of Ray's."""
    with (search / "history.jsonl").open("ab") as history:
        history.write(DAMAGED)
    shutil.rmtree(search / "ray")  # nothing is read from there


def test_time_budget_counts_what_was_used(tmp_path: Path, killed: Path) -> None:
    """Every resume grants the whole budget again; or a search whose time is up cannot be brought to its end."""
    search = copied(killed, tmp_path)
    used = events(search)[-1]["at"]
    with (search / "history.jsonl").open("a") as history:
        history.write(json.dumps({"event": "alive", "trial": "", "at": BUDGET_S + 100.0}) + "\n")
    before = ended(known(search))
    resume(tmp_path, "killed")
    later = [event["at"] for event in events(search) if event["at"] > used]

    assert 0 < used < BUDGET_S
    assert min(later) == BUDGET_S + 100
    assert "started" not in [event["event"] for event in events(search) if event["at"] >= BUDGET_S + 100]
    assert {row["reason"] for row in known(search).values() if row["trial"] not in before} == {"time budget used up"}
    demand_whole(search, len(known(search)), before)


def test_ctrl_c_twice(tmp_path: Path) -> None:
    """Somebody in a hurry waits for the end of an epoch; or what was recorded is lost."""
    with at_work(tmp_path, "hurry") as (process, search):
        before = ended(known(search))
        process.send_signal(signal.SIGINT)
        time.sleep(2 * TOGETHER_S)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130, errors
    assert "--resume hurry" in output + errors
    assert before.items() <= known(search).items()
    assert events(search)


def test_nothing_is_left_of_what_was_interrupted_while_it_started(interrupted: dict[str, Interrupted]) -> None:
    """Processes are left; two of Ray's agents need a minute to notice that it is gone, so this comes last."""
    processes = [process for found in interrupted.values() for process in found.processes]
    _, alive = psutil.wait_procs(processes, timeout=90)

    assert processes
    assert not alive
