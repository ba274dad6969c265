"""What a search needs from Keras that is not part of Keras's public API."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from keras.src.backend import config


def keep_downloads_in(folder: Path) -> None:
    """Make Keras keep downloaded weights in a folder."""
    config._KERAS_DIR = str(folder)


def origin(tensor: Any) -> Any:
    """The operation that produced a symbolic tensor."""
    return tensor._keras_history.operation


def index(optimizer: Any, variable: Any) -> int:
    """The index of a variable among those that an optimizer trains, from 0."""
    found: int = optimizer._get_variable_index(variable)
    return found


def moments(adam: Any, number: int) -> tuple[Any, Any]:
    """Adam's running means of a variable's gradients and of their squares.

    Args:
        number: the variable's index.
    """
    return adam._momentums[number], adam._velocities[number]


class LiveTensorBoard(keras.callbacks.TensorBoard):  # type: ignore[misc]
    """Writes Keras's scalars to `train` and `validation`, on disk after every epoch.

    The logged learning rate is that of the epoch's last step, with the schedule; Keras would log it without.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, write_graph=False)

    def _collect_learning_rate(self, logs: dict[str, float]) -> dict[str, float]:
        optimizer = self.model.optimizer
        return {**logs, "learning_rate": getattr(optimizer, "inner_optimizer", optimizer).rate}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log, then flush, so that a running trial can be watched and a killed one loses nothing."""
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()
