"""How an exported model compares with the one it was made from: its answers, and how long they take."""

import statistics
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.export.formats import Array, Predict
from search.task.task import likeliest

BATCH = 32
WARM, TIMED = 3, 20  # runs


class Latency(NamedTuple):
    """How long a model takes.

    Args:
        one: milliseconds for one image alone, the median of `TIMED` runs after `WARM` others.
        of_batch: milliseconds for each image of a batch of `BATCH`, likewise.
    """

    one: float
    of_batch: float


class Agreement(NamedTuple):
    """How the answers of two models compare, on the same images.

    Args:
        images: how many.
        same: the share, in [0, 1], that get the same class from both.
        difference: the largest absolute difference of two probabilities, in [0, 1]; 1 where one is not a number.
        accuracy: of the model, in [0, 1].
        exported: accuracy of the exported model, in [0, 1].
    """

    images: int
    same: float
    difference: float
    accuracy: float
    exported: float


def agreement(model: Predict, exported: Predict, batches: Iterable[tuple[Array, NDArray[np.integer]]]) -> Agreement:
    """Compare the answers of two models.

    Args:
        batches: images (n, size, size, 3) and labels (n,); an image at least.
    """
    counts, difference = np.zeros(4, int), 0.0  # images, same, right, right of the exported model
    for images, labels in batches:
        pixels = images.astype("float32")
        one, other = model(pixels), exported(pixels)
        difference = max(difference, float(np.nan_to_num(np.abs(one - other), nan=1.0).max()))
        told, retold = likeliest(one), np.where(np.isfinite(other).all(axis=1), likeliest(other), -1)
        counts += [len(labels), (told == retold).sum(), (told == labels).sum(), (retold == labels).sum()]
    images_, same, right, right_exported = (int(count) for count in counts)
    return Agreement(images_, same / images_, difference, right / images_, right_exported / images_)


def latency(predict: Predict, image: Array) -> Latency:
    """Measure how long a model takes.

    Args:
        image: (size, size, 3), of which a batch is made.
    """
    batch = np.repeat(image[np.newaxis].astype("float32"), BATCH, axis=0)
    return Latency(_median_ms(predict, batch[:1]), _median_ms(predict, batch) / BATCH)


def _median_ms(predict: Predict, images: Array) -> float:
    times: list[float] = []
    for _ in range(WARM + TIMED):
        begun = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[WARM:])


def figures(found: Agreement, model: Latency, exported: Latency) -> dict[str, Any]:
    """The comparison as plain data, for `metrics.json`."""
    return {
        "images": found.images,
        "same_class": found.same,
        "largest_difference": found.difference,
        "test_accuracy": found.exported,
        "test_accuracy_of_keras": found.accuracy,
        "latency_ms": round(exported.one, 3),
        "latency_ms_of_keras": round(model.one, 3),
        f"latency_ms_in_{BATCH}": round(exported.of_batch, 3),
        f"latency_ms_in_{BATCH}_of_keras": round(model.of_batch, 3),
    }
