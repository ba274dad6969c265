"""This project's own search in a replay: the real searcher and the real stopping rule, told of events as by Ray."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.quality.replay import GO_ON, STOP
from search.components.samplers import SAMPLERS
from search.components.stopping import RULES
from search.components.stopping.rule import Curve
from search.driver.searcher import Searcher
from search.parameters import Depth, values
from search.record.record import Point, Record, Row
from search.record.states import COMPLETED, DIVERGED
from search.space import Space, spacefile


@dataclass(frozen=True)
class Variant:
    """How a search is set.

    Args:
        space: as declared, its depths those of the table's network.
        sampler: of the searcher.
        stopping: the rule's name.
    """

    space: Space
    sampler: str = "tpe"
    stopping: str = "asha"


def _variant(stopping: str, sampler: str = "tpe", *, starts: bool = True, **budget: int) -> Callable[[Space], Variant]:
    def made(space: Space) -> Variant:
        changed = replace(space, budget=replace(space.budget, **budget), start=space.start if starts else ())
        return Variant(changed, sampler, stopping)

    return made


# The default's start points until November 2026: unfreeze depth, learning rate.
TIMID = ((0, 1e-2), (1, 3e-3), ("half", 1e-3), ("all", 3e-4))


def _november(space: Space) -> Variant:
    """The default of November 2026, on the trials of today, which warm up."""
    blocks, rest = max(values(space.search["unfreeze_depth"])), {"weight_decay": 1e-4, "dropout": 0.1}
    start = [
        {"unfreeze_depth": Depth().place(at, int(str(blocks))), "learning_rate": rate, "optimizer": "adam", **rest}
        for at, rate in TIMID
    ]
    return Variant(replace(space, start=start, budget=replace(space.budget, first_rung=2)), stopping="asha")


VARIANTS: Mapping[str, Callable[[Space], Variant]] = {
    "this project": lambda space: Variant(space, stopping=str(space.settings["stopping"])),
    "the trend, tpe without start points": _variant("trend", starts=False),
    "the trend, random": _variant("trend", "random", starts=False),
    "no rule, tpe": _variant("none"),
    "the default of November": _november,
    "random + ASHA": _variant("asha", "random", starts=False, first_rung=2),
}


def declared(name: str, blocks: int, **budget: Any) -> Space:
    """A space of the project for a network of so many blocks, with another budget where that is given."""
    found = spacefile.load(name).resolve(blocks)
    return replace(found, budget=replace(found.budget, **budget))


class Ours:
    """A tool for `replay`.

    Args:
        seed: of the searcher.
        folder: for what the searcher writes; one in memory is fast.
    """

    def __init__(self, variant: Variant, seed: int, folder: Path) -> None:
        self._space = variant.space
        self._record = Record(folder)
        self._searcher = Searcher(variant.space, SAMPLERS[variant.sampler], seed, self._record)
        self._rule = RULES[variant.stopping].build(variant.space.budget, variant.space.objective)
        self._begun = 0

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """What the searcher proposes, until the budget's trials have begun."""
        if self._begun == self._space.budget.trials:
            return None
        name = str(self._begun)
        given = self._searcher.suggest(name)
        if not isinstance(given, dict):
            return None
        self._begun += 1
        configuration = {key: value for key, value in given.items() if key != "trial"}
        self._record.rows[name] = Row(name, configuration)
        return name, self._space.parameters(configuration)

    def told(self, number: str, report: dict[str, Any]) -> str:
        """As Ray does: first the searcher hears of the epoch, then the rule decides, then the record knows."""
        epoch, ending = report["epoch"], report["ending"]
        row, known = self._record.rows[number], self._record.curves.setdefault(number, {})
        if not ending:
            self._searcher.on_trial_result(number, report)
        now = Point(report["objective"], report["last_val_loss"])
        stopped = False
        if not ending and epoch in self._rule.rungs:
            others = [self._curve(other) for other in self._record.curves if other != number]
            stopped = self._rule.stops(Curve({**known, epoch: now}), others)
        if report["best_epoch"]:
            known[epoch] = now
        if ending:
            self._record.rows[number] = row.ended(ending, report["reason"])
        if ending or stopped:
            self._searcher.on_trial_complete(number, report)
        return STOP if stopped else GO_ON

    def _curve(self, trial: str) -> Curve:
        return Curve(self._record.curves[trial], self._record.rows[trial].state in (COMPLETED, DIVERGED))
