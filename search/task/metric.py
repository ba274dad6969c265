"""What all metrics have in common: what validation images say of a trial after every epoch.

Keras computes some in the compiled step. The others are computed at the end of an epoch, from what the network answered
to all validation images, which the step keeps. Each one is a column of `trials.csv`, of TensorBoard's HParams and of
the report, and may be the objective. Every task lists its own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[Any]
Outputs = NDArray[np.floating]

OF_VALIDATION = "val_"  # what every metric's name begins with
LOSS = "val_loss"  # of every task


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        words: for people.
        mode: `max` where more is better, or `min`.
        of: computes it from labels (images, …) and outputs (images, outputs); `None`: it is the task's loss.
        worst: what counts for a trial that gave no value.
        counted: by Keras in the compiled step, under this name; empty: it is computed at the end of an epoch.
        file: that declares it; empty for one of the project's. `source` is its text.
    """

    words: str
    mode: str
    of: Callable[[Labels, Outputs], float] | None = None
    worst: float = math.nan
    counted: str = ""
    file: str = ""
    source: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if math.isnan(self.worst):
            object.__setattr__(self, "worst", 0.0 if self.mode == "max" else math.inf)

    @property
    def at_the_end(self) -> bool:
        """Whether it is computed at the end of an epoch."""
        return self.of is not None and not self.counted

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is strictly better than `best` (`None`: nothing yet)."""
        return best is None or (value > best if self.mode == "max" else value < best)

    def rank(self, value: float | None) -> float:
        """A number that is the smaller, the better the value is."""
        known = self.worst if value is None else value
        return -known if self.mode == "max" else known


def figure(value: float | None) -> str:
    """A metric's value in words; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def of_answers(labels: Labels, outputs: Outputs, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics that are computed at the end of an epoch; not a number where an output is none.

    Args:
        labels: (images, …); outputs: (images, outputs).
        metrics: by name.
    """
    finite = bool(np.isfinite(outputs).all())
    return {
        name: float(metric.of(labels, outputs)) if finite else math.nan
        for name, metric in metrics.items()
        if metric.of and metric.at_the_end
    }
