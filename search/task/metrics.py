"""The metrics: what validation images say of a trial after every epoch, one row each.

Keras computes those of its own in the compiled step. The others are computed at the end of an epoch, from what the
network answered to all validation images, which the step keeps. Each one is a column of `trials.csv`, of TensorBoard's
HParams and of the report, and may be the objective.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.task.task import likeliest

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]

SOFTEST, SHARPEST = 1e-3, 1e3  # what logits are multiplied by
STEPS, CLOSE = 30, 1e-3  # of Newton's method; the error is of the order of its square
CHUNK = 1 << 16  # answers at a time, which stay in the processor's cache


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        words: for people.
        mode: `max` where more is better, or `min`.
        of: computes it from labels (images,) and probabilities (images, classes); `None`: Keras does.
        file: that declares it; empty for one of the project's. `source` is its text.
    """

    words: str
    mode: str
    of: Callable[[Labels, Probabilities], float] | None = None
    file: str = ""
    source: str = field(default="", repr=False)

    @property
    def worst(self) -> float:
        """What counts for a trial that gave no value."""
        return 0.0 if self.mode == "max" else math.inf

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is strictly better than `best` (`None`: nothing yet)."""
        return best is None or (value > best if self.mode == "max" else value < best)

    def rank(self, value: float | None) -> float:
        """A number that is the smaller, the better the value is."""
        known = self.worst if value is None else value
        return -known if self.mode == "max" else known


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
    areas = [_area(probabilities[:, index], labels == index) for index, of in enumerate(count) if 0 < of < len(labels)]
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

    Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599). The temperature is one number, fitted on
    the same images by Newton's method: the loss is convex in what the logits are multiplied by.
    """
    sharpness = 1.0
    for _ in range(STEPS):
        _, slope, curvature = _scaled(labels, probabilities, sharpness)
        step = min(max(slope / max(curvature, 1e-12), -3 * sharpness), 3 / 4 * sharpness)
        sharpness = min(max(sharpness - step, SOFTEST), SHARPEST)
        if abs(step) < CLOSE * sharpness:
            break
    return _scaled(labels, probabilities, sharpness)[0]


def _scaled(labels: Labels, probabilities: Probabilities, sharpness: float) -> tuple[float, float, float]:
    """The mean cross-entropy of answers whose logits are multiplied by a factor, and its two derivatives by that."""
    sums = np.zeros(3)
    count = max(1, CHUNK // probabilities.shape[1])
    for first in range(0, len(labels), count):
        logits = np.log(np.clip(probabilities[first : first + count], 1e-37, 1.0))
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(logits)), labels[first : first + count]]
        weights = np.exp(sharpness * logits)
        whole = weights.sum(1)
        mean = (weights * logits).sum(1) / whole
        square = (weights * logits * logits).sum(1) / whole
        sums += [(np.log(whole) - sharpness * own).sum(), (mean - own).sum(), (square - mean * mean).sum()]
    loss, slope, curvature = (float(each) for each in sums / len(labels))
    return loss, slope, curvature


METRICS: Mapping[str, Metric] = {
    "val_accuracy": Metric("validation accuracy", "max"),
    "val_loss": Metric("validation loss", "min"),
    "val_balanced_accuracy": Metric("balanced validation accuracy", "max", balanced_accuracy),
    "val_macro_f1": Metric("validation macro F1", "max", macro_f1),
    "val_auc": Metric("validation AUC", "max", auc),
    "val_top5_accuracy": Metric("validation top-5 accuracy", "max", top5_accuracy),
    "val_log_loss": Metric("validation log loss", "min", log_loss),
    "val_calibrated_log_loss": Metric("calibrated validation log loss", "min", calibrated_log_loss),
}
OF_VALIDATION = "val_"  # what every metric's name begins with
FOLLOWED = ("val_accuracy", "val_loss")  # every epoch of which is told, beside the objective's


def leading(objective: str) -> list[str]:
    """The metrics that are shown where there is room for a few."""
    return list(dict.fromkeys((objective, *FOLLOWED)))


def figure(value: float | None) -> str:
    """A metric's value in words; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def of_answers(
    labels: Labels, probabilities: Probabilities, metrics: Mapping[str, Metric] = METRICS
) -> dict[str, float]:
    """The metrics that Keras does not compute; not a number where an answer is none.

    Args:
        labels: (images,); probabilities: (images, classes).
        metrics: by name.
    """
    finite = bool(np.isfinite(probabilities).all())
    return {
        name: float(metric.of(labels, probabilities)) if finite else math.nan
        for name, metric in metrics.items()
        if metric.of
    }


def _counts(labels: Labels, probabilities: Probabilities) -> tuple[NDArray[np.integer], ...]:
    """Of each class: its images, those that are right, and those that were taken for it."""
    told, classes = likeliest(probabilities), probabilities.shape[1]
    counted = (labels, labels[told == labels], told)
    return tuple(np.bincount(each, minlength=classes) for each in counted)


def _area(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    """By the ranks of the positive ones (Mann and Whitney 1947)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


@dataclass(frozen=True)
class Objective:
    """What the best trial is best at: the best epoch's value of `metric`, a key of `metrics`.

    Args:
        metrics: all that there are; a space adds its own.
    """

    metric: str = "val_accuracy"
    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS, compare=False, repr=False)

    @property
    def mode(self) -> str:
        """`max` or `min`."""
        return self.metrics[self.metric].mode

    @property
    def words(self) -> str:
        """For people."""
        return self.metrics[self.metric].words

    @property
    def worst(self) -> float:
        """What counts for a trial that gave no value."""
        return self.metrics[self.metric].worst

    @property
    def of_the_project(self) -> "Objective":
        """This one, or the loss where the metric is a space's own: for processes that have not loaded the space."""
        return Objective(self.metric) if self.metric in METRICS else Objective("val_loss")

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is strictly better than `best` (`None`: nothing yet)."""
        return self.metrics[self.metric].better(value, best)

    def rank(self, value: float | None) -> float:
        """A number that is the smaller, the better the value is."""
        return self.metrics[self.metric].rank(value)
