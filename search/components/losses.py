"""The training losses, one row each. Validation always uses the task's own, so that trials can be compared.

Where images have one class, `class_weight_exponent` can give those of rare classes more weight, with every loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.component import Component
from search.setting import Setting

PerImage = Callable[[Any, Any], Any]  # from labels (batch, …) and outputs (batch, outputs) to losses (batch,)


PROBABILITIES, NUMBERS = ("classification", "multilabel"), ("regression",)


@dataclass(frozen=True, kw_only=True)
class Loss(Component):
    """One loss.

    Args:
        build: returns the function that computes the loss, from one variable per parameter, so that another value needs
            no new trace. It imports Keras only when called.
        tasks: what it can train, keys of `TASKS`.
    """

    build: Callable[[Mapping[str, Any]], PerImage]
    tasks: tuple[str, ...] = ("classification",)


def _cross_entropy(variables: Mapping[str, Any]) -> PerImage:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).

    A share of the target is spread evenly over all classes, or, of each of several labels, over yes and no.
    """
    from keras import ops

    def loss(labels: Any, probabilities: Any) -> Any:
        share = ops.cast(variables["label_smoothing"], probabilities.dtype)
        if len(labels.shape) > 1:
            true = (1 - share) * ops.cast(labels, probabilities.dtype) + share / 2
            return ops.mean(ops.binary_crossentropy(true, probabilities), axis=-1)
        even = ops.ones_like(probabilities) / probabilities.shape[-1]
        true = ops.sparse_categorical_crossentropy(labels, probabilities)
        return (1 - share) * true + share * ops.categorical_crossentropy(even, probabilities)

    return loss


def _focal(variables: Mapping[str, Any]) -> PerImage:
    """Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""
    from keras import ops

    def loss(labels: Any, probabilities: Any) -> Any:
        several = len(labels.shape) > 1
        entropy = ops.binary_crossentropy if several else ops.sparse_categorical_crossentropy
        true = entropy(ops.cast(labels, probabilities.dtype) if several else labels, probabilities)
        wrong = ops.maximum(1 - ops.exp(-true), 1e-7)  # a power of 0 may have no finite gradient
        found = true * ops.power(wrong, ops.cast(variables["focal_gamma"], true.dtype))
        return ops.mean(found, axis=-1) if several else found

    return loss


def _squared_error(variables: Mapping[str, Any]) -> PerImage:  # noqa: ARG001
    from keras import ops

    return lambda labels, outputs: ops.mean(ops.square(outputs - ops.cast(labels, outputs.dtype)), axis=-1)


def _absolute_error(variables: Mapping[str, Any]) -> PerImage:  # noqa: ARG001
    from keras import ops

    return lambda labels, outputs: ops.mean(ops.abs(outputs - ops.cast(labels, outputs.dtype)), axis=-1)


def _huber(variables: Mapping[str, Any]) -> PerImage:
    """Squared near the label, absolute further off (Huber 1964, doi:10.1214/aoms/1177703732)."""
    from keras import ops

    def loss(labels: Any, outputs: Any) -> Any:
        edge = ops.cast(variables["huber_delta"], outputs.dtype)
        error = ops.abs(outputs - ops.cast(labels, outputs.dtype))
        return ops.mean(ops.where(error < edge, error * error / 2, edge * (error - edge / 2)), axis=-1)

    return loss


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": Loss(
        "cross-entropy",
        {
            "label_smoothing": Setting(
                "share of the target that is spread over all classes", 0.0, low=0, high=0.9, searchable=True
            )
        },
        build=_cross_entropy,
        tasks=PROBABILITIES,
    ),
    "focal": Loss(
        "focal loss: images that are right already count for less",
        {
            "focal_gamma": Setting(
                "how much less images count that are right; 0: no less", 2.0, low=0, high=10, searchable=True
            )
        },
        build=_focal,
        tasks=PROBABILITIES,
    ),
    "squared_error": Loss("mean squared error of numbers", build=_squared_error, tasks=NUMBERS),
    "absolute_error": Loss(
        "mean absolute error of numbers: outliers count for less", build=_absolute_error, tasks=NUMBERS
    ),
    "huber": Loss(
        "squared error of numbers near the label, absolute error further off",
        {
            "huber_delta": Setting(
                "where it becomes absolute, in standard deviations of the labels",
                1.0,
                low=0,
                high=100,
                above=True,
                searchable=True,
            )
        },
        build=_huber,
        tasks=NUMBERS,
    ),
}


def class_weights(counts: NDArray[np.integer], exponent: float) -> NDArray[np.float32]:
    """The weight of each class, (classes,), by which the loss of its images is multiplied; the mean over images is 1.

    Args:
        counts: (classes,), the number of training images of each class.
        exponent: 0: all images count the same; 1: all classes count the same; between: weights are proportional to the
            class's frequency to the power of -exponent.
    """
    weights = np.maximum(counts, 1).astype(float) ** -exponent
    return np.asarray(weights * counts.sum() / (weights * counts).sum(), np.float32)
