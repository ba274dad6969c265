"""What every stopping rule keeps to: a contract over all of them, and what each one is for."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search.components.stopping import RULES
from search.components.stopping.finish import BEST, Finish
from search.components.stopping.rule import Curve, Rule
from search.record.record import Point
from search.space import Budget, Objective
from search.space.settings import SETTINGS
from search.task.classification import METRICS

BUDGET = Budget(trials=40, epochs=16, first_rung=2, reduction_factor=3)
Values = Mapping[int, float]


def point(value: float, metric: str) -> Point:
    """One epoch at which accuracy and loss say the same, the best so far too."""
    return Point(value if METRICS[metric].mode == "max" else 1 - value, 1 - value)


def curve(values: Values, metric: str = "val_accuracy", by_itself: bool = False) -> Curve:
    """A trial by its accuracies."""
    return Curve({epoch: point(value, metric) for epoch, value in values.items()}, by_itself)


def stream(seed: int, trials: int = BUDGET.trials) -> Iterator[tuple[int, int, float]]:
    """Trials whose curves rise to different heights, four at a time: trial, epoch, accuracy."""
    numbers = random.Random(seed)  # noqa: S311
    heights = [numbers.random() for _ in range(trials)]
    waiting, running = list(range(trials)), dict[int, int]()
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = 0
        one = numbers.choice(sorted(running))
        running[one] += 1
        if (epoch := running[one]) == BUDGET.epochs:
            del running[one]
        yield one, epoch, heights[one] * (1 - 0.7**epoch)


def decided(rule: Rule, metric: str, seed: int = 0) -> tuple[dict[int, int], dict[int, int]]:
    """What a rule decides on a stream: trial → its last epoch, and those of them that it stopped."""
    known: dict[int, dict[int, float]] = {}
    stopped: dict[int, int] = {}
    for one, epoch, value in stream(seed):
        if one in stopped:
            continue
        known.setdefault(one, {})[epoch] = value
        if epoch in rule.rungs and epoch < BUDGET.epochs:
            others = [
                curve(values, metric, by_itself=max(values) == BUDGET.epochs)
                for other, values in known.items()
                if other != one
            ]
            if rule.stops(curve(known[one], metric), others):
                stopped[one] = epoch
    return {one: max(values) for one, values in known.items()}, stopped


@pytest.fixture(params=RULES)
def name(request: pytest.FixtureRequest) -> str:
    """Each rule."""
    return str(request.param)


@pytest.mark.parametrize("metric", METRICS)
def test_somebody_reaches_the_end(name: str, metric: str) -> None:
    """A search would end without a model that was trained to its end."""
    for seed in range(5):
        last, _ = decided(RULES[name].build(BUDGET, Objective(metric)), metric, seed)
        assert BUDGET.epochs in last.values()


def test_the_first_trial_goes_on(name: str) -> None:
    """Nobody is there to compare it with."""
    rule = RULES[name].build(BUDGET, Objective())
    for epoch in rule.rungs:
        assert not rule.stops(curve(dict.fromkeys(range(1, epoch + 1), 0.0)), [])


def test_a_maximum_and_a_minimum_are_alike(name: str) -> None:
    """With `val_loss` as objective other trials would be stopped."""
    high = decided(RULES[name].build(BUDGET, Objective("val_accuracy")), "val_accuracy")
    low = decided(RULES[name].build(BUDGET, Objective("val_loss")), "val_loss")

    assert high == low


def test_equals_are_not_stopped(name: str) -> None:
    """All trials of a data set on which nothing learns would be stopped but for the first."""
    rule = RULES[name].build(BUDGET, Objective())
    for epoch in rule.rungs:
        same = curve(dict.fromkeys(range(1, epoch + 1), 0.5))
        assert not rule.stops(same, [same] * 9)


def test_nothing_is_remembered(name: str) -> None:
    """A search that goes on would decide otherwise than one that was never interrupted."""
    rule = RULES[name].build(BUDGET, Objective())
    first = decided(rule, "val_accuracy")

    assert decided(rule, "val_accuracy") == first
    assert decided(RULES[name].build(BUDGET, Objective()), "val_accuracy") == first


def test_trials_that_diverged_count_for_nothing(name: str) -> None:
    """One not-a-number would make every comparison false."""
    rule = RULES[name].build(BUDGET, Objective())
    gone = [Curve({}, by_itself=True), Curve({1: Point(0.9, math.nan)}, by_itself=True)]
    for epoch in rule.rungs:
        good, bad = (curve(dict.fromkeys(range(1, epoch + 1), value)) for value in (0.9, 0.1))
        others = [curve(dict.fromkeys(range(1, epoch + 1), 0.5))] * 9
        assert not rule.stops(good, [*others, *gone])
        assert rule.stops(bad, [*others, *gone]) == rule.stops(bad, others)


def test_the_rungs_lie_within_the_budget(name: str) -> None:
    """A decision would never come, or at an epoch at which the best weights are on no disk."""
    for epochs in (1, 2, 3, 16, 100):
        rungs = RULES[name].build(Budget(4, epochs, first_rung=2), Objective()).rungs
        assert list(rungs) == sorted(set(rungs))
        assert all(1 <= rung < epochs for rung in rungs)


def test_every_rule_can_be_chosen() -> None:
    """A rule would be there that nobody can ask for, or be offered and not be there."""
    assert set(SETTINGS["stopping"].choices) == set(RULES)


def test_no_rule_stops_nobody() -> None:
    """Who wants every curve to its end gets some of them."""
    last, stopped = decided(RULES["none"].build(BUDGET, Objective()), "val_accuracy")

    assert stopped == {}
    assert set(last.values()) == {BUDGET.epochs}


def test_asha_keeps_about_a_third() -> None:
    """It would hardly save epochs, or stop what would have won."""
    _, stopped = decided(RULES["asha"].build(BUDGET, Objective()), "val_accuracy")

    assert 0.5 * BUDGET.trials < len(stopped) < 0.9 * BUDGET.trials
    assert set(stopped.values()) == {2, 6}


@pytest.mark.parametrize("seed", range(5))
def test_asha_decides_as_rays_own(seed: int) -> None:
    """Who asks for ASHA would get something like it."""
    rays = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="objective",
        mode="max",
        max_t=BUDGET.epochs,
        grace_period=BUDGET.first_rung,
        reduction_factor=BUDGET.reduction_factor,
    )
    stopped: dict[int, int] = {}
    for one, epoch, value in stream(seed):
        if one in stopped or epoch == BUDGET.epochs:  # where it ends by itself, ours is not asked
            continue
        if rays._brackets[0].on_result(SimpleNamespace(trial_id=str(one)), epoch, value) == TrialScheduler.STOP:
            stopped[one] = epoch

    assert decided(RULES["asha"].build(BUDGET, Objective()), "val_accuracy", seed)[1] == stopped


@pytest.mark.parametrize("metric", METRICS)
def test_only_the_best_go_on_after_the_last_epoch(name: str, metric: str) -> None:
    """All would, and cost as much as all they did before; or the winner would not."""
    objective = Objective(metric)
    rule = Finish(RULES[name].build(BUDGET, objective), BUDGET, objective)
    upto = dict.fromkeys(range(1, BUDGET.epochs), 0.0)
    others = [curve({**upto, BUDGET.epochs: 0.1 * place}, metric, by_itself=True) for place in range(9)]
    later = [curve({**upto, BUDGET.epochs: 0.1, BUDGET.epochs + 5: 0.9}, metric)] * BEST  # it is not looked ahead

    def stops(value: float) -> bool:
        return rule.stops(curve({**upto, BUDGET.epochs: value}, metric), [*others, *later, Curve({}, by_itself=True)])

    assert rule.rungs == (*RULES[name].build(BUDGET, objective).rungs, BUDGET.epochs)
    assert not stops(0.9)
    assert not stops(0.65)  # two were better
    assert stops(0.55)


def test_the_rule_decides_before_the_best_go_on() -> None:
    """A search that gives more epochs to its best would save none with the others."""
    rule = Finish(RULES["trend"].build(BUDGET, Objective()), BUDGET, Objective())

    assert rule.stops(GONE, [STILL] * 9)
    assert not rule.stops(BACK, [STILL] * 9)


def losses(*values: float) -> Curve:
    """A trial by its validation losses; its accuracy falls and comes back as the loss rises and falls."""
    shown = [Point(math.exp(-min(values[: at + 1])), loss) for at, loss in enumerate(values)]
    return Curve(dict(enumerate(shown, 1)))


STILL = losses(0.56, 0.55, 0.55, 0.55)
BACK = losses(1.2, 3.3, 1.4, 0.9)  # a high rate: far behind the others, and faster than they
GONE = losses(1.2, 3.3, 2.4, 2.3)  # a rate that was too high: it stays there


def test_who_comes_back_from_a_fall_goes_on() -> None:
    """The rates that win in the end would be stopped for what they do to the first epochs."""
    rule = RULES["trend"].build(BUDGET, Objective())
    asha = RULES["asha"].build(replace(BUDGET, first_rung=4), Objective())

    assert not rule.stops(BACK, [STILL] * 9)
    assert asha.stops(BACK, [STILL] * 9)


@pytest.mark.parametrize("trial", [GONE, losses(0.7, 0.7, 0.7, 0.7), losses(0.6, 0.7, 0.8, 0.9)])
def test_who_is_worse_and_does_not_catch_up_is_stopped(trial: Curve) -> None:
    """It would save nothing."""
    assert RULES["trend"].build(BUDGET, Objective()).stops(trial, [STILL] * 9)


def test_who_was_better_before_is_judged_by_that() -> None:
    """The weights of the best epoch are what counts, and a trial that has them would be stopped for the later ones."""
    assert not RULES["trend"].build(BUDGET, Objective()).stops(losses(0.4, 0.5, 0.7, 0.8), [STILL] * 9)


def test_who_is_ahead_goes_on_wherever_its_loss_is_heading() -> None:
    """On small data the loss rises where the accuracy still does, and the best trial would be stopped for it."""
    rule = RULES["trend"].build(BUDGET, Objective())
    surer = Curve({epoch: Point(0.7 + 0.01 * epoch, 0.5 + 0.1 * epoch) for epoch in range(1, 5)})

    assert not rule.stops(surer, [STILL] * 9)


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    """One epoch beyond all numbers would end the search."""
    rule = RULES["trend"].build(BUDGET, Objective())
    lost = Curve({epoch: Point(0.5, math.nan) for epoch in range(1, 5)})

    assert rule.stops(lost, [STILL] * 9)
    assert not rule.stops(STILL, [lost] * 9)


def test_the_trend_needs_four_epochs() -> None:
    """It would compare the slopes of one epoch."""
    assert [RULES["trend"].build(replace(BUDGET, first_rung=rung), Objective()).rungs for rung in (1, 4, 5)] == [
        (4, 12),
        (4, 12),
        (5, 15),
    ]
