"""What a trial does each epoch: notice not-a-number, keep the best, log, stop early, slow down, save, report."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from search import checkpoint
from search.model import Network
from search.settings import Value
from search.space import Objective

Metrics = dict[str, float | int | str]
Report = Callable[[Metrics], None]

MEMORY = {
    "BestOnly": ("best",),
    "EarlyStopping": ("best", "wait", "best_epoch"),
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "Progress": ("best", "seconds_before", "metrics"),
}
SHARE_OF_TIME = 0.02


class Stopped(BaseException):
    """Raised by a report when the scheduler lets the trial go no further."""


class BestOnly(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]
    """Keras's checkpoint of the best epoch, of the suffix alone: nothing else changes."""

    def __init__(self, path: Path, suffix: keras.Model, objective: Objective) -> None:
        super().__init__(
            path, monitor=objective.metric, mode=objective.mode, save_best_only=True, save_weights_only=True
        )
        self._suffix = suffix

    def set_model(self, model: keras.Model) -> None:  # noqa: ARG002
        """Save the suffix, whatever is fitted."""
        super().set_model(self._suffix)


class LiveTensorBoard(keras.callbacks.TensorBoard):  # type: ignore[misc]
    """Keras's scalars in `train` and `validation`, the learning rate too, on disk after every epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, write_graph=False)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log, then flush, so that a running trial is seen and a killed one loses nothing."""
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()


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
        ending = self._ending(epoch + 1, logs)
        if not ending.startswith("diverged"):
            self._keep_best(epoch + 1, logs)
        best = self.best or {"objective": math.nan, "best_epoch": 0, "val_accuracy": math.nan, "val_loss": math.nan}
        last = {f"last_{name}": logs[name] for name in ("val_accuracy", "val_loss")}
        self.metrics = {"epoch": epoch + 1, **best, **last, "seconds": round(self.seconds, 3), "ending": ending}

    def _keep_best(self, epoch: int, logs: Mapping[str, float]) -> None:
        value = logs[self._objective.metric]
        if self._objective.better(value, float(self.best["objective"]) if self.best else None):
            metrics = {name: logs[name] for name in ("val_accuracy", "val_loss")}
            self.best = {"objective": value, "best_epoch": epoch, **metrics}

    def _ending(self, epoch: int, logs: Mapping[str, float]) -> str:
        for name in ("loss", "val_loss"):
            if not math.isfinite(logs[name]):
                return f"diverged: {name} is {logs[name]} in epoch {epoch}"
        if epoch == self._epochs:
            return "all epochs"
        return "converged" if self.model.stop_training else ""


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the trial's state after an epoch, as often as costs `SHARE_OF_TIME` of the trial's time."""

    def __init__(self, path: Path, network: Network, remembered: list[keras.callbacks.Callback]) -> None:
        super().__init__()
        self._path, self._network, self._remembered = path, network, remembered
        self._restored: checkpoint.State | None = None
        self._saved_at, self._cost = time.monotonic(), 0.05

    def restore(self, path: Path) -> Metrics:
        """Restore a saved state; return the metrics of its epoch. The callbacks follow when training begins."""
        self._restored = checkpoint.restore(path, self._network)
        metrics: Metrics = self._restored.callbacks["Progress"]["metrics"]
        return metrics

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Give the callbacks their memory back; Keras empties it just before."""
        if self._restored:
            for callback in self._remembered:
                for name, value in self._restored.callbacks[type(callback).__name__].items():
                    setattr(callback, name, value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Save when it is due."""
        began = time.monotonic()
        if (began - self._saved_at) * SHARE_OF_TIME >= self._cost:
            checkpoint.save(self._path, self._network, checkpoint.State(epoch + 1, self._memories()))
            self._saved_at = time.monotonic()
            self._cost = self._saved_at - began

    def _memories(self) -> dict[str, dict[str, Any]]:
        memories = {}
        for callback in self._remembered:
            kind = type(callback).__name__
            memories[kind] = {name: _plain(getattr(callback, name)) for name in MEMORY[kind]}
            if isinstance(callback, Progress):
                memories[kind]["seconds_before"] = callback.seconds
        return memories


class Reporter(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports every epoch. When the scheduler stops the trial, `fit` ends as usual, so that all files are closed."""

    def __init__(self, report: Report, progress: Progress) -> None:
        super().__init__()
        self._report, self._progress = report, progress

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Report the trial's metrics."""
        try:
            self._report(self._progress.metrics)
        except Stopped:
            self.model.stop_training = True


def build(
    *,
    network: Network,
    parameters: Mapping[str, Value],
    objective: Objective,
    epochs: int,
    folder: Path,
    tensorboard: Path,
    report: Report,
) -> tuple[list[keras.callbacks.Callback], Checkpoint]:
    """A trial's callbacks in the order they run, and the one that restores a saved state."""
    watched = {"monitor": objective.metric, "mode": objective.mode}
    best = BestOnly(folder / "best.weights.h5", network.suffix, objective)
    stopping = keras.callbacks.EarlyStopping(patience=parameters["stop_patience"], **watched)
    plateau = keras.callbacks.ReduceLROnPlateau(
        patience=parameters["plateau_patience"], factor=parameters["plateau_factor"], min_delta=0.0, **watched
    )
    progress = Progress(objective, epochs)
    saving = Checkpoint(folder / "last.npz", network, [best, stopping, plateau, progress])
    guard, scalars = keras.callbacks.TerminateOnNaN(), LiveTensorBoard(tensorboard)
    return [guard, best, scalars, stopping, plateau, progress, saving, Reporter(report, progress)], saving


def _plain(value: Any) -> Any:
    return float(value) if hasattr(value, "dtype") else value
