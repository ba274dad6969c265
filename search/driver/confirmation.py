"""Is it more than chance? The best configurations are run again, with other seeds, once the search is over.

The best of many trials is better than its configuration is: it was lucky as well (Cawley and Talbot 2010,
https://jmlr.org/papers/v11/cawley10a.html). Confirming trials are never stopped early, are rows of the record with a
`seed` of their own, and the winner is the configuration with the best mean over all its seeds.
"""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray import tune

from search.record.ranking import ranked
from search.record.record import SEED, Record
from search.record.states import RUNNING
from search.request.request import Request
from search.space.space import FURTHER_SEEDS
from search.task.metrics import Objective


def due(request: Request, record: Record) -> list[dict[str, Any]]:
    """The configurations of all confirming trials, each with its `trial` and its `seed`; none until the search is over.

    They follow from the trials of the search alone, so that one that goes on confirms the same.
    """
    space, trials = request.space, request.space.budget.trials
    searched = [row for row in record.rows.values() if not row.confirms]
    if not space.confirming or len([row for row in searched if row.state != RUNNING]) < trials:
        return []
    best = {row.configuration: row for row in reversed(ranked(searched, space.objective))}
    chosen = list(reversed(best.values()))[: space.confirming // FURTHER_SEEDS]
    pairs = [(row, request.seed + further) for row in chosen for further in range(1, FURTHER_SEEDS + 1)]
    return [
        {**row.parameters, SEED: seed, "trial": f"{number:04d}"}
        for number, (row, seed) in enumerate(pairs, start=trials)
    ]


def extended(request: Request, count: int) -> Request:
    """The request with room for so many confirming trials, none of which is stopped early."""
    space = request.space
    longer = replace(space.budget, trials=space.budget.trials + count, epochs=space.longest)
    fixed = {**space.fixed, "stopping": "none", "finish_epochs": 0}
    return replace(request, space=replace(space, budget=longer, fixed=fixed))


class Confirmation(tune.search.Searcher):  # type: ignore[misc]
    """Gives Ray the confirming trials that are left, in turn.

    Args:
        room: gives how many trials may run now.
    """

    fault = None

    def __init__(
        self,
        configurations: Sequence[dict[str, Any]],
        objective: Objective,
        room: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        super().__init__(metric="objective", mode=objective.mode)
        self._waiting = deque(configurations)
        self._live: set[str] = set()
        self._room = room
        self.pausing = False

    def too_many(self) -> bool:
        """Whether more trials run than may now."""
        return len(self._live) > self._room()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next one; `None` while no further trial may run, `FINISHED` when none is to begin any more."""
        if self.pausing or not self._waiting:
            return str(self.FINISHED)
        if len(self._live) >= self._room():
            return None
        self._live.add(trial_id)
        return self._waiting.popleft()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing is learned from it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """There is room for another."""
        self._live.discard(trial_id)

    def close(self) -> None:
        """Nothing; see `Searcher.close`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing; see `Searcher.save`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
