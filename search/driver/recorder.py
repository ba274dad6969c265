"""Writes what happens to every trial of a Ray run to the record and to TensorBoard, and shows it to the user."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from search.driver.confirmation import Confirmation
from search.driver.faults import Faults
from search.driver.scheduler import Scheduler
from search.driver.searcher import Searcher
from search.errors import cause
from search.record import reports
from search.record.ranking import ranked
from search.record.record import Record, Row
from search.record.reports import Failure
from search.record.states import ALL_EPOCHS, COMPLETED, FAILED, RUNNING, STOPPED
from search.report.console import Display
from search.space.space import Space
from search.trial.tensorboard import Directory

TIME_IS_UP = "time budget used up"
SECONDS_BETWEEN_SIGNS = 10.0


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes what happens to every trial to the record and to TensorBoard, and shows it to the user.

    Ray pickles its callbacks for its own snapshot. The search never reads that snapshot, so the pickled state is empty.

    Args:
        ask_to_pause: asks every trial to save a checkpoint and end after its current epoch.
        trials_left: is called with the number of trials that have not ended.
        faults: collects what goes wrong.

    Attributes:
        pausing: set this to interrupt the search.
    """

    def __init__(
        self,
        record: Record,
        space: Space,
        display: Display,
        *,
        searcher: Searcher | Confirmation,
        scheduler: Scheduler,
        ask_to_pause: Callable[[], None],
        trials_left: Callable[[int], None],
        faults: Faults,
    ) -> None:
        self._record, self._space, self._display = record, space, display
        self._directory = Directory(record.files.tensorboard)
        self.searcher, self.scheduler = searcher, scheduler
        self._ask_to_pause, self._trials_left = ask_to_pause, trials_left
        self._running: set[str] = set()
        self._before, self._began = record.seconds, time.monotonic()
        self._sign_at = self._began
        leaders = ranked(record.rows.values(), space.objective)
        self._leader = leaders[0] if leaders else None
        self.stopper = _Stopper(self)
        self.faults = faults
        self.pausing = False

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def begin(self) -> None:
        """Start the clock: the time that the search uses counts from now on."""
        self._began = time.monotonic()

    def on_trial_start(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Record that a trial starts or continues: a new row, or the known one, and a new TensorBoard session."""
        number = trial.config["trial"]
        parameters = {name: value for name, value in trial.config.items() if name != "trial"}
        self._running.add(number)
        with self.faults.storing():
            self._directory.start(number, parameters)
            self._note(number, "started", parameters=parameters)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: Sequence[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Record one more epoch, which may be the last one, or a failure."""
        number = trial.config["trial"]
        told = reports.read(result)
        if told is None:
            return
        if isinstance(told, Failure):
            self._fail(number, told.cause, told.traceback)
            return
        if told.note:
            self._display.tell(f"trial {number} {told.note}")
        with self.faults.storing():
            process = f"{result.get('hostname')} {result.get('pid')}"
            rung = self.scheduler.stopped.get(number)
            if rung == self._space.budget.epochs:  # it ran all epochs of the budget
                rung, told = None, told.ended(COMPLETED, ALL_EPOCHS)
            stopped = {"rung": rung, "rule": self.scheduler.rule.name} if rung else {}
            row = self._note(number, "epoch", metrics=told.event(), process=process, **stopped)
            if row and row.figures:
                self._directory.best(row.trial, row.figures, row.epochs)
            if row and row.state != RUNNING:
                self.faults.succeeded()
                self._ended(row)

    def on_trial_complete(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Note that the trial's process no longer runs it."""
        self._running.discard(trial.config["trial"])

    def on_trial_recover(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Record that the trial's process died; the trial continues in another process."""
        self._died(trial.config["trial"], self.faults.of(trial))

    def on_trial_error(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Record that the trial's process died, and that Ray does not start the trial again.

        That can come too early: if a process dies just before it begins the trial, Ray counts two deaths.
        """
        number, error = trial.config["trial"], self.faults.of(trial)
        if number in self._running:
            self._died(number, error)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:  # noqa: ARG002
        """Record that the search is alive, check for a lost storage, and begin to pause if that was requested."""
        with self.faults.storing():
            self._record.follow()
        if time.monotonic() - self._sign_at >= SECONDS_BETWEEN_SIGNS:
            with self.faults.storing():
                self._note("", "alive")
        lost = self.searcher.fault or (self._record.mirror and self._record.mirror.fault)
        if lost:
            self.faults.lost(lost)
        if self.pausing and not self.scheduler.pausing:
            self.scheduler.pausing = self.searcher.pausing = True
            self._ask_to_pause()
            self._display.tell("interrupted: trials that run are saved after their epoch; once more ends at once")

    @property
    def unfinished(self) -> bool:
        """Whether trials that Ray has given up must still continue."""
        ended = len(self._record.ended)
        return not (self.late or self.pausing or self.over) and ended < self._space.budget.trials

    @property
    def late(self) -> bool:
        """Whether the time budget of the search is used up."""
        limit = self._space.budget.time_s
        return limit is not None and self._at() >= limit

    @property
    def over(self) -> bool:
        """Whether to end the Ray run without waiting for trials: after a bug or a fault, or when all have paused."""
        return bool(self.faults.bug or self.faults.storage or (self.scheduler.pausing and not self._running))

    def close(self) -> None:
        """Write the final state of the trials; end those that were cut off, unless the search pauses."""
        reason = "the search was ended" if self.faults.bug or self.unfinished else TIME_IS_UP
        with self.faults.storing():
            for row in [] if self.pausing else list(self._record.rows.values()):
                if row.state == RUNNING:
                    self._end(row.trial, STOPPED, reason)
            if self.late:
                self._note("", "alive")  # the time used counts, even if no trial has begun
            self._record.write_trials()
            if not self.pausing:
                self.searcher.close()

    def _died(self, number: str, error: BaseException) -> None:
        self._running.discard(number)
        if self.faults.storage:
            return
        reason = cause(error)
        if not self.faults.may_go_on(number, error):
            self._fail(number, reason, str(error))
            return
        with self.faults.storing():
            self._note(number, "died", reason=reason)
            self._display.tell(f"trial {number} goes on from its last checkpoint: {reason}")

    def _fail(self, number: str, reason: str, traceback: str) -> None:
        print(f"trial {number} failed:\n{traceback}", flush=True)  # goes to the log
        with self.faults.storing():
            self._end(number, FAILED, reason)
        self.faults.failed(reason, traceback)

    def _end(self, number: str, state: str, reason: str) -> None:
        row = self._note(number, "ended", state=state, reason=reason)
        if row:
            self._ended(row)

    def _ended(self, row: Row) -> None:
        self._directory.end(row.trial, succeeded=row.state in (COMPLETED, STOPPED))
        self._trials_left(self._space.budget.trials - len(self._record.ended))

    def _at(self) -> float:
        """Seconds that the search has run, including those before it was resumed."""
        return self._before + time.monotonic() - self._began

    def _note(self, number: str, event: str, **facts: Any) -> Row | None:
        self._sign_at = time.monotonic()
        about = {"event": event, "trial": number, "at": round(self._at(), 3)}
        row = self._record.note({**about, **facts}, now=event == "started")
        if row:
            self._display.show(row, self._best(row))
        return row

    def _best(self, row: Row) -> Row | None:
        """The best trial, after this one has changed."""
        if row.state != RUNNING:
            known = self._record.rows.values() if row.confirms else [self._leader, row]
            leaders = ranked(filter(None, known), self._space.objective)
            self._leader = leaders[0] if leaders else None
        return self._leader


class _Stopper(Stopper):  # type: ignore[misc]
    """Ends the Ray run when the recorder says that it is over."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return getattr(self._recorder, "over", False)
