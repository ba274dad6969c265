"""A space: what may vary, under which conditions, what is fixed, where to start, and the budget.

A space is data. A file in `spaces/`, or a user's own file, creates one `Space` and names it `space`. Parameters are
Optuna's distributions (https://optuna.readthedocs.io/en/stable/reference/distributions.html) and `Depth`, whose upper
end depends on the backbone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from search.budget import Budget
from search.component import Component
from search.components.samplers import Sampler
from search.components.stopping import Stopping
from search.components.tables import OWN, TABLES, Parts, Tables
from search.errors import SpaceError
from search.parameters import Depth, Parameter, ends, values
from search.setting import Setting, Value, Values
from search.space.conditions import Conditions
from search.space.settings import NAMING, SETTINGS, known
from search.task.objective import Objective
from search.task.tasks import TASKS

FURTHER_SEEDS = 2


@dataclass(frozen=True)
class Space:
    """What a search varies and fixes, what it optimises, and its budget.

    Args:
        search: what varies: parameter → Optuna distribution or `Depth`. Parameters are keys of `known`.
        fixed: settings that do not vary and differ from their defaults in `known`.
        when: parameter → (parent, value) or (parent, [values]): the parameter exists only if the parent, a `Choice`,
            exists and has one of these values; otherwise a trial uses the setting's default.
        start: configurations to try first; a parameter that one leaves out is sampled. A `Depth` may be `"half"` or
            `"all"`.
        objective: the metric that decides which trial is best.
        budget: how many trials, epochs and seconds the search may use.
        own: components that the space declares in addition to those of the project, such as
            `{"head": {"bottleneck": Head("…", {"width": Setting(…)}, build=…)}}`. Their parameters are settings.
            Metrics too: `{"metric": {"val_cost": Metric("…", "min", of=…)}}`.
        name: the file's name without its ending; set by `spacefile.load`.
    """

    search: Mapping[str, Parameter]
    budget: Budget
    fixed: Mapping[str, Value] = field(default_factory=dict)
    when: Mapping[str, tuple[str, Value | Sequence[Value]]] = field(default_factory=dict)
    start: Sequence[Mapping[str, Value]] = ()
    objective: Objective = field(default_factory=Objective)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        own = self.own.get("metric", {}) if isinstance(self.own, Mapping) else {}
        kind = self.fixed.get("task", SETTINGS["task"].default) if isinstance(self.fixed, Mapping) else None
        if kind in TASKS and isinstance(own, Mapping) and isinstance(self.objective, Objective):
            object.__setattr__(self, "objective", self.objective.of(str(kind), own))

    @property
    def tables(self) -> Tables:
        """All components: setting that names one → name → component."""
        return {kind: {**table, **self.own.get(kind, {})} for kind, table in TABLES.items()}

    @property
    def known(self) -> Mapping[str, Setting]:
        """Every setting, including the parameters of the space's own components."""
        return known(self.tables)

    @property
    def settings(self) -> Values:
        """The value of every setting that does not vary: as the space fixes it, else its default."""
        values = {name: self.fixed.get(name, value) for name, value in self._defaults(self.known).items()}
        return Values({name: value for name, value in values.items() if name not in self.search})

    def parameters(self, configuration: Mapping[str, Value]) -> Values:
        """The value of every searchable setting in a trial: as chosen, else as the space fixes it, else its default."""
        known = self.known
        values = {**self._defaults(known), **self.fixed, **configuration}
        return Values({name: values[name] for name, setting in known.items() if setting.searchable})

    def _defaults(self, known: Mapping[str, Setting]) -> dict[str, Value]:
        """The default of every setting, for what is predicted."""
        return {**{name: setting.default for name, setting in known.items()}, **self.objective.task.defaults}

    def parts(self, parameters: Values) -> Parts:
        """The components that a trial with these parameters consists of."""
        named = {kind: self.tables[kind][parameters.text(kind)] for kind in OWN}
        return Parts(**named)  # type: ignore[arg-type]

    @property
    def sampler(self) -> Sampler:
        """The sampler, which proposes configurations."""
        return cast(Sampler, self.tables["sampler"][self.settings.text("sampler")])

    @property
    def stopping(self) -> Stopping:
        """The stopping rule, by which trials stop early so that others get their resources."""
        return cast(Stopping, self.tables["stopping"][self.settings.text("stopping")])

    @property
    def probed(self) -> bool:
        """Whether linear heads start from one linear probe; trials with other heads train their own probe."""
        return self.settings["head_start"] == "probe" and "linear" in self.named("head")

    def components(self) -> list[Component]:
        """Every component that the search may use."""
        return [self.tables[kind][name] for kind in NAMING for name in self.named(kind) if name in self.tables[kind]]

    @property
    def files(self) -> set[str]:
        """The files that declare what of this is the space's own."""
        known = [component.file for component in self.components()]
        known += [metric.file for metric in self.objective.metrics.values()]
        return {file for file in known if file}

    def named(self, kind: str) -> list[str]:
        """The names of the components of one kind that a trial may use."""
        varying = self.search.get(kind)
        return list(map(str, ends(varying) if varying else [self.settings[kind]]))

    @property
    def conditions(self) -> Conditions:
        """Which parameters exist where."""
        return Conditions(self.search, self.when)

    def resolve(self, blocks: int) -> "Space":
        """The same space for a backbone of `blocks` blocks: each `Depth` becomes whole numbers.

        Raises:
            SpaceError: a depth is larger than the backbone's number of blocks.
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
        return [Values({name: depth}).whole(name) for depth in dict.fromkeys(found)]

    @property
    def size(self) -> float:
        """How many configurations there are; infinite if a number has no steps. Needs `resolve`."""
        return self.conditions.size

    @property
    def max_failures(self) -> int:
        """How often a trial continues after its process has died."""
        return self.settings.whole("max_failures")

    @property
    def longest(self) -> int:
        """The most epochs that any trial may run, including the best ones, which may run longer."""
        return max(self.budget.epochs, self.settings.whole("finish_epochs"))

    @property
    def confirming(self) -> int:
        """How many trials run the best configurations again, with `FURTHER_SEEDS` other seeds each."""
        return FURTHER_SEEDS * min(self.settings.whole("confirm"), self.budget.trials)

    def suggest(self, choose: Callable[[str, Parameter], Value]) -> dict[str, Value]:
        """One configuration; a parameter that does not apply is absent.

        Args:
            choose: returns a value for a parameter, from its name and its distribution.
        """
        configuration: dict[str, Value] = {}
        conditions = self.conditions
        for name in conditions.ordered:
            if conditions.met(name, configuration):
                configuration[name] = choose(name, self.search[name])
        return configuration

    def declaration(self) -> dict[str, Any]:
        """The space as plain data, for the record."""
        metrics = {name: {"words": one.words, "mode": one.mode} for name, one in self.objective.own.items()}
        return {
            "name": self.name,
            "search": {name: str(distribution) for name, distribution in self.search.items()},
            "when": {name: [parent, _plain(values)] for name, (parent, values) in self.when.items()},
            **({"own": self.source} if self.own else {}),
            "start": [dict(point) for point in self.start],
            "objective": self.objective.metric,
            **({"metrics": metrics} if metrics else {}),
            "budget": vars(self.budget),
        }

    @property
    def source(self) -> str:
        """The text of the space file if it declares own components; else empty."""
        return next((one.source for table in self.own.values() for one in table.values()), "")


def _plain(values: Value | Sequence[Value]) -> Value | list[Value]:
    """One value, or a list of values, as JSON can hold them."""
    return list(values) if isinstance(values, tuple | list) else values  # type: ignore[return-value]
