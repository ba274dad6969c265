"""No rule: every trial ends by itself."""

from collections.abc import Sequence

from search.budget import Budget
from search.components.stopping.rule import Curve
from search.task.objective import Objective


class Never:
    """A rule that stops no trial."""

    name = "no rule"
    rungs: tuple[int, ...] = ()

    def __init__(self, budget: Budget, objective: Objective) -> None:
        pass

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:  # noqa: ARG002
        """Never."""
        return False
