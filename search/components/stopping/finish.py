"""Finish: the best trials run beyond the last epoch of the budget, as long as they improve."""

from collections.abc import Sequence

from search.budget import Budget
from search.components.stopping.rule import Curve, Rule
from search.task.objective import Objective

BEST = 3


class Finish:
    """A stopping rule with one more rung at the last epoch of the budget, which only the best trials so far pass.

    Args:
        rule: decides at the epochs before.
    """

    def __init__(self, rule: Rule, budget: Budget, objective: Objective) -> None:
        self.name = rule.name
        self.rungs = (*rule.rungs, budget.epochs)
        self._rule, self._last = rule, budget.epochs
        self._sign = 1 if objective.mode == "max" else -1

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether the rule stops the trial; at the budget's last epoch, whether `BEST` others were better by then."""
        if trial.epochs < self._last:
            return self._rule.stops(trial, others)
        value = self._reached(trial)
        return sum(self._reached(one) > value for one in others if one.points) >= BEST

    def _reached(self, trial: Curve) -> float:
        """The trial's best objective up to the last epoch of the budget, with its sign set so that higher is better."""
        epoch = max((at for at in trial.points if at <= self._last), default=0)
        return self._sign * trial.points[epoch].objective if epoch else float("-inf")
