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
from typing import Any, cast

from optuna.distributions import BaseDistribution

import spaces
from search.budget import Budget
from search.component import Component
from search.errors import SpaceError, unknown
from search.heads import Head
from search.losses import Loss
from search.metrics import METRICS, Objective
from search.optimizers import Optimizer
from search.parameters import Choice, Depth, Float, Int, Parameter, contains, count, ends, values
from search.samplers import Sampler
from search.schedules import Schedule
from search.setting import Setting, Value, Values
from search.settings import NAMING, known
from search.stopping import Stopping
from search.tables import OWN, TABLES, Parts, Tables

__all__ = [
    "Budget",
    "Choice",
    "Depth",
    "Float",
    "Head",
    "Int",
    "Loss",
    "Objective",
    "Optimizer",
    "Schedule",
    "Setting",
    "Space",
    "load",
]

FURTHER_SEEDS = 2


@dataclass(frozen=True)
class Space:
    """What a search is asked.

    Args:
        search: what varies: parameter → Optuna distribution or `Depth`. Parameters are keys of `known`.
        fixed: settings that do not vary and differ from their defaults in `known`.
        when: parameter → (parent, value) or (parent, [values]): it exists only where the parent, a `Choice`, exists
            and has one of these values; elsewhere a trial has its setting's default.
        start: configurations to try first; what one leaves out is sampled. A `Depth` may be `"half"` or `"all"`.
        objective: what counts as best.
        budget: how much may be spent.
        own: components of the space's own, beside those of the project: such as
            `{"head": {"bottleneck": Head("…", {"width": Setting(…)}, build=…)}}`. Their parameters are settings.
        name: the file's name without its ending; set by `load`.
    """

    search: Mapping[str, Parameter]
    budget: Budget
    fixed: Mapping[str, Value] = field(default_factory=dict)
    when: Mapping[str, tuple[str, Value | Sequence[Value]]] = field(default_factory=dict)
    start: Sequence[Mapping[str, Value]] = ()
    objective: Objective = field(default_factory=Objective)
    own: Tables = field(default_factory=dict)
    name: str = ""

    @property
    def tables(self) -> Tables:
        """All components, by the setting that names one."""
        return {kind: {**table, **self.own.get(kind, {})} for kind, table in TABLES.items()}

    @property
    def known(self) -> Mapping[str, Setting]:
        """Every setting, with those of the space's own components."""
        return known(self.tables)

    @property
    def settings(self) -> Values:
        """Every setting that does not vary: the defaults, and over them what the space fixes."""
        values = {name: self.fixed.get(name, setting.default) for name, setting in self.known.items()}
        return Values({name: value for name, value in values.items() if name not in self.search})

    def parameters(self, configuration: Mapping[str, Value]) -> Values:
        """Every searchable setting as a trial has it: as chosen, else as the space fixes it, else its default."""
        searchable = {name: setting.default for name, setting in self.known.items() if setting.searchable}
        fixed = {name: self.fixed.get(name, default) for name, default in searchable.items()}
        return Values({name: configuration.get(name, value) for name, value in fixed.items()})

    def parts(self, parameters: Values) -> Parts:
        """The components that a trial of these parameters is put together from."""
        named = {kind: self.tables[kind][parameters.text(kind)] for kind in OWN}
        return Parts(**named)  # type: ignore[arg-type]

    @property
    def sampler(self) -> Sampler:
        """What proposes configurations."""
        return cast(Sampler, self.tables["sampler"][self.settings.text("sampler")])

    @property
    def stopping(self) -> Stopping:
        """The rule by which trials stop for the sake of others."""
        return cast(Stopping, self.tables["stopping"][self.settings.text("stopping")])

    @property
    def probed(self) -> bool:
        """Whether a linear probe is what heads start from; of other heads, the trials train their own."""
        return self.settings["head_start"] == "probe" and "linear" in self._named("head")

    def components(self) -> list[Component]:
        """Every component that the search may use."""
        return [self.tables[kind][name] for kind in NAMING for name in self._named(kind) if name in self.tables[kind]]

    def _named(self, kind: str) -> list[str]:
        varying = self.search.get(kind)
        return list(map(str, ends(varying) if varying else [self.settings[kind]]))

    def faults(self) -> list[str]:
        """Everything that is wrong with the declaration; empty when nothing is."""
        if wrong := [*self._type_faults(), *self._own_faults()]:
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
        kinds: dict[str, type] = dict.fromkeys(("search", "fixed", "when", "own"), Mapping)
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
            f"when[{name!r}] must be a pair of a parameter and its value, or values; got {condition!r}"
            for name, condition in self.when.items()
            if not (isinstance(condition, tuple | list) and len(condition) == 2 and isinstance(condition[0], str))
        ]
        found += [
            f"start[{index}] must be of type Mapping; got {point!r}"
            for index, point in enumerate(self.start)
            if not isinstance(point, Mapping)
        ]
        return found

    def _own_faults(self) -> list[str]:
        found = []
        for kind, table in self.own.items() if isinstance(self.own, Mapping) else ():
            if kind not in OWN:
                found.append(f"own: {unknown('kind of component', kind, OWN)}")
                continue
            wanted = type(next(iter(TABLES[kind].values())))
            for name, component in table.items():
                if name in TABLES[kind]:
                    found.append(f"own[{kind!r}]: {name!r} is one of the project's; take another name")
                elif not isinstance(component, wanted):
                    found.append(f"own[{kind!r}][{name!r}] must be of type {wanted.__name__}; got {component!r}")
                else:
                    found += [
                        f"own[{kind!r}][{name!r}]: {parameter!r} means something else already; take another name"
                        for parameter, setting in component.parameters.items()
                        if known(TABLES).get(parameter, setting) != setting
                    ]
        return found

    def _search_faults(self) -> list[str]:
        found = [] if self.search else ["search: no parameter varies; give at least one"]
        settings, owners = self.known, self._owners()
        searchable = [name for name, setting in settings.items() if setting.searchable]
        for name, distribution in self.search.items():
            is_distribution = isinstance(distribution, Parameter)
            if name not in settings:
                found.append(f"search: {unknown('parameter', name, searchable)}")
            elif name not in searchable:
                found.append(f"search: '{name}' cannot vary within a search; put it under fixed")
            elif isinstance(distribution, Depth) and name != "unfreeze_depth":
                found.append(f"search['{name}']: a Depth is for unfreeze_depth alone")
            elif not is_distribution:
                found.append(f"search['{name}']: must be Float, Int, Choice or Depth; got {distribution!r}")
            else:
                found += [f"search: {f}" for value in ends(distribution) if (f := settings[name].fault(name, value))]
                if name in owners and not any(one in self._named(kind) for kind, one in owners[name]):
                    which = " or ".join(f"{kind}={one}" for kind, one in owners[name])
                    found.append(f"search: '{name}' has no effect; it is for {which}, which this space never has")
        return found

    def _owners(self) -> dict[str, list[tuple[str, str]]]:
        """Parameter → the components that it is for, each by the setting that names it."""
        found: dict[str, list[tuple[str, str]]] = {}
        for kind, table in self.tables.items():
            for name, component in table.items():
                for parameter in component.parameters:
                    found.setdefault(parameter, []).append((kind, name))
        return found

    def _fixed_faults(self) -> list[str]:
        found, settings = [], self.known
        for name, value in self.fixed.items():
            if name in self.search:
                found.append(f"fixed: '{name}' is under search as well; keep one of them")
            elif name not in settings:
                found.append(f"fixed: {unknown('setting', name, settings)}")
            elif fault := settings[name].fault(name, value):
                found.append(f"fixed: {fault}")
        return found

    def finish_faults(self) -> list[str]:
        """That the best trials would have no more epochs than all others."""
        asked = self.settings["finish_epochs"]
        if self.known["finish_epochs"].fault("", asked) or not asked or self.longest > self.budget.epochs:
            return []
        return [f"finish_epochs must be 0, or more than the {self.budget.epochs} epochs of every trial; got {asked}"]

    def _when_faults(self) -> list[str]:
        found = []
        for name in self.when:
            parent, values = self._condition(name)
            if name not in self.search:
                found.append(f"when: {unknown('parameter', name, self.search)}")
            if parent not in self.search:
                found.append(f"when['{name}']: {unknown('parameter', parent, self.search)}")
            elif not isinstance(choice := self.search[parent], Choice):
                found.append(f"when['{name}']: '{parent}' must be a Choice")
            else:
                never = [value for value in values if value not in choice.choices]
                found += [f"when['{name}']: '{parent}' is never {v!r}; its choices are {choice.choices}" for v in never]
                if self._level(name) > len(self.search):
                    found.append(f"when['{name}']: '{name}' would exist under a condition that depends on itself")
        return found

    def _condition(self, name: str) -> tuple[str, tuple[Value, ...]]:
        """The parent of a parameter, and those of its values under which it exists."""
        parent, value = self.when[name]
        return parent, (value,) if value is None or isinstance(value, bool | int | float | str) else tuple(value)

    def _level(self, name: str) -> int:
        """How many conditions lie above a parameter; more than there are parameters where they go in a circle."""
        level = 0
        while name in self.when and level <= len(self.search):
            name, level = self.when[name][0], level + 1
        return level

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
            parent, wanted = self._condition(name)
            return f"'{name}' applies only where {parent} is {' or '.join(map(repr, wanted))}"
        if isinstance(distribution, Depth):
            return distribution.fault(name, value)
        if name in (settings := self.known) and (fault := settings[name].fault(name, value)):
            return fault
        if isinstance(distribution, BaseDistribution) and not contains(distribution, value):
            return f"'{name}' must be within {distribution}; got {value!r}"
        return None

    def applies(self, name: str, configuration: Mapping[str, Value]) -> bool:
        """Whether parameter `name` exists in `configuration`."""
        if name not in self.when:
            return True
        parent, values = self._condition(name)
        return configuration.get(parent) in values

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
        below = [(child, under) for child in self.when for parent, under in [self._condition(child)] if parent == name]
        if not below:
            return count(self.search[name])
        options = set(values(self.search[name]))
        return sum(math.prod(self._size(child) for child, under in below if option in under) for option in options)

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
        for name in sorted(self.search, key=self._level):
            if self.applies(name, configuration):
                configuration[name] = choose(name, self.search[name])
        return configuration

    def declaration(self) -> dict[str, Any]:
        """The space as plain data, for the record."""
        return {
            "name": self.name,
            "search": {name: str(distribution) for name, distribution in self.search.items()},
            "when": {name: [parent, _plain(values)] for name, (parent, values) in self.when.items()},
            **({"own": self.source} if self.own else {}),
            "start": [dict(point) for point in self.start],
            "objective": self.objective.metric,
            "budget": vars(self.budget),
        }

    @property
    def source(self) -> str:
        """The text of the file that declares components of the space's own; empty where there are none."""
        return next((one.source for table in self.own.values() for one in table.values()), "")


def _plain(values: Value | Sequence[Value]) -> Value | list[Value]:
    """One value, or several, as JSON has them."""
    return list(values) if isinstance(values, tuple | list) else values  # type: ignore[return-value]


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
    about: dict[str, Any] = {"file": str(path), "source": path.read_text("utf-8")} if space.own else {}
    own = {kind: {name: replace(one, **about) for name, one in table.items()} for kind, table in space.own.items()}
    return replace(space, name=path.stem, own=own)


def _path(name_or_file: str) -> Path:
    if name_or_file.endswith(".py"):
        if not Path(name_or_file).is_file():
            raise SpaceError([f"--space {name_or_file}: no such file"])
        return Path(name_or_file).resolve()
    known = {path.stem: path for path in Path(spaces.__path__[0]).glob("[a-z]*.py")}
    if name_or_file not in known:
        raise SpaceError([f"{unknown('space', name_or_file, known)}; or give a file that ends in .py"])
    return known[name_or_file]
