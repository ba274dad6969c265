"""Numbers: a label has one number or several, and so have the outputs, in the labels' own units.

For training they are scaled by mean and standard deviation of the training images' labels; the exported model undoes
it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.task.metric import LOSS, Metric
from search.task.task import Said, Task

Numbers = NDArray[Any]

SHOWN = 2000  # images, of which every number is told


def r2(labels: Numbers, outputs: Numbers) -> float:
    """The coefficient of determination, the mean over the outputs: 1 where all is right, 0 for the labels' mean.

    Not a number where no output's labels differ.
    """
    spread = ((labels - labels.mean(axis=0)) ** 2).sum(axis=0)
    known = spread > 0
    if not known.any():
        return float("nan")
    return float((1 - ((labels - outputs) ** 2).sum(axis=0)[known] / spread[known]).mean())


def rmse(labels: Numbers, outputs: Numbers) -> float:
    """The root of the mean squared error, the mean over the outputs, in the labels' units."""
    return float(np.sqrt(((labels - outputs) ** 2).mean(axis=0)).mean())


def mae(labels: Numbers, outputs: Numbers) -> float:
    """The mean absolute error, in the labels' units."""
    return float(np.abs(labels - outputs).mean())


def squared_error(labels: Numbers, outputs: Numbers) -> float:
    """The mean squared error."""
    return float(((labels - outputs) ** 2).mean())


def _off(labels: Numbers, outputs: Numbers) -> NDArray[np.floating]:
    """(images, outputs), how far off, in standard deviations of the labels."""
    spread = labels.std(axis=0)
    return np.asarray(np.abs(labels - outputs) / np.where(spread > 0, spread, 1))


def _told(names: Sequence[str], label: Any) -> str:
    numbers = [f"{number:.5g}" for number in label]
    return numbers[0] if len(names) == 1 else ", ".join(f"{n} {v}" for n, v in zip(names, numbers, strict=True))


def _figures(names: Sequence[str], tested: Said, validated: Callable[[], Said]) -> dict[str, Any]:  # noqa: ARG001
    labels, outputs = tested
    return {
        "numbers": [
            {
                "name": name,
                "mae": mae(labels[:, [one]], outputs[:, [one]]),
                "rmse": rmse(labels[:, [one]], outputs[:, [one]]),
                "r2": r2(labels[:, [one]], outputs[:, [one]]) if np.ptp(labels[:, one]) else None,
                "true": [float(value) for value in labels[:SHOWN, one]],
                "predicted": [float(value) for value in outputs[:SHOWN, one]],
            }
            for one, name in enumerate(names)
        ]
    }


METRICS: Mapping[str, Metric] = {
    "val_r2": Metric("validation R²", "max", r2, worst=float("-inf")),
    LOSS: Metric("validation loss", "min"),
    "val_rmse": Metric("validation RMSE", "min", rmse),
    "val_mae": Metric("validation MAE", "min", mae),
}

REGRESSION = Task(
    "numbers",
    singular="number",
    outputs="numbers",
    vector=True,
    label_dtype="float32",
    activation="linear",
    output="numbers",
    loss="mean_squared_error",
    loss_of=squared_error,
    metrics=METRICS,
    objective="val_r2",
    answer=lambda outputs: outputs,
    wrong=lambda labels, outputs: _off(labels, outputs).max(axis=1),
    pointing=lambda labels, outputs: _off(labels, outputs).argmax(axis=1),
    told=_told,
    figures=_figures,
    sure=False,
    scaled=True,
    defaults={"loss": "squared_error"},
)
