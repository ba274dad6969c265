"""What is predicted: one row for each kind of target. Nothing else knows what an output means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.setting import Value
from search.task.metric import LOSS, Metric, of_answers

Array = NDArray[Any]
Said = tuple[Array, Array]  # labels (images, …) and outputs (images, outputs), as labels are


@dataclass(frozen=True, eq=False)
class Task:
    """One kind of target.

    Args:
        words: for people; `singular` is what an output stands for, such as "class", and `outputs` several of them.
        vector: whether a label has a number for each output; else it is one number. `label_dtype` is its type.
        activation: of the output layer, by Keras's name; `output` is the name of that layer.
        loss: what trials are validated by, whatever they are trained by, by Keras's name: a function of labels and
            outputs that gives a number for each image. `loss_of` is its mean over images, in NumPy.
        metrics: by name.
        objective: the one that trials are compared by if the space names none.
        answer: (images, outputs) → (images, …) as labels are, what the outputs say.
        wrong: labels and outputs → (images,), how wrong each image's answer is; 0 where it is right.
        pointing: labels and outputs → (images,), the output that is looked at in each image.
        told: from the names of the outputs and one label or answer: the same in words.
        figures: from the names of the outputs, and labels and outputs of the test images and of the validation images:
            what else `best/metrics.json` says.
        sure: whether `wrong` is a share, of how sure the network was.
        weighted: whether images can be weighted by their class.
        scaled: whether outputs are numbers that are scaled for training.
        sharpness: labels and outputs → what the output layer is multiplied by so that its probabilities fit best;
            `None` where there are none.
        defaults: settings whose defaults are others than usual.
    """

    words: str
    singular: str
    outputs: str
    vector: bool
    label_dtype: str
    activation: str
    output: str
    loss: str
    loss_of: Callable[[Array, Array], float]
    metrics: Mapping[str, Metric]
    objective: str
    answer: Callable[[Array], Array]
    wrong: Callable[[Array, Array], Array]
    pointing: Callable[[Array, Array], Array]
    told: Callable[[Sequence[str], Any], str]
    figures: Callable[[Sequence[str], Said, Callable[[], Said]], dict[str, Any]]
    sure: bool = True
    weighted: bool = False
    scaled: bool = False
    sharpness: Callable[[Array, Array], float] | None = None
    defaults: Mapping[str, Value] = field(default_factory=dict)

    def counting(self, count: int) -> str:
        """How many outputs there are, in words."""
        return f"{count} {self.outputs if count != 1 else self.singular}"

    @property
    def counted(self) -> list[str]:
        """Keras's names of the metrics that it computes in the compiled step, beside the loss."""
        return [metric.counted for metric in self.metrics.values() if metric.counted]


@dataclass(frozen=True)
class Target:
    """A task, with how many outputs it takes, and how they are scaled.

    Args:
        mean: of each output's training labels, and `spread` their standard deviations; empty where nothing is scaled.
    """

    task: Task
    outputs: int
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one image's label."""
        return (self.outputs,) if self.task.vector else ()

    def scaled(self, values: Array) -> Array:
        """Labels or outputs as the network has them."""
        if not self.task.scaled:
            return values
        return np.asarray((values - np.array(self.mean)) / np.array(self.spread), "float32")

    def whole(self, values: Array) -> Array:
        """The network's outputs as labels are."""
        return np.asarray(values * np.array(self.spread) + np.array(self.mean)) if self.task.scaled else values

    def metrics(self, labels: Array, outputs: Array, known: Mapping[str, Metric]) -> dict[str, float]:
        """All metrics, of whatever images these are.

        Args:
            labels: (images, …); outputs: (images, outputs), as labels are.
        """
        loss = self.task.loss_of(self.scaled(labels), self.scaled(outputs))
        counted = {name: metric.of(labels, outputs) for name, metric in known.items() if metric.of and metric.counted}
        return {**counted, LOSS: loss, **of_answers(labels, outputs, known)}
