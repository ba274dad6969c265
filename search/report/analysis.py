"""What a record says beyond its rows: curves, what early stopping saved, what mattered, what sits at a bound.

Numbers only; `charts` draws them.
"""

import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.budget import Budget
from search.components.stopping import RULES
from search.components.stopping.rule import Rule
from search.record.ranking import ranked
from search.record.record import Record, Row, read_search
from search.space.settings import SETTINGS
from search.task.metric import Metric
from search.task.objective import Objective
from search.task.tasks import TASKS

ENOUGH_FOR_IMPORTANCE = 20
BEST_SHARE = 0.1
EDGE = 0.05

Number = float | int


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial: how it went, and how it and the search stood then.

    Args:
        epoch: from 1.
        value: the objective after this epoch; `None` where it was no number.
        at: seconds that the search had run.
        seconds: that the trial had.
    """

    epoch: int
    value: float | None
    at: float
    seconds: float


@dataclass(frozen=True)
class Best:
    """The best value so far, after so many seconds and epochs of all trials together."""

    seconds: float
    epochs: int
    value: float
    trial: str


@dataclass(frozen=True)
class Rung:
    """Which trials came to a rung, and which the stopping rule stopped there."""

    epoch: int
    reached: list[str]
    stopped: list[str]


@dataclass(frozen=True)
class Bound:
    """The best trials lie at one end of what a parameter may be."""

    parameter: str
    end: str
    bound: Number
    trials: int


@dataclass(frozen=True)
class Findings:
    """A search, read once.

    Args:
        about: what `search.json` says.
        curves: trial → its epochs, in order.
        study: Optuna's, from the journal; `None` where that cannot be read.
    """

    record: Record
    about: Mapping[str, Any]
    curves: Mapping[str, list[Epoch]]
    study: optuna.Study | None = field(repr=False)

    @property
    def metric(self) -> str:
        """The objective's name."""
        return str(self.about["space"]["objective"])

    @property
    def objective(self) -> Objective:
        """What the best trial is best at, with the metrics that the space has of its own."""
        own = self.about["space"].get("metrics", {})
        kind = self.about["settings"].get("task", next(iter(TASKS)))  # all that older searches knew
        return Objective(self.metric, kind, {name: Metric(**about) for name, about in own.items()})

    @property
    def up(self) -> bool:
        """Whether more is better."""
        return self.objective.mode == "max"

    @property
    def rule(self) -> Rule:
        """What stopped trials for the sake of others."""
        name = self.about["settings"].get("stopping", "asha")  # all that older searches knew
        return RULES[name].build(Budget(**self.about["space"]["budget"]), self.objective)

    @property
    def rows(self) -> list[Row]:
        """Every trial, by number."""
        return [row for _, row in sorted(self.record.rows.items())]

    @property
    def searched(self) -> list[Row]:
        """Those of the search itself, without the confirming ones."""
        return [row for row in self.rows if not row.confirms]

    @property
    def best(self) -> list[Row]:
        """The trials that can win, best first."""
        return ranked(self.record.rows.values(), self.objective)

    @property
    def epochs(self) -> int:
        """How long a trial may be."""
        return int(self.about["space"]["budget"]["epochs"])

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Parameter → what it may be, in the space's order."""
        known = {} if self.study is None else {k: v for t in self.study.trials for k, v in t.distributions.items()}
        return {name: known[name] for name in self.about["space"]["search"] if name in known}

    def value(self, row: Row) -> float | None:
        """The objective of a trial's best epoch."""
        return row.value(self.metric)

    def depth(self, row: Row) -> int:
        """A trial's unfreeze depth: as chosen, else as fixed; where it does not apply to the trial, its default."""
        name = "unfreeze_depth"
        return int(row.parameters.get(name, self.about["settings"].get(name, SETTINGS[name].default)))


def find(record: Record) -> Findings:
    """Read what there is to know about a search.

    Raises:
        StorageError: the record cannot be read.
    """
    about = read_search(record.folder)
    metric = f"last_{about['space']['objective']}"
    curves: dict[str, dict[int, Epoch]] = {}
    for event in record.history.read()[0]:
        if event["event"] == "epoch":
            told = event["metrics"]
            epoch = Epoch(told["epoch"], told[metric], event["at"], told["seconds"])
            curves.setdefault(event["trial"], {}).setdefault(epoch.epoch, epoch)  # a resumed trial tells one again
    return Findings(
        record, about, {t: list(known.values()) for t, known in curves.items()}, study(record.files.journal)
    )


def metrics(found: Findings) -> dict[str, Any]:
    """The winner's figures, once there is a winner."""
    path = found.record.files.metrics
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def study(journal: Path) -> optuna.Study | None:
    """Optuna's study, as `optuna-dashboard` reads it; `None` where there is none."""
    if not journal.exists():  # Optuna would make one
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(journal))))
    except (OSError, ValueError, KeyError):  # it is damaged, or just being written
        return None


def progress(found: Findings) -> list[Best]:
    """How the best value came to be, over the time and the epochs that were spent."""
    told = sorted(((epoch.at, trial, epoch) for trial, curve in found.curves.items() for epoch in curve))
    steps: list[Best] = []
    for count, (_, trial, epoch) in enumerate(told, 1):
        better = epoch.value is not None and (
            not steps or (epoch.value > steps[-1].value if found.up else epoch.value < steps[-1].value)
        )
        if better and epoch.value is not None:
            steps.append(Best(epoch.at, count, epoch.value, trial))
    if steps and told:
        steps.append(Best(told[-1][0], len(told), steps[-1].value, steps[-1].trial))
    return steps


def rungs(found: Findings) -> list[Rung]:
    """Who came to each rung of the stopping rule, and who was stopped there."""
    searched = {row.trial: found.curves.get(row.trial, []) for row in found.searched}
    at = {row.trial: row.rung for row in found.searched if row.rung}
    return [
        Rung(
            epoch,
            [trial for trial, curve in searched.items() if curve and curve[-1].epoch >= epoch],
            [trial for trial, stopped in at.items() if stopped == epoch],
        )
        for epoch in found.rule.rungs
    ]


def saved(found: Findings) -> tuple[int, int]:
    """Epochs that were trained, and those that the stopped trials were spared, had they gone on to their last."""
    spent = sum(len(curve) for curve in found.curves.values())
    spared = sum(found.epochs - row.epochs for row in found.rows if row.rung)
    return spent, spared


def importance(found: Findings) -> tuple[dict[str, float], int]:
    """What share of the difference between good and bad trials each parameter makes, and from how many trials.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), over the trials that were not stopped; a parameter that some of
    them do not have is left out.
    """
    complete = [] if found.study is None else found.study.get_trials(states=(TrialState.COMPLETE,))
    if found.study is None or len({trial.value for trial in complete}) < 2:
        return {}, len(complete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(optuna.importance.get_param_importances(found.study)), len(complete)
        except (ValueError, RuntimeError):  # no parameter that all of them have
            return {}, len(complete)


def at_bounds(found: Findings) -> list[Bound]:
    """Parameters that more than half of the best tenth of trials have within a twentieth of one end of their range."""
    best = [row for row in found.best if not row.confirms]
    top = best[: math.ceil(BEST_SHARE * len(found.searched))]
    bounds = []
    for name, distribution in found.distributions.items():
        known = [float(str(row.parameters[name])) for row in top if name in row.parameters and is_range(distribution)]
        for end in ("low", "high"):
            near = [value for value in known if _distance(distribution, value, end) <= EDGE]
            if known and 2 * len(near) > len(known) and not _natural(name, end, found):
                bounds.append(Bound(name, end, getattr(distribution, end), len(near)))
    return bounds


def is_range(distribution: BaseDistribution) -> bool:
    """Whether a parameter is a number, and not a choice."""
    return not isinstance(distribution, CategoricalDistribution)


def _distance(distribution: Any, value: float, end: str) -> float:
    """From an end of a range, as a share of it."""
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        return 0.0 if value == getattr(distribution, end) else 1.0
    if isinstance(distribution, FloatDistribution) and distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    place = (value - low) / (high - low) if high > low else 0.5
    return place if end == "low" else 1.0 - place


def _natural(name: str, end: str, found: Findings) -> bool:
    """Whether there is nothing beyond an end: no depth below the head alone, none above the whole backbone."""
    if name == "unfreeze_depth":
        return end == "low" or found.distributions[name].high == found.about.get("blocks")  # type: ignore[attr-defined]
    return end == "low" and name in ("dropout", "weight_decay") and found.distributions[name].low == 0  # type: ignore[attr-defined]


def front(points: Iterable[tuple[float, float]], up: bool) -> list[tuple[float, float]]:
    """The points (cost, value) that no other one beats in both: the Pareto front, cheapest first."""
    kept: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1] if up else point[1])):
        if not kept or (value > kept[-1][1] if up else value < kept[-1][1]):
            kept.append((cost, value))
    return kept


def per_class(confusion: Sequence[Sequence[int]]) -> list[tuple[float | None, float | None, float | None, int]]:
    """Precision, recall, F1 in [0, 1] and the number of images of each class; `None` where there is nothing to count.

    Args:
        confusion: a row for each true class, a column for each predicted one.
    """
    figures = []
    for index, row in enumerate(confusion):
        right, true, told = row[index], sum(row), sum(other[index] for other in confusion)
        precision, recall = (right / told if told else None), (right / true if true else None)
        figures.append((precision, recall, 2 * right / (true + told) if true + told else None, true))
    return figures


def balanced(confusion: Sequence[Sequence[int]]) -> float:
    """Balanced accuracy in [0, 1]: the mean recall of the classes (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764).

    Args:
        confusion: as for `per_class`, with an image at least.
    """
    return statistics.fmean(recall for _, recall, _, _ in per_class(confusion) if recall is not None)


def margin(share: float, count: int) -> float:
    """The standard error of a share of so many images: what chance alone moves it by (binomial)."""
    return math.sqrt(share * (1 - share) / count) if count else 0.0


def interval(part: float, whole: int) -> tuple[float, float]:
    """Where a share of so many images lies with a probability of 95 % (Wilson 1927, doi:10.2307/2276774).

    Args:
        part: how many of the `whole`, at least one, there are.
    """
    share, z = part / whole, 1.96
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return max(0.0, middle - half), min(1.0, middle + half)


def within_chance(found: Findings, value: Callable[[Row], float | None]) -> list[Row]:
    """The trials whose accuracy is within one standard error of the best trial's, that one included."""
    images = found.about["data"]["images"].get("val", 0)
    if not found.best or (top := value(found.best[0])) is None:
        return []
    return [row for row in found.best if (known := value(row)) is not None and top - known <= margin(top, images)]
