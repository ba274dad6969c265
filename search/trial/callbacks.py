"""What a trial does each epoch: notice not-a-number, keep the best, log, stop early, slow down, save, report."""

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from search.cache import Array
from search.internals.of_keras import LiveTensorBoard
from search.record.states import ALL_EPOCHS, COMPLETED, CONVERGED, DIVERGED
from search.setting import Values
from search.task.objective import Objective
from search.trial import checkpoint
from search.trial.model import Network

Metrics = dict[str, float | int | str]
Reporting = Callable[[Metrics], None]
Pausing = Callable[[], bool]

MEMORY = {
    "Best": ("value", "epoch"),
    "EarlyStopping": ("best", "wait", "best_epoch"),
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "Progress": ("best", "seconds_before", "metrics"),
}
SHARE_OF_TIME = 0.02
SAVE_EVERY_S = 10.0


class Stopped(BaseException):
    """Raised by a report when the scheduler lets the trial go no further."""


class Best(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the suffix's weights of the best epoch, in memory until they are asked for on disk.

    Args:
        folder: where they are written.
        objective: what counts as best.
    """

    def __init__(self, folder: Path, network: Network, objective: Objective) -> None:
        super().__init__()
        self._folder, self._network, self._objective = folder, network, objective
        self.value: float | None = None
        self.epoch = self._written = 0
        self.weights: list[Array] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Copy the weights where the epoch is the best so far."""
        value = float((logs or {})[self._objective.metric])
        if self._objective.better(value, self.value):
            self.value, self.epoch = value, epoch + 1
            self.weights = [np.array(variable) for variable in self._network.weights]

    def write(self) -> None:
        """Put the best weights on disk, unless they lie there already."""
        if self.epoch > self._written:
            checkpoint.save_best(self._folder, self.epoch, self.weights)
            self._written = self.epoch


class Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """How the trial stands: the best epoch so far, the time spent, and whether it is over by itself."""

    def __init__(self, objective: Objective, epochs: int) -> None:
        super().__init__()
        self._objective, self._epochs = objective, epochs
        self._started = time.monotonic()
        self.best: Metrics | None = None
        self.seconds_before = 0.0
        self.metrics: Metrics = {}

    @property
    def seconds(self) -> float:
        """Seconds spent on the trial, those before an interruption included."""
        return self.seconds_before + time.monotonic() - self._started

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Update the metrics; epochs count from 1 in them."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        ending, reason = self._ending(epoch + 1, logs)
        if ending != DIVERGED:
            self._keep_best(epoch + 1, logs)
        best = self.best or {"objective": math.nan, "best_epoch": 0, **dict.fromkeys(self._objective.metrics, math.nan)}
        last = {f"last_{name}": logs[name] for name in self._objective.leading}
        spent = round(self.seconds, 3)
        self.metrics = {"epoch": epoch + 1, **best, **last, "seconds": spent}
        self.metrics |= {"ending": ending, "reason": reason, "paused": False, "note": ""}

    def _keep_best(self, epoch: int, logs: Mapping[str, float]) -> None:
        value = logs[self._objective.metric]
        if self._objective.better(value, float(self.best["objective"]) if self.best else None):
            metrics = {name: logs[name] for name in self._objective.metrics}
            self.best = {"objective": value, "best_epoch": epoch, **metrics}

    def _ending(self, epoch: int, logs: Mapping[str, float]) -> tuple[str, str]:
        """The state that the trial ends in, and why; both empty while it goes on."""
        for name in ("loss", "val_loss"):
            if not math.isfinite(logs[name]):
                return DIVERGED, f"{name} is {logs[name]} in epoch {epoch}"
        if epoch == self._epochs:
            return COMPLETED, ALL_EPOCHS
        return (COMPLETED, CONVERGED) if self.model.stop_training else ("", "")


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the trial's state and its best weights after an epoch, for at most `SHARE_OF_TIME` of the trial's time.

    The best weights are on disk before anybody can end the trial: at a rung, at its own end, and when the time that the
    search has is nearly up; the whole state, when it is paused. A process that lost its trial to another, such as one
    that was cut off from the cluster, writes nothing more.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        parts: "_Parts",
        *,
        pausing: Pausing,
        rungs: Sequence[int],
        deadline: float,
    ) -> None:
        super().__init__()
        self._folder, self._network, self._parts = folder, network, parts
        self._pausing, self._rungs, self._deadline = pausing, rungs, deadline
        self._owner = str(uuid.uuid4())
        self._restored: checkpoint.State | None = None
        self._saved_at = self._ended_at = time.monotonic()
        self._cost = 0.0

    def restore(self) -> Metrics:
        """Restore the saved state; return the metrics of its epoch. The callbacks follow when training begins."""
        self._restored, damage = checkpoint.restore(self._folder, self._network)
        metrics: Metrics = self._restored.callbacks["Progress"]["metrics"]
        note = f"goes on from the checkpoint before its last, at epoch {metrics['epoch']}: {damage}" if damage else ""
        return {"reason": "", **metrics, "note": note}

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Make the trial this process's own, and give the callbacks their memory back; Keras empties it just before."""
        checkpoint.take(self._folder, self._owner)
        if self._restored:
            self._parts.best.weights = list(self._restored.best)
            for callback in self._parts.all:
                for name, value in self._restored.callbacks[type(callback).__name__].items():
                    setattr(callback, name, value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Save what is due."""
        began = time.monotonic()
        metrics = self._parts.progress.metrics
        metrics["paused"] = self._pausing()
        due = metrics["paused"] or began - self._saved_at >= max(SAVE_EVERY_S, self._cost / SHARE_OF_TIME)
        seconds, self._ended_at = began - self._ended_at, began
        late = time.time() + 2 * seconds > self._deadline
        if due or late or epoch + 1 in self._rungs or metrics["ending"]:
            checkpoint.demand_owner(self._folder, self._owner)
            self._parts.best.write()
        if due:
            state = checkpoint.State(epoch + 1, self._memories(), self._parts.best.weights)
            checkpoint.save(self._folder, self._network, state)
            self._saved_at = time.monotonic()
            self._cost = self._saved_at - began

    def _memories(self) -> dict[str, dict[str, Any]]:
        memories = {}
        for callback in self._parts.all:
            kind = type(callback).__name__
            memories[kind] = {name: _plain(getattr(callback, name)) for name in MEMORY[kind]}
        progress = memories["Progress"]
        progress["seconds_before"] = self._parts.progress.seconds
        progress["metrics"] = {**progress["metrics"], "paused": False}
        return memories


@dataclass(frozen=True)
class _Parts:
    """The callbacks that remember something."""

    best: Best
    stopping: keras.callbacks.EarlyStopping
    plateau: keras.callbacks.ReduceLROnPlateau
    progress: Progress

    @property
    def all(self) -> list[keras.callbacks.Callback]:
        """In the order in which they run."""
        return [self.best, self.stopping, self.plateau, self.progress]


class Reporter(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports every epoch. When the scheduler stops the trial, `fit` ends as usual, so that all files are closed."""

    def __init__(self, report: Reporting, progress: Progress) -> None:
        super().__init__()
        self._report, self._progress = report, progress

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Report the trial's metrics."""
        try:
            self._report(self._progress.metrics)
        except Stopped:
            self.model.stop_training = True
        if self._progress.metrics["paused"]:
            self.model.stop_training = True


def build(
    *,
    network: Network,
    parameters: Values,
    plateau: bool,
    objective: Objective,
    epochs: int,
    folder: Path,
    tensorboard: Path,
    report: Reporting,
    pausing: Pausing = lambda: False,
    rungs: Sequence[int] = (),
    deadline: float = math.inf,
) -> tuple[list[keras.callbacks.Callback], Checkpoint]:
    """A trial's callbacks in the order they run, and the one that restores a saved state.

    Args:
        plateau: whether the rate falls where the objective stands still.
        pausing: whether the trial is to be saved and to end, unfinished.
        rungs: the epochs after which the trial may be stopped.
        deadline: when it may be too, in seconds since 1970.
    """
    watched = {"monitor": objective.metric, "mode": objective.mode}
    warm = math.ceil(parameters.number("warmup_epochs"))
    parts = _Parts(
        Best(folder, network, objective),
        keras.callbacks.EarlyStopping(patience=parameters.whole("stop_patience"), start_from_epoch=warm, **watched),
        keras.callbacks.ReduceLROnPlateau(
            patience=parameters.whole("plateau_patience") if plateau else epochs,
            factor=parameters.number("plateau_factor"),
            min_delta=0.0,
            **watched,
        ),
        Progress(objective, epochs),
    )
    saving = Checkpoint(folder, network, parts, pausing=pausing, rungs=rungs, deadline=deadline)
    guard, scalars = keras.callbacks.TerminateOnNaN(), LiveTensorBoard(tensorboard)
    own = [parts.best, scalars, parts.stopping, parts.plateau, parts.progress]
    return [guard, *own, saving, Reporter(report, parts.progress)], saving


def _plain(value: Any) -> Any:
    return float(value) if hasattr(value, "dtype") else value
