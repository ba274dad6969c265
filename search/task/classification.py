"""One of several classes: the label of an image is the number of its class, the outputs are probabilities."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.task.metric import LOSS, Metric
from search.task.task import Said, Task

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]

SOFTEST, SHARPEST = 1e-3, 1e3  # what logits are multiplied by
STEPS, CLOSE = 30, 1e-3  # of Newton's method; the error is of the order of its square
BINS = 15  # of confidence
CHUNK = 1 << 16  # answers at a time, which stay in the processor's cache


def likeliest(probabilities: Probabilities) -> NDArray[np.integer]:
    """(images, classes) → (images,), the class that is the likeliest."""
    return np.asarray(probabilities.argmax(axis=1))


def accuracy(labels: Labels, probabilities: Probabilities) -> float:
    """The share of the images that are right, in [0, 1]."""
    return float((likeliest(probabilities) == labels).mean())


def balanced_accuracy(labels: Labels, probabilities: Probabilities) -> float:
    """The mean recall of the classes that occur (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764), in [0, 1]."""
    true, right, _ = _counts(labels, probabilities)
    return float((right[true > 0] / true[true > 0]).mean())


def macro_f1(labels: Labels, probabilities: Probabilities) -> float:
    """The mean F1 of the classes that occur or are answered, in [0, 1]; of one that is never right it is 0."""
    true, right, told = _counts(labels, probabilities)
    occur = true + told > 0
    return float((2 * right[occur] / (true + told)[occur]).mean())


def auc(labels: Labels, probabilities: Probabilities) -> float:
    """The mean area under the ROC curve of each class against the rest, in [0, 1]; ties count half.

    Classes without images, or with all of them, have none (Hand and Till 2001, doi:10.1023/A:1010920819831). Not a
    number where no class has one.
    """
    count = np.bincount(labels, minlength=probabilities.shape[1])
    areas = [area(probabilities[:, index], labels == index) for index, of in enumerate(count) if 0 < of < len(labels)]
    return float(np.mean(areas)) if areas else math.nan


def top5_accuracy(labels: Labels, probabilities: Probabilities) -> float:
    """The share of the images whose class is among the five likeliest, in [0, 1]; 1 with five classes or fewer."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities > own[:, None]).sum(1) < 5).mean())


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """The mean cross-entropy, in nats."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(own, 1e-7, 1.0)).mean())


def calibrated_log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """The mean cross-entropy at the temperature that makes it least, in nats: what the order of the answers is worth.

    The temperature is fitted on the same images.
    """
    return _scaled(labels, probabilities, sharpness(labels, probabilities))[0]


def sharpness(labels: Labels, probabilities: Probabilities) -> float:
    """What the logits are multiplied by so that the cross-entropy is least: one over the temperature.

    Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    return fitted(lambda known: _scaled(labels, probabilities, known))


def fitted(scaled: Callable[[float], tuple[float, float, float]]) -> float:
    """Where a convex loss is least, by Newton's method from 1, in [0.001, 1000].

    Args:
        scaled: the loss there, and its two derivatives.
    """
    known = 1.0
    for _ in range(STEPS):
        _, slope, curvature = scaled(known)
        step = min(max(slope / max(curvature, 1e-12), -3 * known), 3 / 4 * known)
        known = min(max(known - step, SOFTEST), SHARPEST)
        if abs(step) < CLOSE * known:
            break
    return known


def _scaled(labels: Labels, probabilities: Probabilities, factor: float) -> tuple[float, float, float]:
    """The mean cross-entropy of answers whose logits are multiplied by a factor, and its two derivatives by that."""
    sums = np.zeros(3)
    count = max(1, CHUNK // probabilities.shape[1])
    for first in range(0, len(labels), count):
        logits = np.log(np.clip(probabilities[first : first + count], 1e-37, 1.0))
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(logits)), labels[first : first + count]]
        weights = np.exp(factor * logits)
        whole = weights.sum(1)
        mean = (weights * logits).sum(1) / whole
        square = (weights * logits * logits).sum(1) / whole
        sums += [(np.log(whole) - factor * own).sum(), (mean - own).sum(), (square - mean * mean).sum()]
    loss, slope, curvature = (float(each) for each in sums / len(labels))
    return loss, slope, curvature


def _counts(labels: Labels, probabilities: Probabilities) -> tuple[NDArray[np.integer], ...]:
    """Of each class: its images, those that are right, and those that were taken for it."""
    told, classes = likeliest(probabilities), probabilities.shape[1]
    counted = (labels, labels[told == labels], told)
    return tuple(np.bincount(each, minlength=classes) for each in counted)


def area(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    """The area under the ROC curve, by the ranks of the positive ones (Mann and Whitney 1947); ties count half.

    Args:
        scores: (images,).
        positive: (images,), some of them and not all.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def confusion(labels: Labels, probabilities: Probabilities) -> NDArray[np.integer]:
    """(classes, classes) counts: rows are true classes, columns predicted ones."""
    counts = np.zeros((probabilities.shape[1],) * 2, int)
    np.add.at(counts, (labels, likeliest(probabilities)), 1)
    return counts


def _wrong(labels: Labels, probabilities: Probabilities) -> NDArray[np.floating]:
    return np.asarray(np.where(likeliest(probabilities) == labels, 0, probabilities.max(axis=1)))


def _told(names: Sequence[str], label: Any) -> str:
    return names[int(label)]


def _pointing(labels: Labels, probabilities: Probabilities) -> NDArray[np.integer]:  # noqa: ARG001
    return likeliest(probabilities)


def reliability(labels: Labels, probabilities: Probabilities) -> list[tuple[float, float, int]]:
    """How sure the network is and how often it is right: (mean confidence, accuracy, images) of each bin with images.

    The bins divide [0, 1] evenly (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    sure, right = probabilities.max(axis=1), likeliest(probabilities) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    shown = [bins == number for number in range(BINS) if (bins == number).any()]
    return [(float(sure[rows].mean()), float(right[rows].mean()), int(rows.sum())) for rows in shown]


def calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error, in [0, 1]: how far the bins' confidence is from their accuracy, on the average.

    Args:
        bins: of `reliability`.
    """
    images = sum(count for *_, count in bins)
    return sum(count * abs(sure - right) for sure, right, count in bins) / images


def _figures(names: Sequence[str], tested: Said, validated: Callable[[], Said]) -> dict[str, Any]:  # noqa: ARG001
    counts, bins = confusion(*tested), reliability(*tested)
    true, right = counts.sum(axis=1), counts.diagonal()
    recall = [float(r / t) if t else None for r, t in zip(right, true, strict=True)]
    return {
        "confusion_matrix": counts.tolist(),
        "balanced_accuracy": float(np.mean([share for share in recall if share is not None])),
        "recall": recall,
        "reliability": [list(one) for one in bins],
        "expected_calibration_error": calibration_error(bins),
    }


METRICS: Mapping[str, Metric] = {
    "val_accuracy": Metric("validation accuracy", "max", accuracy, counted="accuracy"),
    LOSS: Metric("validation loss", "min"),
    "val_balanced_accuracy": Metric("balanced validation accuracy", "max", balanced_accuracy),
    "val_macro_f1": Metric("validation macro F1", "max", macro_f1),
    "val_auc": Metric("validation AUC", "max", auc),
    "val_top5_accuracy": Metric("validation top-5 accuracy", "max", top5_accuracy),
    "val_log_loss": Metric("validation log loss", "min", log_loss),
    "val_calibrated_log_loss": Metric("calibrated validation log loss", "min", calibrated_log_loss),
}

CLASSIFICATION = Task(
    "one of several classes",
    singular="class",
    outputs="classes",
    vector=False,
    label_dtype="int32",
    activation="softmax",
    output="probabilities",
    loss="sparse_categorical_crossentropy",
    loss_of=log_loss,
    metrics=METRICS,
    objective="val_accuracy",
    answer=likeliest,
    wrong=_wrong,
    pointing=_pointing,
    told=_told,
    figures=_figures,
    weighted=True,
    sharpness=sharpness,
)
