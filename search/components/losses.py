"""The losses that trials are trained by, one row each. All are validated by the cross-entropy, so that they compare.

Whatever the loss is, `class_weight_exponent` has the images of rare classes count for more.
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
        build: gives the function that computes it, from a variable for each of the parameters: another value needs no
            new trace. It imports Keras.
    """

    build: Callable[[Mapping[str, Any]], PerImage]


def _cross_entropy(variables: Mapping[str, Any]) -> PerImage:
    """Label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567): all classes are somewhat right."""
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
        wrong = ops.maximum(1 - ops.exp(-true), 1e-7)  # the power of 0 has no slope
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
    """What the loss of an image of each class is multiplied by; 1 in the mean over the images.

    Args:
        counts: (classes,), the training images of each.
        exponent: 0: all images count the same; 1: all classes do; between them by that power of the class's frequency.
    """
    weights = np.maximum(counts, 1).astype(float) ** -exponent
    return np.asarray(weights * counts.sum() / (weights * counts).sum(), np.float32)
