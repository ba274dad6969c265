"""How an exported model compares with the one it was made from: its answers, and how long they take."""

import statistics
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from search.export.formats import Array, Predict
from search.task.task import Target

BATCH = 32
NEAR = 0.01  # of the standard deviation of the training labels
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
        same: the share, in [0, 1], that get the same answer from both: the same class, the same labels, or numbers that
            differ by less than `NEAR`.
        difference: the largest absolute difference of two outputs; of probabilities 1 where one is not a number.
        metric: the name of the task's own metric, on the test images; `figure` is the model's.
        figure: see `metric`.
        exported: that of the exported model; the worst there is where an output is not a number.
    """

    images: int
    same: float
    difference: float
    metric: str
    figure: float
    exported: float


def agreement(model: Predict, exported: Predict, batches: Iterable[tuple[Array, Array]], target: Target) -> Agreement:
    """Compare the answers of two models.

    Args:
        batches: images (n, size, size, 3) and labels (n, …); an image at least.
        target: what the outputs mean.
    """
    parts = [(model(pixels.astype("float32")), exported(pixels.astype("float32")), known) for pixels, known in batches]
    one, other, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    difference = float(np.nan_to_num(np.abs(one - other), nan=1.0).max())
    metric = target.task.objective.replace("val_", "test_")
    known = target.task.metrics[target.task.objective]
    of = known.of or target.task.loss_of
    retold = of(labels, other) if np.isfinite(other).all() else known.worst
    same = float(_same(one, other, target).mean())
    return Agreement(len(labels), same, difference, metric, of(labels, one), retold)


def _same(one: Array, other: Array, target: Target) -> Array:
    """(images,), whether both answers are the same."""
    finite = np.isfinite(other).all(axis=1)
    if target.task.scaled:
        return np.asarray(finite & (np.abs(target.scaled(one) - target.scaled(other)) < NEAR).all(axis=1))
    told, retold = (target.task.answer(outputs).reshape(len(outputs), -1) for outputs in (one, np.nan_to_num(other)))
    return np.asarray(finite & (told == retold).all(axis=1))


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
        "same": found.same,
        "largest_difference": found.difference,
        found.metric: found.exported,
        f"{found.metric}_of_keras": found.figure,
        "latency_ms": round(exported.one, 3),
        "latency_ms_of_keras": round(model.one, 3),
        f"latency_ms_in_{BATCH}": round(exported.of_batch, 3),
        f"latency_ms_in_{BATCH}_of_keras": round(model.of_batch, 3),
    }
