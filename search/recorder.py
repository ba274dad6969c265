"""Follows every trial of a Ray run: into the record, TensorBoard's directory and the user's eyes."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from search.console import Display
from search.record import COMPLETED, RUNNING, STOPPED, Record, Row, ranked
from search.scheduler import Asha
from search.searcher import Searcher
from search.space import Space
from search.tensorboard import Directory

SAME_FAILURE_LIMIT = 3
TIME_IS_UP = "time budget used up"


class Recorder(tune.Callback):  # type: ignore[misc]
    """Follows every trial: in the record, in TensorBoard and before the user's eyes.

    Ray pickles its callbacks for its own snapshot; what cannot be pickled stays behind.
    """

    def __init__(
        self,
        record: Record,
        directory: Directory,
        space: Space,
        display: Display,
        trials_left: Callable[[int], None] = lambda count: None,  # noqa: ARG005
    ) -> None:
        self._record, self._directory, self._space, self._display = record, directory, space, display
        self._trials_left = trials_left
        self.searcher: Searcher | None = None
        self.scheduler: Asha | None = None
        self.stopper = _StopOnBug(self)
        self.bug = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"_space": self._space}

    def on_trial_start(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """A new row, or one that goes on; a new session."""
        number = trial.config["trial"]
        parameters = {name: value for name, value in trial.config.items() if name != "trial"}
        self._directory.start(number, parameters)
        self._put(self._record.rows.get(number, Row(number, parameters)).running(), now=True)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: Sequence[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """An epoch more."""
        row = self._row(trial).after(result)
        if row.val_accuracy is not None and row.val_loss is not None:
            self._directory.best(row.trial, row.val_accuracy, row.val_loss, row.epochs)
        self._put(row)

    def on_trial_complete(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The trial ended by itself, or ASHA stopped it."""
        rung = self.scheduler.stopped.get(trial.trial_id) if self.scheduler else None
        reason = f"by ASHA at epoch {rung}" if rung else TIME_IS_UP
        self._end(self._row(trial).ended(trial.last_result.get("ending", ""), reason))

    def on_trial_error(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The trial raised an error."""
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        self._end(self._row(trial).failed(_cause(error)))
        ended = [row for row in self._record.rows.values() if row.state != RUNNING]
        if len(ended) == SAME_FAILURE_LIMIT and len({(row.state, row.reason) for row in ended}) == 1:
            self.bug = "".join(traceback.format_exception(error))

    def close(self) -> None:
        """End what was cut off with the search."""
        for row in list(self._record.rows.values()):
            if row.state == RUNNING:
                self._end(row.ended("", "the search was ended" if self.bug else TIME_IS_UP))
        self._record.write_trials()
        if self.searcher:
            self.searcher.close()

    def _row(self, trial: Trial) -> Row:
        return self._record.rows[trial.config["trial"]]

    def _put(self, row: Row, now: bool = False) -> None:
        self._record.update(row, now)
        best = ranked(self._record.rows.values(), self._space.objective.metric)
        self._display.show(row, best[0] if best else None)

    def _end(self, row: Row) -> None:
        self._directory.end(row.trial, succeeded=row.state in (COMPLETED, STOPPED))
        self._put(row, now=True)
        ended = [row for row in self._record.rows.values() if row.state != RUNNING]
        self._trials_left(self._space.budget.trials - len(ended))


class _StopOnBug(Stopper):  # type: ignore[misc]
    """Ends the search once its recorder has seen a bug."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return bool(getattr(self._recorder, "bug", ""))


def _cause(error: BaseException) -> str:
    """The first line of what went wrong in a trial."""
    origin = getattr(error, "cause", None) or error
    lines = str(origin).strip().splitlines()
    return f"{type(origin).__name__}: {lines[0]}" if lines else type(origin).__name__
