"""ASHA: asynchronous successive halving.

The stopping variant of Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"
(https://arxiv.org/abs/1810.05934), as Ray implements it: a trial that reaches a rung continues if its best objective so
far is among the best 1 / reduction_factor of the trials that reached the rung before.
"""

from collections.abc import Sequence

import numpy as np

from search.budget import Budget
from search.components.stopping.rule import Curve
from search.task.objective import Objective


class Asha:
    """ASHA with rungs at the epochs `first_rung`, `first_rung * reduction_factor`, … of the budget."""

    name = "ASHA"

    def __init__(self, budget: Budget, objective: Objective) -> None:
        self.rungs = budget.rungs[:-1]
        self._share = 1 / budget.reduction_factor
        self._sign = 1 if objective.mode == "max" else -1

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether the trial is not among the best 1 / reduction_factor at this rung."""
        epoch = trial.epochs
        there = [self._sign * one.points[epoch].objective for one in others if one.reached(epoch)]
        if not there:
            return False
        return self._sign * trial.points[epoch].objective < float(np.quantile(there, 1 - self._share))
