"""A space: what may vary, under which conditions, what is fixed, where to start, how much to spend.

A space is data. A file of `spaces/`, or a user's own, makes one `Space` and calls it `space`. Parameters are Optuna's
own distributions (https://optuna.readthedocs.io/en/stable/reference/distributions.html) and `Depth`, whose upper end
is known only with the backbone. Everything is checked before anything starts, and every fault is named at once.
"""

import math
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

import spaces
from search.errors import SpaceError, unknown
from search.metrics import METRICS
from search.parameters import Choice, Depth, Float, Int, Parameter, contains, count, ends, is_whole, values
from search.settings import SETTINGS, Value, Values

__all__ = ["Budget", "Choice", "Depth", "Float", "Int", "Objective", "Space", "load"]

FURTHER_SEEDS = 2


@dataclass(frozen=True)
class Objective:
    """What the best trial is best at: the best epoch's value of `metric`, a key of `METRICS`."""

    metric: str = "val_accuracy"

    @property
    def mode(self) -> str:
        """`max` or `min`."""
        return METRICS[self.metric].mode

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is strictly better than `best` (`None`: nothing yet)."""
        return METRICS[self.metric].better(value, best)


@dataclass(frozen=True)
class Budget:
    """How much a search may spend.

    `trials` trials of at most `epochs` epochs each, at most `time_s` seconds in all (`None`: no limit). ASHA decides at
    the epochs `first_rung`, `first_rung * reduction_factor`, … and lets about one in `reduction_factor` go on.
    """

    trials: int
    epochs: int
    time_s: float | None = None
    first_rung: int = 1
    reduction_factor: int = 3

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which ASHA decides, and the last one."""
        rungs, rung = [], self.first_rung
        while rung < self.epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return (*rungs, self.epochs)

    def faults(self) -> list[str]:
        """What is wrong with it."""
        whole = {"trials": 1, "epochs": 1, "first_rung": 1, "reduction_factor": 2}
        found = [
            f"budget: {name} must be a whole number, {low} or more; got {value!r}"
            for name, low in whole.items()
            if not is_whole(value := getattr(self, name)) or value < low
        ]
        number = isinstance(self.time_s, int | float) and not isinstance(self.time_s, bool)
        if self.time_s is not None and not (number and self.time_s > 0):
            found.append(f"budget: time_s must be more than 0 seconds; got {self.time_s!r}")
        return found


@dataclass(frozen=True)
class Space:
    """What a search is asked.

    Args:
        search: what varies: parameter → Optuna distribution or `Depth`. Parameters are keys of `SETTINGS`.
        fixed: settings that do not vary and differ from their defaults in `SETTINGS`.
        when: parameter → (parent, value): it exists only where the parent, a `Choice`, has that value; elsewhere a
            trial has its setting's default.
        start: configurations to try first; what one leaves out is sampled. A `Depth` may be `"half"` or `"all"`.
        objective: what counts as best.
        budget: how much may be spent.
        name: the file's name without its ending; set by `load`.
    """

    search: Mapping[str, Parameter]
    budget: Budget
    fixed: Mapping[str, Value] = field(default_factory=dict)
    when: Mapping[str, tuple[str, Value]] = field(default_factory=dict)
    start: Sequence[Mapping[str, Value]] = ()
    objective: Objective = Objective()
    name: str = ""

    @property
    def settings(self) -> Values:
        """Every setting that does not vary: the defaults, and over them what the space fixes."""
        known = {name: self.fixed.get(name, setting.default) for name, setting in SETTINGS.items()}
        return Values({name: value for name, value in known.items() if name not in self.search})

    def parameters(self, configuration: Mapping[str, Value]) -> Values:
        """Every searchable setting as a trial has it: as chosen, else as the space fixes it, else its default."""
        known = {name: self.fixed.get(name, setting.default) for name, setting in SETTINGS.items()}
        chosen = {name: configuration.get(name, value) for name, value in known.items()}
        return Values({name: value for name, value in chosen.items() if SETTINGS[name].searchable})

    def faults(self) -> list[str]:
        """Everything that is wrong with the declaration; empty when nothing is."""
        if wrong := self._type_faults():
            return wrong
        return [
            *self._search_faults(),
            *self._fixed_faults(),
            *self._when_faults(),
            *self._start_faults(),
            *(self.budget.faults() or self.finish_faults()),
            *([] if self.objective.metric in METRICS else [unknown("objective", self.objective.metric, METRICS)]),
        ]

    def _type_faults(self) -> list[str]:
        kinds: dict[str, type] = dict.fromkeys(("search", "fixed", "when"), Mapping)
        kinds |= {"start": Sequence, "objective": Objective, "budget": Budget}
        found = [
            f"{name} must be of type {kind.__name__}; got {value!r}"
            for name, kind in kinds.items()
            if not isinstance(value := getattr(self, name), kind)
        ]
        if found:
            return found
        names = [*self.search, *self.fixed, *self.when]
        found += [f"a parameter's name must be text; got {name!r}" for name in names if not isinstance(name, str)]
        found += [
            f"when[{name!r}] must be a pair of a parameter and its value; got {condition!r}"
            for name, condition in self.when.items()
            if not (isinstance(condition, tuple | list) and len(condition) == 2 and isinstance(condition[0], str))
        ]
        found += [
            f"start[{index}] must be of type Mapping; got {point!r}"
            for index, point in enumerate(self.start)
            if not isinstance(point, Mapping)
        ]
        return found

    def _search_faults(self) -> list[str]:
        found = [] if self.search else ["search: no parameter varies; give at least one"]
        searchable = [name for name, setting in SETTINGS.items() if setting.searchable]
        for name, distribution in self.search.items():
            is_distribution = isinstance(distribution, Parameter)
            if name not in SETTINGS:
                found.append(f"search: {unknown('parameter', name, searchable)}")
            elif name not in searchable:
                found.append(f"search: '{name}' cannot vary within a search; put it under fixed")
            elif isinstance(distribution, Depth) and name != "unfreeze_depth":
                found.append(f"search['{name}']: a Depth is for unfreeze_depth alone")
            elif not is_distribution:
                found.append(f"search['{name}']: must be Float, Int, Choice or Depth; got {distribution!r}")
            else:
                found += [f"search: {f}" for value in ends(distribution) if (f := SETTINGS[name].fault(name, value))]
        return found

    def _fixed_faults(self) -> list[str]:
        found = []
        for name, value in self.fixed.items():
            if name in self.search:
                found.append(f"fixed: '{name}' is under search as well; keep one of them")
            elif name not in SETTINGS:
                found.append(f"fixed: {unknown('setting', name, SETTINGS)}")
            elif fault := SETTINGS[name].fault(name, value):
                found.append(f"fixed: {fault}")
        return found

    def finish_faults(self) -> list[str]:
        """That the best trials would have no more epochs than all others."""
        asked = self.settings["finish_epochs"]
        if SETTINGS["finish_epochs"].fault("", asked) or not asked or self.longest > self.budget.epochs:
            return []
        return [f"finish_epochs must be 0, or more than the {self.budget.epochs} epochs of every trial; got {asked}"]

    def _when_faults(self) -> list[str]:
        found = []
        for name, (parent, value) in self.when.items():
            if name not in self.search:
                found.append(f"when: {unknown('parameter', name, self.search)}")
            if parent not in self.search:
                found.append(f"when['{name}']: {unknown('parameter', parent, self.search)}")
            elif not isinstance(choice := self.search[parent], Choice):
                found.append(f"when['{name}']: '{parent}' must be a Choice")
            elif value not in choice.choices:
                found.append(f"when['{name}']: '{parent}' is never {value!r}; its choices are {choice.choices}")
            elif parent in self.when:
                found.append(f"when['{name}']: '{parent}' depends on another parameter itself; one level is allowed")
        return found

    def _start_faults(self) -> list[str]:
        return [
            f"start[{index}]: {fault}"
            for index, point in enumerate(self.start)
            for name, value in point.items()
            if (fault := self._point_fault(point, name, value))
        ]

    def _point_fault(self, point: Mapping[str, Value], name: str, value: Value) -> str | None:
        if name not in self.search:
            return unknown("parameter", name, self.search)
        distribution: object = self.search[name]
        if name in self.when and name in point and not self.applies(name, point):
            parent, wanted = self.when[name]
            return f"'{name}' applies only where {parent} is {wanted!r}"
        if isinstance(distribution, Depth):
            return distribution.fault(name, value)
        if name in SETTINGS and (fault := SETTINGS[name].fault(name, value)):
            return fault
        if isinstance(distribution, BaseDistribution) and not contains(distribution, value):
            return f"'{name}' must be within {distribution}; got {value!r}"
        return None

    def applies(self, name: str, configuration: Mapping[str, Value]) -> bool:
        """Whether parameter `name` exists in `configuration`."""
        if name not in self.when:
            return True
        parent, value = self.when[name]
        return configuration.get(parent) == value

    def resolve(self, blocks: int) -> "Space":
        """The same space for a backbone of `blocks` blocks: each `Depth` becomes whole numbers.

        Raises:
            SpaceError: a depth the backbone does not have.
        """
        varying = self.search.get("unfreeze_depth")
        asked = [point.get("unfreeze_depth") for point in self.start]
        asked += ends(varying) if varying else [self.settings["unfreeze_depth"]]
        deepest = max((depth for depth in asked if isinstance(depth, int)), default=0)
        if deepest > blocks:
            raise SpaceError([f"unfreeze_depth {deepest} is asked for; the backbone has {blocks} blocks"], self.name)
        depths = {name: d for name, d in self.search.items() if isinstance(d, Depth)}
        start = [
            {name: depths[name].place(value, blocks) if name in depths else value for name, value in point.items()}
            for point in self.start
        ]
        return replace(self, search={**self.search, **{n: d.resolve(blocks) for n, d in depths.items()}}, start=start)

    @property
    def depths(self) -> list[int]:
        """Every unfreeze depth that a trial may have. Needs `resolve`."""
        name = "unfreeze_depth"
        found = values(self.search[name]) if name in self.search else []
        if name not in self.search or name in self.when:
            found.append(self.parameters({})[name])
        return [int(str(depth)) for depth in dict.fromkeys(found)]

    @property
    def size(self) -> float:
        """How many configurations there are; infinite where a number has no steps. Needs `resolve`."""
        return math.prod(self._size(name) for name in self.search if name not in self.when)

    def _size(self, name: str) -> float:
        """How many ways there are to choose a parameter and those that depend on it."""
        below = {child: value for child, (parent, value) in self.when.items() if parent == name}
        if not below:
            return count(self.search[name])
        options = set(values(self.search[name]))
        return sum(math.prod(count(self.search[c]) for c, v in below.items() if v == option) for option in options)

    @property
    def max_failures(self) -> int:
        """How often a trial whose process dies goes on."""
        return self.settings.whole("max_failures")

    @property
    def longest(self) -> int:
        """The epochs that a trial runs at most, the best ones included."""
        return max(self.budget.epochs, self.settings.whole("finish_epochs"))

    @property
    def confirming(self) -> int:
        """How many trials run the best configurations again, with `FURTHER_SEEDS` other seeds each."""
        return FURTHER_SEEDS * min(self.settings.whole("confirm"), self.budget.trials)

    def suggest(self, choose: Callable[[str, Parameter], Value]) -> dict[str, Value]:
        """One configuration; a parameter that does not apply is absent.

        Args:
            choose: gives a value for a parameter, by its name and what it may be.
        """
        configuration: dict[str, Value] = {}
        for name in sorted(self.search, key=lambda name: name in self.when):
            if self.applies(name, configuration):
                configuration[name] = choose(name, self.search[name])
        return configuration

    def declaration(self) -> dict[str, Any]:
        """The space as plain data, for the record."""
        return {
            "name": self.name,
            "search": {name: str(distribution) for name, distribution in self.search.items()},
            "when": {name: list(condition) for name, condition in self.when.items()},
            "start": [dict(point) for point in self.start],
            "objective": self.objective.metric,
            "budget": vars(self.budget),
        }


def load(name_or_file: str) -> Space:
    """Load a space by its name in `spaces/`, or from a user's own `.py` file, and check it whole.

    Raises:
        SpaceError: no such space, a file that does not run or makes no `space`, or a faulty declaration.
    """
    path = _path(name_or_file)
    try:
        space = runpy.run_path(str(path)).get("space")
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"line {lines[-1]}: " if lines else ""
        raise SpaceError([f"does not run: {where}{type(error).__name__}: {error}"], str(path)) from error
    if not isinstance(space, Space):
        raise SpaceError([f"must make a Space and call it 'space'; found {type(space).__name__}"], str(path))
    if faults := space.faults():
        raise SpaceError(faults, str(path) if name_or_file.endswith(".py") else f"space '{path.stem}'")
    return replace(space, name=path.stem)


def _path(name_or_file: str) -> Path:
    if name_or_file.endswith(".py"):
        if not Path(name_or_file).is_file():
            raise SpaceError([f"--space {name_or_file}: no such file"])
        return Path(name_or_file).resolve()
    known = {path.stem: path for path in Path(spaces.__path__[0]).glob("[a-z]*.py")}
    if name_or_file not in known:
        raise SpaceError([f"{unknown('space', name_or_file, known)}; or give a file that ends in .py"])
    return known[name_or_file]
