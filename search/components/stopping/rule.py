"""The interface of a stopping rule.

A rule is called when a trial reaches one of its rungs. It gets only the learning curves up to then, and keeps no state,
so that a resumed search decides as the uninterrupted search would have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from search.budget import Budget
from search.record.record import Point
from search.task.objective import Objective


@dataclass(frozen=True)
class Curve:
    """The learning curve of a trial.

    Args:
        points: epoch, from 1 → the trial's values after it; without epochs whose objective is not a number.
        by_itself: whether the trial has ended without being stopped by a rule.
    """

    points: Mapping[int, Point]
    by_itself: bool = False

    @property
    def epochs(self) -> int:
        """The last epoch of the curve; 0 if it has none."""
        return max(self.points, default=0)

    def reached(self, epoch: int) -> bool:
        """Whether the trial can be compared at this epoch: it came so far, and did not end there by itself."""
        return epoch in self.points and not (self.by_itself and epoch == self.epochs)


class Rule(Protocol):
    """Decides which trials stop.

    Attributes:
        name: for the user.
        rungs: the epochs after which it is called, in order; empty if it stops no trial.
    """

    name: str
    rungs: tuple[int, ...]

    def __init__(self, budget: Budget, objective: Objective) -> None: ...

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether a trial stops at the rung that it has just reached.

        Args:
            trial: its curve up to this epoch.
            others: the curves of all other trials of the search so far, ended or running.
        """
