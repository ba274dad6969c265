"""ASHA: its rungs, its decisions, and that a restart changes neither."""

import pickle
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.scheduler import Asha
from search.space import Budget, Objective

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
BUDGET = Budget(trials=30, epochs=9, first_rung=1, reduction_factor=3)


@dataclass(frozen=True)
class Trial:
    """All that ASHA reads of Ray's trial."""

    trial_id: str


class Run:
    """A scheduler and the trials Ray has told it of."""

    def __init__(self, path: Path, budget: Budget = BUDGET, metric: str = "val_accuracy") -> None:
        self.asha = Asha(budget, Objective(metric), path)

    def add(self, *names: str) -> None:
        """Tell of new trials."""
        for name in names:
            self.asha.on_trial_add(None, Trial(name))

    def report(self, name: str, epoch: int, objective: float, ending: str = "") -> str:
        """The decision on one epoch of a trial."""
        result = {"epoch": epoch, "objective": objective, "ending": ending}
        return self.asha.on_trial_result(None, Trial(name), result)

    @property
    def rungs(self) -> dict[float, dict[str, float]]:
        """Rung → trial → what it had there."""
        return dict(self.asha._rungs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the rungs are kept."""
    return tmp_path / "ray" / "rungs.json"


@pytest.mark.parametrize(
    ("budget", "epochs"),
    [
        (BUDGET, [1, 3, 9]),
        (Budget(trials=30, epochs=20, first_rung=2, reduction_factor=3), [2, 6, 18]),
        (Budget(trials=4, epochs=8, first_rung=1, reduction_factor=2), [1, 2, 4, 8]),
        (Budget(trials=4, epochs=2, first_rung=5, reduction_factor=3), [2]),
    ],
)
def test_rungs_are_where_the_budget_says(path: Path, budget: Budget, epochs: list[int]) -> None:
    """Trials would be stopped earlier or later than the space declares, or where their best weights lie in no file."""
    assert sorted(Run(path, budget).rungs) == epochs
    assert budget.rungs == tuple(sorted({*epochs, budget.epochs}))


def test_a_rung_lets_the_good_go_on_and_stops_the_bad(path: Path) -> None:
    """Hopeless trials would use up the budget, or promising ones be lost."""
    run = Run(path)
    run.add("a", "b", "bad", "good")
    decisions = [
        run.report("a", 1, 0.5),
        run.report("b", 1, 0.4),
        run.report("bad", 1, 0.1),
        run.report("good", 1, 0.9),
    ]

    assert decisions == [CONTINUE, STOP, STOP, CONTINUE]
    assert run.asha.stopped == {"b": 1, "bad": 1}
    assert run.report("good", 2, 0.0) == CONTINUE, "epoch 2 is no rung"


def test_a_loss_is_better_the_lower_it_is(path: Path) -> None:
    """With `val_loss` as objective the worst trials would go on."""
    run = Run(path, metric="val_loss")
    run.add("a", "bad", "good")

    assert [run.report("a", 1, 0.5), run.report("bad", 1, 2.0), run.report("good", 1, 0.1)] == [
        CONTINUE,
        STOP,
        CONTINUE,
    ]


@pytest.mark.parametrize("ending", ["all epochs", "converged", "diverged: loss is nan in epoch 3"])
def test_a_trial_that_ends_by_itself_is_never_stopped(path: Path, ending: str) -> None:
    """Its own end would be recorded as ASHA's, and a converged trial told to Optuna as PRUNED."""
    run = Run(path)
    run.add("a", "b")
    run.report("a", 3, 0.9)

    assert run.report("b", 3, 0.1, ending) == CONTINUE
    assert run.report("b", BUDGET.epochs, 0.1, ending) == CONTINUE
    assert run.asha.stopped == {}


def test_not_a_number_enters_no_rung(path: Path) -> None:
    """One diverged trial would make the cutoff not-a-number, which nothing is below: nobody would be stopped."""
    run = Run(path)
    run.add("good", "diverged", "bad")
    run.report("good", 1, 0.9)

    assert run.report("diverged", 1, float("nan"), "diverged: loss is nan in epoch 1") == CONTINUE
    assert run.rungs[1] == {"good": 0.9}
    assert run.report("bad", 1, 0.1) == STOP


def test_a_finished_trial_stays_in_its_rungs(path: Path) -> None:
    """Later trials would meet empty rungs, or the last epoch fill a rung that it did not reach."""
    run = Run(path)
    run.add("a", "b")
    run.report("a", 1, 0.9)
    run.asha.on_trial_complete(SimpleNamespace(), Trial("a"), {"epoch": 4, "objective": 0.95, "ending": "converged"})

    assert run.rungs == {9: {}, 3: {}, 1: {"a": 0.9}}
    assert run.report("b", 1, 0.1) == STOP


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


def decisions(path: Path, restart_after: int | None) -> list[tuple[str, int, str]]:
    """What ASHA decides on a stream; with a restart, from the scheduler as Ray pickled it at the very start."""
    run, seen, found = Run(path), set[str](), []
    at_start = pickle.dumps(run.asha)
    for count, (name, epoch, objective) in enumerate(stream(0, 24)):
        if count == restart_after:
            run.asha = pickle.loads(at_start)  # noqa: S301
            run.add(*sorted(seen))
        if name in run.asha.stopped:
            continue
        if name not in seen:
            run.add(name)
            seen.add(name)
        found.append((name, epoch, run.report(name, epoch, objective)))
    return found


def test_a_restart_changes_no_decision(tmp_path: Path) -> None:
    """After a resume the rungs would be empty, and resumed trials fill the first one with late figures: Ray kills
    nearly every new trial then (https://github.com/ray-project/ray/issues/30838)."""
    uninterrupted = decisions(tmp_path / "a.json", None)
    restored = decisions(tmp_path / "b.json", 40)

    assert restored == uninterrupted
    after = [decision for _, epoch, decision in restored[40:] if epoch == 1]
    assert {CONTINUE, STOP} <= set(after), "the stream decides nothing after the restart"


def test_rungs_survive_a_kill_right_after_a_decision(path: Path) -> None:
    """The last trials before a kill would be missing from the rungs, or be stopped without a reason in the record."""
    run = Run(path)
    at_start = pickle.dumps(run.asha)
    run.add("a", "b")
    run.report("a", 1, 0.9)
    run.report("b", 1, 0.1)
    restored: Any = pickle.loads(at_start)  # noqa: S301

    assert dict(restored._rungs) == {9: {}, 3: {}, 1: {"a": 0.9, "b": 0.1}}
    assert restored.stopped == {"b": 1}


def test_a_stopped_trial_that_ray_resumes_is_stopped_again(path: Path) -> None:
    """A kill between ASHA's decision and Ray's snapshot would let a hopeless trial use up its whole budget."""
    run = Run(path)
    at_start = pickle.dumps(run.asha)
    run.add("a", "b")
    run.report("a", 1, 0.9)
    run.report("b", 1, 0.1)
    run.asha = pickle.loads(at_start)  # noqa: S301
    run.add("a", "b")

    assert run.report("b", 2, 0.1) == STOP
    assert run.asha.stopped == {"b": 1}


def test_a_new_search_finds_no_rungs(path: Path) -> None:
    """Pickling before the first decision would fail, or start with another search's rungs."""
    restored: Any = pickle.loads(pickle.dumps(Run(path).asha))  # noqa: S301

    assert dict(restored._rungs) == {9: {}, 3: {}, 1: {}}
    assert not path.exists()
