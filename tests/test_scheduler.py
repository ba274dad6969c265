"""Ray's scheduler with ASHA: its rungs, its decisions, and that a restart changes neither."""

import math
import random
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.components.stopping import RULES
from search.driver.scheduler import Scheduler
from search.record import record, states
from search.space import Budget, Objective

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
NAMES = count()
BUDGET = Budget(trials=30, epochs=9, first_rung=1, reduction_factor=3)


@dataclass(frozen=True, eq=False)
class Trial:
    """All that ASHA reads of Ray's trial, whose own name differs with every start."""

    trial_id: str
    config: dict[str, str]


class Run:
    """A scheduler with its record, and the trials that Ray has told it of; reports are noted, as the recorder does."""

    def __init__(self, folder: Path, budget: Budget = BUDGET, metric: str = "val_accuracy") -> None:
        self.record = record.read(folder)
        self.scheduler = Scheduler(RULES["asha"].build(budget, Objective(metric)), self.record)

    def report(self, name: str, epoch: int, objective: float, ending: str = "") -> str:
        """The decision on one epoch of a trial."""
        last = {"last_val_accuracy": objective, "last_val_loss": objective}
        result = {"epoch": epoch, "objective": objective, "ending": ending, **last}
        decision = self.scheduler.on_trial_result(None, trial(name), result)
        value = objective if math.isfinite(objective) else None
        result |= dict.fromkeys(["objective", *last], value)
        best = {"best_epoch": 1, "val_accuracy": value, "val_loss": value, "seconds": 1.0}
        self._note(name, "started", parameters={})
        self._note(name, "epoch", metrics={**result, **best}, rung=self.scheduler.stopped.get(name))
        return decision

    def _note(self, name: str, event: str, **facts: Any) -> None:
        self.record.note({"event": event, "trial": name, "at": 0.0, **facts})


def trial(name: str) -> Trial:
    """A trial as Ray knows it."""
    return Trial(f"ray-{next(NAMES)}", {"trial": name})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The search's folder."""
    return tmp_path


@pytest.mark.parametrize(
    ("budget", "epochs"),
    [
        (BUDGET, [1, 3, 9]),
        (Budget(trials=30, epochs=20, first_rung=2, reduction_factor=3), [2, 6, 18, 20]),
        (Budget(trials=4, epochs=8, first_rung=1, reduction_factor=2), [1, 2, 4, 8]),
        (Budget(trials=4, epochs=2, first_rung=5, reduction_factor=3), [2]),
    ],
)
def test_rungs_are_where_the_budget_says(path: Path, budget: Budget, epochs: list[int]) -> None:
    """Trials would be stopped earlier or later than the space declares, or where their best weights lie in no file."""
    assert [*Run(path, budget).scheduler.rule.rungs, budget.epochs] == epochs


def test_a_rung_lets_the_good_go_on_and_stops_the_bad(path: Path) -> None:
    """Hopeless trials would use up the budget, or promising ones be lost."""
    run = Run(path)
    decisions = [
        run.report("a", 1, 0.5),
        run.report("b", 1, 0.4),
        run.report("bad", 1, 0.1),
        run.report("good", 1, 0.9),
    ]

    assert decisions == [CONTINUE, STOP, STOP, CONTINUE]
    assert run.scheduler.stopped == {"b": 1, "bad": 1}
    assert run.report("good", 2, 0.0) == CONTINUE, "epoch 2 is no rung"


def test_a_loss_is_better_the_lower_it_is(path: Path) -> None:
    """With `val_loss` as objective the worst trials would go on."""
    run = Run(path, metric="val_loss")

    assert [run.report("a", 1, 0.5), run.report("bad", 1, 2.0), run.report("good", 1, 0.1)] == [
        CONTINUE,
        STOP,
        CONTINUE,
    ]


@pytest.mark.parametrize("ending", ["completed", "diverged"])
def test_a_trial_that_ends_by_itself_is_never_stopped(path: Path, ending: str) -> None:
    """Its own end would be recorded as ASHA's, and a converged trial told to Optuna as PRUNED."""
    run = Run(path)
    run.report("a", 3, 0.9)

    assert run.report("b", 3, 0.1, ending) == CONTINUE
    assert run.report("b", BUDGET.epochs, 0.1, ending) == CONTINUE
    assert run.scheduler.stopped == {}


def test_not_a_number_enters_no_rung(path: Path) -> None:
    """One diverged trial would make the cutoff not-a-number, which nothing is below: nobody would be stopped."""
    run = Run(path)
    run.report("good", 1, 0.9)

    assert run.report("diverged", 1, float("nan"), "diverged") == CONTINUE
    assert run.report("bad", 1, 0.1) == STOP


def test_a_finished_trial_stays_in_its_rungs(path: Path) -> None:
    """Later trials would meet empty rungs, or the last epoch fill a rung that it did not reach."""
    run = Run(path)
    run.report("a", 1, 0.9)
    run.report("a", 3, 0.95, "completed")

    assert run.report("b", 1, 0.1) == STOP
    assert run.report("c", 3, 0.1) == CONTINUE, "a ended with epoch 3, which is no comparison"


def stream(seed: int, trials: int) -> Iterator[tuple[str, int, float]]:
    """Reports as four slots make them: trial, epoch, best so far. The consumer may drop a trial it has stopped."""
    numbers = random.Random(seed)  # noqa: S311
    waiting = [f"{number:04d}" for number in range(trials)]
    running: dict[str, tuple[int, float]] = {}
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = (0, 0.0)
        name = numbers.choice(sorted(running))
        epoch, best = running[name]
        epoch, best = epoch + 1, max(best, numbers.random())
        running[name] = (epoch, best)
        if epoch == BUDGET.epochs:
            del running[name]
        yield name, epoch, best


def decisions(folder: Path, restart_after: int | None) -> list[tuple[str, int, str]]:
    """What ASHA decides on a stream; with a restart, from the record as it is then."""
    folder.mkdir()
    run, found = Run(folder), []
    for position, (name, epoch, objective) in enumerate(stream(0, 24)):
        if position == restart_after:
            run = Run(folder)
        if name in run.record.rows and run.record.rows[name].state != states.RUNNING:
            continue
        found.append((name, epoch, run.report(name, epoch, objective)))
    return found


def test_a_restart_changes_no_decision(tmp_path: Path) -> None:
    """After a resume the rungs would be empty, and resumed trials fill the first one with late figures: Ray kills
    nearly every new trial then (https://github.com/ray-project/ray/issues/30838)."""
    uninterrupted = decisions(tmp_path / "a", None)
    restored = decisions(tmp_path / "b", 40)

    assert restored == uninterrupted
    after = [decision for _, epoch, decision in restored[40:] if epoch == 1]
    assert {CONTINUE, STOP} <= set(after), "the stream decides nothing after the restart"


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_rungs_survive_a_kill_right_after_a_decision(path: Path, metric: str) -> None:
    """The last trials before a kill would be missing from the rungs, or be stopped without a reason in the record."""
    up = metric == "val_accuracy"
    run = Run(path, metric=metric)
    run.report("a", 1, 0.5)
    run.report("b", 1, 0.1 if up else 0.9)
    run.report("c", 1, 1.0 if up else 0.0, "completed")
    run.report("d", 2, float("nan"), "diverged")
    restored = Run(path, metric=metric)

    assert (restored.record.rows["b"].state, restored.record.rows["b"].reason) == ("stopped", "by ASHA at epoch 1")
    assert restored.record.rows["b"].rung == 1
    assert restored.report("e", 1, 0.49 if up else 0.51) == CONTINUE, "it is among the best third of a and b"
    assert restored.report("f", 1, 0.2 if up else 0.8) == STOP


def test_a_trial_that_goes_on_is_judged_once(path: Path) -> None:
    """A trial that tells of its last epoch again would be compared there with those that came later."""
    run = Run(path)
    run.report("a", 1, 0.5)
    run.report("better", 1, 0.9)
    again = Run(path)

    assert again.report("a", 1, 0.5) == CONTINUE
    assert again.report("b", 1, 0.5) == STOP


def test_a_failure_enters_no_rung(path: Path) -> None:
    """A trial that raised an error would count as one that reached epoch 0, with not-a-number."""
    run = Run(path)
    result = {"epoch": 0, "objective": float("nan"), "failure": "ValueError: no", "traceback": ""}

    assert run.scheduler.on_trial_result(None, trial("a"), result) == CONTINUE
    assert run.report("b", 1, 0.1) == CONTINUE


def controller(pending: Mapping[str, str | None], live: Set[str]) -> Any:
    """Tune's, with trials that wait.

    Args:
        pending: trial → the process that was asked for it.
        live: the processes that start or run.
    """
    trials = {number: trial(number) for number in pending}
    return SimpleNamespace(
        _tune_controller=SimpleNamespace(
            _pending_trials=set(trials.values()),
            _trial_to_actor={trials[number]: process for number, process in pending.items() if process},
            _actor_manager=SimpleNamespace(is_actor_started=lambda process: process in live),
        )
    )


def test_nothing_starts_while_the_search_pauses(path: Path) -> None:
    """Trials that wait for a place would begin after Ctrl-C."""
    run = Run(path)
    waiting = controller({"0004": None}, live=set())

    assert run.scheduler.choose_trial_to_run(waiting).config["trial"] == "0004"
    run.scheduler.pausing = True
    assert run.scheduler.choose_trial_to_run(waiting) is None


def test_a_process_is_not_used_again_while_the_search_pauses(path: Path) -> None:
    """Tune would give it to a trial that waits, which would begin after Ctrl-C."""
    run, tune = Run(path), SimpleNamespace()

    run.scheduler.on_trial_complete(tune, trial("0004"), {})
    assert tune._reuse_actors
    run.scheduler.pausing = True
    run.scheduler.on_trial_complete(tune, trial("0005"), {})
    assert not tune._reuse_actors


def test_a_process_that_starts_is_not_given_up_for_one_that_is_free(path: Path) -> None:
    """Where trials end more often than a process takes to start, a node that joins would never have a trial."""
    run = Run(path)

    assert run.scheduler.choose_trial_to_run(controller({"0004": "starts"}, live={"starts"})) is None
    waiting = controller({"0004": "starts", "0006": None, "0005": "has no place"}, live={"starts"})
    assert run.scheduler.choose_trial_to_run(waiting).config["trial"] == "0005"
