"""The benchmark of what a search finds: its tables, its clock, and what a replay tells a tool."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import record
from benchmarks.quality import table as tables
from benchmarks.quality.ours import Ours, Variant, declared
from benchmarks.quality.real import Pair, order, pairs
from benchmarks.quality.replay import GO_ON, PAUSE, STOP, replay
from benchmarks.quality.rivals import MORE, RIVALS
from benchmarks.quality.table import Curves, Grid, Plane, Table, curves_at
from search.record.record import Point, Record, Row

EPOCHS, BLOCKS = 8, 2
RATES = (1e-5, 1e-3, 1e-1)
GRID = Grid((0, 1, 2), (2,), RATES)


def made() -> Table:
    """Deeper is better and slower; the highest rate diverges in its third epoch at depth 2."""
    planes, rates = zip(*GRID, strict=True)
    final = np.array([0.5 + 0.1 * plane.unfreeze_depth - 0.01 * abs(math.log10(rate) + 3) for plane, rate in GRID])
    val = final[:, None] * (1 - 0.5 ** np.arange(1, EPOCHS + 1))
    loss = 1 - val
    for row, (plane, rate) in enumerate(GRID):
        if plane.unfreeze_depth == 2 and rate == RATES[-1]:
            val[row, 2:], loss[row, 2:] = 0, np.nan
    seconds = np.array([1.0 + plane.unfreeze_depth for plane in planes])
    return Table("made", {}, planes, np.array(rates), Curves(val, loss, 0.9 * val), seconds, BLOCKS)


class Given:
    """A tool that runs given configurations and says what it is told to say."""

    def __init__(
        self, *configurations: Mapping[str, Any], answers: Mapping[tuple[str, int], str] | None = None
    ) -> None:
        self.waiting = [(str(number), one) for number, one in enumerate(configurations)]
        self.answers = answers or {}
        self.heard: list[tuple[str, int, str]] = []

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """The next one."""
        return self.waiting.pop(0) if self.waiting else None

    def told(self, number: str, report: dict[str, Any]) -> str:
        """What it is to say."""
        self.heard.append((number, report["epoch"], report["ending"]))
        return self.answers.get((number, report["epoch"]), GO_ON)


def configuration(depth: int, rate: float = 1e-3, optimizer: str = "adam") -> dict[str, Any]:
    """One of the grid, or between two of its rates."""
    return {
        "unfreeze_depth": depth,
        "learning_rate": rate,
        "optimizer": optimizer,
        "weight_decay": 1e-4,
        "dropout": 0.1,
    }


def test_a_table_is_read_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures would rest on other curves than those that were recorded."""
    monkeypatch.setattr(tables, "TABLES", tmp_path / "tables")
    before = made()
    images = {"val": 1000, "test": 2000}
    tables.save(before, images)
    after = tables.load("made")

    assert list(after.planes) == list(before.planes)
    assert after.blocks == BLOCKS
    assert after.best == pytest.approx(before.best, abs=5e-4)
    np.testing.assert_allclose(after.rates, before.rates)
    np.testing.assert_allclose(after.curves.val, before.curves.val, atol=5e-4)
    np.testing.assert_allclose(after.curves.test, before.curves.test, atol=5e-4)
    np.testing.assert_allclose(after.curves.loss, before.curves.loss, atol=1e-3)


def test_between_two_rates_the_nearer_one_is_likelier() -> None:
    """A search would be told of accuracies that no training gives, or a good rate reach further than it does."""
    known = made()
    low, high = (curves_at(known, Plane(1, "adam", 1e-4, 0.1), rate)[0].val for rate in (1e-5, 1e-3))
    rates = 1e-5 * 10 ** (0.5 + np.linspace(-0.01, 0.01, 400))
    found = [curves_at(known, Plane(1, "adam", 1e-4, 0.1), rate) for rate in rates]
    from_above = [bool((curves.val == high).all()) for curves, _ in found]

    assert all(
        (curves.val == (high if above else low)).all() for (curves, _), above in zip(found, from_above, strict=True)
    )
    assert np.mean(from_above) == pytest.approx(0.25, abs=0.08)
    assert {seconds for _, seconds in found} == {2.0}


def test_a_configuration_has_one_curve() -> None:
    """A trial that goes on would be another one."""
    known, plane = made(), Plane(2, "sgd", 1e-5, 0.3)
    for rate in (2e-5, 1e-4, 5e-4):
        assert (curves_at(known, plane, rate)[0].val == curves_at(known, plane, rate)[0].val).all()


def test_the_nearest_regularisation_counts() -> None:
    """Much weight decay would be answered by the curves of little."""
    known = made()
    row = known.planes.index(Plane(2, "adam", 3e-2, 0.1))
    known.curves.val[row:, 0] = 0.77

    assert curves_at(known, Plane(2, "adam", 5e-2, 0.0), 1e-3)[0].val[0] == 0.77
    assert curves_at(known, Plane(2, "adam", 1e-5, 0.0), 1e-3)[0].val[0] != 0.77


def test_the_nearest_depth_counts() -> None:
    """A table whose network is too deep to be recorded whole would answer nothing."""
    known = made()
    deepest = known.depths[-1]

    asked, found = (curves_at(known, Plane(depth, "adam", 1e-4, 0.1), 1e-3)[0] for depth in (deepest + 1, deepest))
    assert (asked.val == found.val).all()


def test_workers_share_the_time() -> None:
    """Seconds would be those of one worker, or of none that waits for another."""
    pair = [configuration(0), configuration(2)]
    one = replay(made(), Given(*pair), epochs=EPOCHS, patience=99, workers=1)
    two = replay(made(), Given(*pair), epochs=EPOCHS, patience=99, workers=2)

    assert one.at[-1] == EPOCHS * (1.0 + 3.0)
    assert two.at[-1] == EPOCHS * 3.0
    assert one.epochs[-1] == two.epochs[-1] == 2 * EPOCHS
    assert two.best == sorted(two.best)


def test_trials_end_as_real_ones() -> None:
    """A replay would train on where a real trial has converged or diverged."""
    known = made()
    known.curves.val[0, 4:] = 0.0  # depth 0, adam, the lowest rate: best at epoch 4
    third = known.planes.index(Plane(1, "adam", 1e-4, 0.1)) + 1
    known.curves.val[third, 0] = 0.99  # better than all later ones, before the warm-up is over
    tool = Given(configuration(0, RATES[0]), configuration(2, RATES[-1]), configuration(1))
    trace = replay(known, tool, epochs=EPOCHS, patience=3, workers=1)

    assert [heard for heard in tool.heard if heard[2]] == [
        ("0", 7, "completed"),
        ("1", 3, "diverged"),
        ("2", EPOCHS, "completed"),
    ]
    assert trace.epochs[-1] == 7 + 3 + EPOCHS


def test_a_trial_goes_on_where_it_was_paused() -> None:
    """A second chance would begin anew, or cost nothing."""
    tool = Given(configuration(1), configuration(0), answers={("0", 2): PAUSE, ("1", 1): STOP})
    tool.waiting.append(tool.waiting[0])
    trace = replay(made(), tool, epochs=EPOCHS, patience=99, workers=1)

    assert [(number, epoch) for number, epoch, _ in tool.heard] == [
        ("0", 1),
        ("0", 2),
        ("1", 1),
        *(("0", epoch) for epoch in range(3, EPOCHS + 1)),
    ]
    assert trace.at[-1] == 2.0 * EPOCHS + 1.0


def test_the_end_of_the_time_is_the_end() -> None:
    """A search would find what lies beyond its budget."""
    trace = replay(made(), Given(configuration(0)), epochs=EPOCHS, patience=99, workers=1, seconds=3.5)

    assert trace.at == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("stopping", ["asha", "none"])
def test_our_search_finds_a_good_one(stopping: str, tmp_path: Path) -> None:
    """The real searcher would be told less than in a search, or its trials never be counted."""
    space = declared("finetune", BLOCKS, trials=12, epochs=EPOCHS)
    found = [
        replay(made(), Ours(Variant(space, stopping=stopping), seed, tmp_path), epochs=EPOCHS, patience=5, workers=2)
        for seed in (0, 0, 1)
    ]

    tried = [[trial.configuration for trial in trace.trials.values()] for trace in found]
    assert tried[0] == tried[1] != tried[2]
    assert [len(trace.trials) for trace in found] == [12] * 3
    assert all(trace.best[-1] > 0.6 for trace in found)
    stopped = sum(trial.epochs < EPOCHS and not trial.ending for trial in found[0].trials.values())
    assert (stopped > 0) == (stopping == "asha")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs
@pytest.mark.parametrize("name", [*RIVALS, *MORE])
def test_every_rival_searches(name: str) -> None:
    """A rival would look bad for what the benchmark does to it."""
    trials = 18
    space = declared("finetune", BLOCKS, trials=trials, epochs=EPOCHS)
    try:
        rival = (RIVALS | MORE)[name](space, 0)
    except ImportError as error:
        pytest.skip(str(error))
    trace = replay(made(), rival, epochs=EPOCHS, patience=5, workers=2)
    ended = [trial for trial in trace.trials.values() if trial.ending]

    assert len(trace.trials) == trials
    assert trace.best[-1] == max(trial.curves.val[trial.best - 1] for trial in trace.trials.values() if trial.best)
    assert ended
    assert (len(ended) < trials) == (name != "random")


def test_a_table_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was interrupted would train everything again, or write other curves than it had."""
    for module in (tables, record):
        monkeypatch.setattr(module, "TABLES", tmp_path / "tables")
    about = {"images": {"val": 359, "test": 898}, "blocks": 7}
    whole = {
        "val": [*range(tables.EPOCHS)],
        "test": [*range(tables.EPOCHS)],
        "loss": [0.5] * tables.EPOCHS,
        "seconds": [9.0, 1.0, 1.0],
    }
    diverged = {"val": [3, 2], "test": [4, 5], "loss": [1.0, math.nan], "seconds": [9.0, 2.0]}
    one, other = ((Plane(depth, "sgd", 1e-4, 0.1), tables.RATES[3]) for depth in (0, 7))
    assert record._known("made") == {}
    record._save("made", {one: {**whole, **about}})
    record._save("made", {**record._known("made"), other: {**diverged, **about}})
    found = record._known("made")

    assert list(found) == [one, other]
    assert found[one] == {**whole, **about, "seconds": [1.0]}
    assert (found[other]["val"], found[other]["test"]) == (
        [3] + [0] * (tables.EPOCHS - 1),
        [4] + [0] * (tables.EPOCHS - 1),
    )
    assert found[other]["seconds"] == [2.0]


def test_a_real_trial_is_compared_with_as_many_recorded_epochs(tmp_path: Path) -> None:
    """A trial that was stopped early would count as worse than its recorded curve at the end."""
    known, given = made(), configuration(1)
    curve = known.curves.val[known.planes.index(Plane(1, "adam", 1e-4, 0.1)) + 1]
    points = {epoch: Point(float(curve[epoch - 1]), 0.0) for epoch in (1, 2, 3)}
    found = Record(tmp_path, {"0000": Row("0000", given)}, {"0000": points})

    (pair,) = pairs(known, found, declared("finetune", BLOCKS))
    assert pair.real == pair.replayed == curve[2] < curve[-1]


def test_the_order_of_trials_is_told() -> None:
    """A replay that foretells nothing would pass for one that does."""
    assert order([Pair(0.9, 0.9), Pair(0.8, 0.8), Pair(0.7, 0.7)]) == 1.0
    assert order([Pair(0.7, 0.9), Pair(0.8, 0.8), Pair(0.9, 0.7)]) == 0.0
    assert order([Pair(0.8, 0.9), Pair(0.8, 0.8), Pair(0.1, 0.801)]) == pytest.approx((0.5 + 1.0) / 2)
