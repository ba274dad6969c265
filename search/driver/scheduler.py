"""The scheduler for Ray: it applies a stopping rule, and decides which trial gets the next process.

Ray keeps no scheduler state over a restart. So the rule decides from the learning curves, which the record holds.
"""

from collections.abc import Callable
from typing import Any

from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.components.stopping.rule import Curve, Rule
from search.internals import of_ray
from search.record import reports
from search.record.record import Point, Record
from search.record.reports import Report
from search.record.states import COMPLETED, DIVERGED
from search.task.metric import LOSS


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops trials as a stopping rule decides.

    Args:
        rule: decides which trials stop.
        record: of the search; the rule gets the learning curves that it holds.
        too_many: returns whether more trials run than are allowed now.
        places: the placement groups of trials. They are passed here because Ray copies what it gets in other ways.

    Attributes:
        stopped: trial → the epoch at which the rule stopped it.
        pausing: whether no more trials start.
    """

    def __init__(
        self,
        rule: Rule,
        record: Record,
        too_many: Callable[[], bool] = lambda: False,
        places: PlacementGroupFactory | None = None,
    ) -> None:
        super().__init__()
        self.rule = rule
        self.stopped: dict[str, int] = {}
        self.pausing = False
        self._record, self._too_many, self._places = record, too_many, places

    def on_trial_add(self, controller: Any, trial: Trial) -> None:  # noqa: ARG002
        """Set the placement group factory of the trial, which decides on which nodes it may run."""
        if self._places:
            trial.update_resources(self._places)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Apply the rule if the epoch is a rung, but not if the trial ends by itself or reports an epoch again."""
        told = reports.read(result)
        if not isinstance(told, Report) or told.ending or not told.known:
            return str(TrialScheduler.CONTINUE)
        number, epoch = trial.config["trial"], told.epoch
        known = self._record.curves.get(number, {})
        if epoch not in self.rule.rungs or epoch in known:
            return str(TrialScheduler.CONTINUE)
        now = Point(told.objective, told.last[LOSS])
        others = [self._curve(other) for other in self._record.curves if other != number]
        if not self.rule.stops(Curve({**known, epoch: now}), others):
            return str(TrialScheduler.CONTINUE)
        self.stopped[number] = epoch
        return str(TrialScheduler.STOP)

    def _curve(self, trial: str) -> Curve:
        by_itself = self._record.rows[trial].state in (COMPLETED, DIVERGED)
        return Curve(self._record.curves[trial], by_itself)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:  # noqa: ARG002
        """Let another trial use the process, unless its memory is crowded, the search pauses or too many trials run.

        Tune calls this just before it decides about the process.
        """
        told = reports.read(result)
        crowded = told is not None and told.crowded
        of_ray.use_process_again(controller, not (self.pausing or crowded or self._too_many()))

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """The trial that gets the next free process; none while the search pauses.

        A trial whose own process is starting is left out. Otherwise, where trials end faster than a process starts, a
        node that joins would never run a trial.
        """
        if self.pausing:
            return None
        waiting = of_ray.without_process(controller)
        return min(waiting, key=lambda trial: str(trial.config["trial"]), default=None)

    def __getstate__(self) -> dict[str, Any]:
        return {}
