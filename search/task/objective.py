"""What the best trial is best at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.task.metric import LOSS, Metric
from search.task.task import Task
from search.task.tasks import TASKS


@dataclass(frozen=True)
class Objective:
    """What the best trial is best at: the best epoch's value of a metric.

    Args:
        metric: its name, a key of `metrics`; empty: the task's own choice.
        kind: of the task, a key of `TASKS`.
        own: metrics that a space adds.
    """

    metric: str = ""
    kind: str = "classification"
    own: Mapping[str, Metric] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.metric:
            object.__setattr__(self, "metric", self.task.objective)

    def of(self, kind: str, own: Mapping[str, Metric]) -> "Objective":
        """The same for another task; where this one is its task's own choice, the other task chooses too."""
        return Objective("" if self.metric == self.task.objective else self.metric, kind, own)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return TASKS[self.kind]

    @property
    def metrics(self) -> dict[str, Metric]:
        """All that there are."""
        return {**self.task.metrics, **self.own}

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
    def leading(self) -> list[str]:
        """The metrics that are shown where there is room for a few, and of which every epoch is told."""
        return list(dict.fromkeys((self.metric, self.task.objective, LOSS)))

    @property
    def of_the_project(self) -> "Objective":
        """This one, or the loss where the metric is a space's own: for processes that have not loaded the space."""
        return Objective(self.metric if self.metric in self.task.metrics else LOSS, self.kind)

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is strictly better than `best` (`None`: nothing yet)."""
        return self.metrics[self.metric].better(value, best)

    def rank(self, value: float | None) -> float:
        """A number that is the smaller, the better the value is."""
        return self.metrics[self.metric].rank(value)

    def ranks(self, figures: Mapping[str, Any]) -> tuple[float, ...]:
        """The same of all leading metrics, so that the others decide between equals."""
        return tuple(self.metrics[name].rank(figures.get(name)) for name in self.leading)
