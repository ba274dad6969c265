"""Median stopping: a trial that is worse than the median of the others stops.

The rule of Golovin et al. 2017, "Google Vizier", section 3.2 (https://doi.org/10.1145/3097983.3098043): a trial stops
after an epoch if its best objective so far is worse than the median of the others' mean objectives, each taken over the
epochs up to this one.
"""

from collections.abc import Sequence
from statistics import fmean, median

from search.budget import Budget
from search.components.stopping.rule import Curve
from search.task.objective import Objective

FEWEST = 3  # other trials that a median needs


class Median:
    """Decides after every epoch from `first_rung` on, except the last one."""

    name = "median rule"

    def __init__(self, budget: Budget, objective: Objective) -> None:
        self.rungs = tuple(range(budget.first_rung, budget.epochs))
        self._sign = 1 if objective.mode == "max" else -1

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether the trial is worse than the median of the others."""
        epoch = trial.epochs
        there = [self._mean(one, epoch) for one in others if epoch in one.points]
        return len(there) >= FEWEST and self._sign * trial.points[epoch].objective < median(there)

    def _mean(self, trial: Curve, epoch: int) -> float:
        return fmean(self._sign * point.objective for at, point in trial.points.items() if at <= epoch)
