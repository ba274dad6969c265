"""What is predicted: one row for each kind of target. Nothing else knows what an output means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Task:
    """One kind of target.

    Args:
        words: for people.
        label_shape: of one image's label; `label_dtype` of its values.
        activation: of the output layer, by Keras's name.
        loss: what trials are validated by, whatever they are trained by, by Keras's name: a function of labels and
            outputs that gives a number for each image.
        counted: Keras's names of the metrics that it computes in the compiled step, beside the loss.
        answer: (images, outputs) → (images, *label_shape), what the outputs say.
        confidence: (images, outputs) → (images,), how sure they are of it, in [0, 1].
        confusion: whether labels and answers can be counted in a confusion matrix.
    """

    words: str
    label_shape: tuple[int, ...]
    label_dtype: str
    activation: str
    loss: str
    counted: tuple[str, ...]
    answer: Callable[[Array], Array]
    confidence: Callable[[Array], Array]
    confusion: bool


class Target(NamedTuple):
    """A task, and how many outputs it takes."""

    task: Task
    outputs: int


def likeliest(probabilities: Array) -> Array:
    """(images, classes) → (images,), the class that is the likeliest."""
    return np.asarray(probabilities.argmax(axis=1))


TASKS: Mapping[str, Task] = {
    "classes": Task(
        "one of several classes",
        label_shape=(),
        label_dtype="int32",
        activation="softmax",
        loss="sparse_categorical_crossentropy",
        counted=("accuracy",),
        answer=likeliest,
        confidence=lambda probabilities: np.asarray(probabilities.max(axis=1)),
        confusion=True,
    )
}
