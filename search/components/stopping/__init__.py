"""The stopping rules, which stop trials early so that others get their resources; one row and one file each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search.budget import Budget
from search.component import Component
from search.components.stopping.asha import Asha
from search.components.stopping.median import Median
from search.components.stopping.none import Never
from search.components.stopping.rule import Rule
from search.components.stopping.trend import Trend
from search.task.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Stopping(Component):
    """One stopping rule.

    Args:
        build: returns the rule, from the budget and the objective.
    """

    build: Callable[[Budget, Objective], Rule]


RULES: Mapping[str, Stopping] = {
    "trend": Stopping("stops who is behind, and is heading for no better", build=Trend),
    "asha": Stopping("asynchronous successive halving: the best at each rung go on", build=Asha),
    "median": Stopping("stops who is worse than the median of the others", build=Median),
    "none": Stopping("stops nobody: every trial ends by itself", build=Never),
}
