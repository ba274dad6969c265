"""What a stopping rule is told and asked.

A rule is asked after every epoch that it names, and sees what the trials have shown up to then, and nothing else. It
remembers nothing, so that a search that goes on decides as one would have that was never interrupted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from search.budget import Budget
from search.record.record import Point
from search.task.metrics import Objective


@dataclass(frozen=True)
class Curve:
    """What a trial has shown.

    Args:
        points: epoch, from 1 → how it stood then, where that is a number.
        by_itself: whether it has ended, and not for the sake of others.
    """

    points: Mapping[int, Point]
    by_itself: bool = False

    @property
    def epochs(self) -> int:
        """How many it has run."""
        return max(self.points, default=0)

    def reached(self, epoch: int) -> bool:
        """Whether it can be compared there: it came to this epoch, and did not end with it by itself."""
        return epoch in self.points and not (self.by_itself and epoch == self.epochs)


class Rule(Protocol):
    """Decides which trials stop.

    Attributes:
        name: for people.
        rungs: the epochs after which it is asked, in order; none where it stops nobody.
    """

    name: str
    rungs: tuple[int, ...]

    def __init__(self, budget: Budget, objective: Objective) -> None: ...

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether a trial stops at the rung that it has just reached.

        Args:
            trial: up to this epoch.
            others: those of the search that were trained before or are trained beside it, as far as they have come.
        """
