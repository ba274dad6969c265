"""The callback that tells the benchmark's log how training goes; for the tools that train in their own process."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import keras

from benchmarks.rivals.log import Log


class Watch(keras.callbacks.Callback):
    """Tells the log each epoch's accuracy, and looks at the checkpoint after every epoch.

    Args:
        log: where it goes.
        checkpoints: gives the files as they are at the moment.
    """

    def __init__(self, log: Log, checkpoints: Callable[[], list[Path]]) -> None:
        super().__init__()
        self._log, self._checkpoints = log, checkpoints

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """KerasTuner copies callbacks for each trial; the log stays one."""
        return type(self)(self._log, self._checkpoints)

    def _look(self) -> None:
        for checkpoint in self._checkpoints():
            self._log.look_at(checkpoint)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """The last epoch's checkpoint is written by now, whichever callback does it."""
        self._look()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Tell the accuracy."""
        self._log.epoch(float((logs or {})["val_accuracy"]))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """The last epoch's checkpoint."""
        self._look()
