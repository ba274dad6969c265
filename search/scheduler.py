"""Who goes on: ASHA whose rungs survive a restart.

The stopping variant of Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"
(https://arxiv.org/abs/1810.05934), as Ray implements it: a trial that reaches a rung goes on if it is among the best
1 / reduction_factor of those that reached it before. Ray keeps no scheduler state over a restart; this one does.
"""

import json
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search.record import write_json
from search.space import Budget, Objective


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA over epochs, on the best objective so far.

    Args:
        budget: gives the rungs.
        objective: gives the direction.
        path: where the rungs are kept as JSON.
    """

    def __init__(self, budget: Budget, objective: Objective, path: Path) -> None:
        super().__init__(
            time_attr="epoch",
            metric="objective",
            mode=objective.mode,
            max_t=budget.epochs,
            grace_period=min(budget.first_rung, budget.epochs),
            reduction_factor=budget.reduction_factor,
        )
        self._path = path
        self.stopped: dict[str, int] = {}

    @property
    def _rungs(self) -> list[tuple[float, dict[str, float]]]:
        return self._brackets[0]._rungs  # type: ignore[no-any-return]

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide at a rung. A trial that ends by itself is left to do so; one stopped before a restart stays so."""
        if trial.trial_id in self.stopped:
            return str(TrialScheduler.STOP)
        if result.get("ending"):
            return str(TrialScheduler.CONTINUE)
        recorded = sum(len(values) for _, values in self._rungs)
        decision = super().on_trial_result(controller, trial, result)
        if decision == TrialScheduler.STOP:
            self.stopped[trial.trial_id] = result["epoch"]
        if sum(len(values) for _, values in self._rungs) > recorded:
            self._save()
        return str(decision)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget the trial; its rungs were filled as it reached them. Its process is used again unless it is crowded.

        Tune asks for the scheduler's last word just before it decides about the process.
        """
        self._trial_info.pop(trial.trial_id, None)
        controller._reuse_actors = not result.get("crowded")

    def _save(self) -> None:
        rungs = [[milestone, values] for milestone, values in self._rungs]
        write_json(self._path, {"rungs": rungs, "stopped": self.stopped})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._path.exists():
            saved = json.loads(self._path.read_text("utf-8"))
            self._brackets[0]._rungs = [(milestone, values) for milestone, values in saved["rungs"]]
            self.stopped = saved["stopped"]
