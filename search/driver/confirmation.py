"""Confirmation: when the search is over, the best configurations are run again with other seeds.

The objective of the best of many trials is too optimistic, because it was partly luck (Cawley and Talbot 2010,
https://jmlr.org/papers/v11/cawley10a.html). Confirming trials are never stopped early. They are rows of the record with
their own `seed`, and the winner is the configuration with the best mean over all its seeds.
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
from search.task.objective import Objective


def due(request: Request, record: Record) -> list[dict[str, Any]]:
    """The configurations of all confirming trials, each with its `trial` and its `seed`; none until the search is over.

    They depend only on the trials of the search, so that a resumed search confirms the same configurations.
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
    """The request with a budget for `count` more trials, the confirming ones, none of which is stopped early."""
    space = request.space
    longer = replace(space.budget, trials=space.budget.trials + count, epochs=space.longest)
    fixed = {**space.fixed, "stopping": "none", "finish_epochs": 0}
    return replace(request, space=replace(space, budget=longer, fixed=fixed))


class Confirmation(tune.search.Searcher):  # type: ignore[misc]
    """Gives Ray the remaining confirming trials one after another.

    Args:
        room: returns how many trials may run now.
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
        """Whether more trials run than are allowed now."""
        return len(self._live) > self._room()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; `None` while no more trials may run now, `FINISHED` when no more will begin."""
        if self.pausing or not self._waiting:
            return str(self.FINISHED)
        if len(self._live) >= self._room():
            return None
        self._live.add(trial_id)
        return self._waiting.popleft()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the configurations are fixed."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """Free the trial's place for another one."""
        self._live.discard(trial_id)

    def close(self) -> None:
        """Do nothing; compare `Searcher.close`."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing; see `Searcher.save`."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
