"""All tables of components: setting that names a component → its table."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from search.component import Component
from search.components.heads import HEADS, Head
from search.components.losses import LOSSES, Loss
from search.components.optimizers import OPTIMIZERS, Optimizer
from search.components.samplers import SAMPLERS
from search.components.schedules import SCHEDULES, Schedule
from search.components.stopping import RULES
from search.setting import Values

Tables = Mapping[str, Mapping[str, Component]]

TABLES: Tables = {
    "sampler": SAMPLERS,
    "stopping": RULES,
    "head": HEADS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}


OWN = ("head", "loss", "optimizer", "schedule")  # the kinds that a trial consists of; a space may declare its own


@dataclass(frozen=True)
class Parts:
    """The components that a trial consists of."""

    head: Head
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule

    def shape(self, values: Values) -> Hashable:
        """What determines the head's architecture in a trial; weights may be averaged only if this is the same."""
        return (values["head"], self.head.source, *(values[name] for name in sorted(self.head.parameters)))

    def built(self, values: Values) -> Hashable:
        """What forces a new trace if it changes."""
        kinds = values["loss"], self.loss.source, values["optimizer"], self.optimizer.source
        return (self.shape(values), *kinds, values["layer_decay"] != 1, values["mixup"] != 0)
