"""Several labels an image: a label is 0 or 1 for each of them, the outputs are their probabilities."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.task.classification import area, fitted
from search.task.metric import LOSS, Metric
from search.task.task import Said, Task

Labels = NDArray[Any]
Probabilities = NDArray[np.floating]

HALF = 0.5  # the threshold while the search runs


def mean_average_precision(labels: Labels, probabilities: Probabilities) -> float:
    """The mean over the labels that occur of their average precision, in [0, 1].

    The average precision is the mean precision at the images that have the label, the likeliest first; images that are
    equally likely count as one step (as scikit-learn's `average_precision_score`).
    """
    occur = labels.any(axis=0)
    found = [_average_precision(labels[:, one] > 0, probabilities[:, one]) for one in np.flatnonzero(occur)]
    return float(np.mean(found)) if found else 0.0


def macro_f1(labels: Labels, probabilities: Probabilities) -> float:
    """The mean F1 of the labels that occur or are answered, in [0, 1], at a threshold of 0.5."""
    right, told, true = _counts(labels, probabilities, HALF)
    occur = told + true > 0
    return float((2 * right[occur] / (told + true)[occur]).mean()) if occur.any() else 0.0


def micro_f1(labels: Labels, probabilities: Probabilities) -> float:
    """F1 over all labels of all images together, in [0, 1], at a threshold of 0.5."""
    right, told, true = (counts.sum() for counts in _counts(labels, probabilities, HALF))
    return float(2 * right / (told + true)) if told + true else 0.0


def subset_accuracy(labels: Labels, probabilities: Probabilities) -> float:
    """The share of the images all of whose labels are right, in [0, 1], at a threshold of 0.5."""
    return float(((probabilities > HALF) == (labels > 0)).all(axis=1).mean())


def auc(labels: Labels, probabilities: Probabilities) -> float:
    """The mean area under the ROC curve of the labels that some images have and others do not, in [0, 1]."""
    count = (labels > 0).sum(axis=0)
    areas = [area(probabilities[:, one], labels[:, one] > 0) for one, of in enumerate(count) if 0 < of < len(labels)]
    return float(np.mean(areas)) if areas else float("nan")


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """The mean binary cross-entropy over images and labels, in nats."""
    own = np.clip(np.where(labels > 0, probabilities, 1 - probabilities), 1e-7, 1.0)
    return float(-np.log(own).mean())


def thresholds(labels: Labels, probabilities: Probabilities) -> NDArray[np.floating]:
    """The threshold of each label, (labels,), in (0, 1), at which its F1 on these images is largest.

    It lies in the middle between two neighbouring probabilities; 0.5 where the label does not occur.
    """
    return np.array([_threshold(labels[:, one] > 0, probabilities[:, one]) for one in range(labels.shape[1])])


def sharpness(labels: Labels, probabilities: Probabilities) -> float:
    """What the logits are multiplied by so that the binary cross-entropy is least: one over the temperature."""
    known = np.clip(probabilities.astype(float), 1e-7, 1 - 1e-7)
    logits = np.log(known / (1 - known))

    def scaled(factor: float) -> tuple[float, float, float]:
        said = 1 / (1 + np.exp(-factor * logits))
        slope, curvature = logits * (said - labels), logits**2 * said * (1 - said)
        return log_loss(labels, said), float(slope.mean()), float(curvature.mean())

    return fitted(scaled)


def _threshold(true: NDArray[np.bool_], probabilities: Probabilities) -> float:
    if not true.any():
        return HALF
    order = np.argsort(-probabilities, kind="stable")
    ranked, right = probabilities[order].astype(float), np.cumsum(true[order])
    f1 = 2 * right / (np.arange(1, len(true) + 1) + true.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal ones are told together
    last = int(f1.argmax())
    below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
    return float((ranked[last] + below) / 2)


def _average_precision(true: NDArray[np.bool_], probabilities: Probabilities) -> float:
    order = np.argsort(-probabilities, kind="stable")
    ranked, right = probabilities[order], np.cumsum(true[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    precision, gained = right[ends] / (ends + 1), np.diff(right[ends], prepend=0)
    return float((precision * gained).sum() / true.sum())


def _counts(labels: Labels, probabilities: Probabilities, threshold: Any) -> tuple[NDArray[Any], ...]:
    """Of each label: the images where it is told rightly, those where it is told, and those that have it."""
    told, true = probabilities > threshold, labels > 0
    return (told & true).sum(axis=0), told.sum(axis=0), true.sum(axis=0)


def _answer(probabilities: Probabilities) -> NDArray[Any]:
    return np.asarray(probabilities > HALF, "float32")


def _off(labels: Labels, probabilities: Probabilities) -> NDArray[np.floating]:
    """(images, labels), how sure the network was of what is wrong; 0 where it is right."""
    wrong = _answer(probabilities) != labels
    return np.asarray(np.where(wrong, np.maximum(probabilities, 1 - probabilities), 0))


def _told(names: Sequence[str], label: Any) -> str:
    return ", ".join(name for name, has in zip(names, label, strict=True) if has) or "no label"


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _figures(names: Sequence[str], tested: Said, validated: Callable[[], Said]) -> dict[str, Any]:
    chosen = thresholds(*validated())
    labels, probabilities = tested
    counts = zip(*_counts(labels, probabilities, chosen), strict=True)
    return {
        "labels": [
            {
                "label": name,
                "threshold": float(threshold),
                "precision": _share(right, told),
                "recall": _share(right, true),
                "f1": _share(2 * right, told + true),
                "average_precision": _average_precision(labels[:, one] > 0, probabilities[:, one]) if true else None,
                "images": int(true),
            }
            for one, (name, threshold, (right, told, true)) in enumerate(zip(names, chosen, counts, strict=True))
        ]
    }


METRICS: Mapping[str, Metric] = {
    "val_mean_average_precision": Metric("validation mean average precision", "max", mean_average_precision),
    LOSS: Metric("validation loss", "min"),
    "val_macro_f1": Metric("validation macro F1", "max", macro_f1),
    "val_micro_f1": Metric("validation micro F1", "max", micro_f1),
    "val_auc": Metric("validation AUC", "max", auc),
    "val_subset_accuracy": Metric("validation subset accuracy", "max", subset_accuracy),
}

MULTILABEL = Task(
    "several labels an image",
    singular="label",
    outputs="labels",
    vector=True,
    label_dtype="float32",
    activation="sigmoid",
    output="probabilities",
    loss="binary_crossentropy",
    loss_of=log_loss,
    metrics=METRICS,
    objective="val_mean_average_precision",
    answer=_answer,
    wrong=lambda labels, probabilities: _off(labels, probabilities).max(axis=1),
    pointing=lambda labels, probabilities: _off(labels, probabilities).argmax(axis=1),
    told=_told,
    figures=_figures,
    sharpness=sharpness,
)
