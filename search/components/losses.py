"""The training losses, one row each. Validation always uses the cross-entropy, so that trials can be compared.

With every loss, `class_weight_exponent` can give the images of rare classes more weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.component import Component
from search.setting import Setting

PerImage = Callable[[Any, Any], Any]  # from labels (batch,) and probabilities (batch, classes) to losses (batch,)


@dataclass(frozen=True, kw_only=True)
class Loss(Component):
    """One loss.

    Args:
        build: returns the function that computes the loss, from one variable per parameter, so that another value needs
            no new trace. It imports Keras only when called.
    """

    build: Callable[[Mapping[str, Any]], PerImage]


def _cross_entropy(variables: Mapping[str, Any]) -> PerImage:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).

    A share of the target is spread evenly over all classes.
    """
    from keras import ops

    def loss(labels: Any, probabilities: Any) -> Any:
        share = ops.cast(variables["label_smoothing"], probabilities.dtype)
        even = ops.ones_like(probabilities) / probabilities.shape[-1]
        true = ops.sparse_categorical_crossentropy(labels, probabilities)
        return (1 - share) * true + share * ops.categorical_crossentropy(even, probabilities)

    return loss


def _focal(variables: Mapping[str, Any]) -> PerImage:
    """Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""
    from keras import ops

    def loss(labels: Any, probabilities: Any) -> Any:
        true = ops.sparse_categorical_crossentropy(labels, probabilities)
        wrong = ops.maximum(1 - ops.exp(-true), 1e-7)  # a power of 0 may have no finite gradient
        return true * ops.power(wrong, ops.cast(variables["focal_gamma"], true.dtype))

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
    ),
    "focal": Loss(
        "focal loss: images that are right already count for less",
        {
            "focal_gamma": Setting(
                "how much less images count that are right; 0: no less", 2.0, low=0, high=10, searchable=True
            )
        },
        build=_focal,
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
