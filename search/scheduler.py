"""Who goes on: ASHA whose rungs survive a restart.

The stopping variant of Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"
(https://arxiv.org/abs/1810.05934), as Ray implements it: a trial that reaches a rung goes on if it is among the best
1 / reduction_factor of those that reached it before. Ray keeps no scheduler state over a restart; here the rungs follow
from the curves of the trials, which the record holds.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search.record import COMPLETED, DIVERGED, Record
from search.space import Budget, Objective


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA over epochs, on the best objective so far.

    Args:
        budget: gives the rungs.
        objective: gives the direction.
        record: of the search; its trials are in the rungs that they reached.
        too_many: whether more trials run than may.

    Attributes:
        stopped: trial → the rung at which it was stopped.
        pausing: no trial starts any more.
    """

    def __init__(
        self, budget: Budget, objective: Objective, record: Record, too_many: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(
            time_attr="epoch",
            metric="objective",
            mode=objective.mode,
            max_t=budget.epochs,
            grace_period=min(budget.first_rung, budget.epochs),
            reduction_factor=budget.reduction_factor,
        )
        self.stopped: dict[str, int] = {}
        self.pausing = False
        self._too_many = too_many
        for trial, curve in record.curves.items():
            row = record.rows[trial]
            by_itself = row.epochs if row.state in (COMPLETED, DIVERGED) else None
            for rung, values in self._rungs:
                if rung in curve and rung != by_itself:
                    values[trial] = self._metric_op * curve[int(rung)]

    @property
    def _rungs(self) -> list[tuple[float, dict[str, float]]]:
        return self._brackets[0]._rungs  # type: ignore[no-any-return]

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Decide at a rung. A trial that ends by itself is left to do so."""
        if "failure" in result or result["ending"]:
            return str(TrialScheduler.CONTINUE)
        number, epoch = trial.config["trial"], result["epoch"]
        decision = self._brackets[0].on_result(
            SimpleNamespace(trial_id=number), epoch, self._metric_op * result["objective"]
        )
        if decision == TrialScheduler.STOP:
            self.stopped[number] = epoch
        return str(decision)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget the trial; its rungs were filled as it reached them.

        Its process is used again, unless it is crowded or its place is needed by others.

        Tune asks for the scheduler's last word just before it decides about the process.
        """
        self._trial_info.pop(trial.trial_id, None)
        controller._reuse_actors = not (self.pausing or result.get("crowded") or self._too_many())

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """The trial that is to have the next process that is free; none while the search pauses.

        It is not one whose own process starts: Tune would end that one, and where trials end more often than a
        process takes to start, a node that joins would never have a trial.
        """
        if self.pausing:
            return None
        tune = controller._tune_controller
        started = tune._actor_manager.is_actor_started
        needy = (trial for trial in tune._pending_trials if not started(tune._trial_to_actor.get(trial)))
        return min(needy, key=lambda trial: str(trial.config["trial"]), default=None)

    def __getstate__(self) -> dict[str, Any]:
        return {}
