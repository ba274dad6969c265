"""What a space file imports: `Space`, the parameters it varies, and the kinds of components that it may declare."""

from search.budget import Budget
from search.components.heads import Head
from search.components.losses import Loss
from search.components.optimizers import Optimizer
from search.components.schedules import Schedule
from search.parameters import Choice, Depth, Float, Int
from search.setting import Setting
from search.space.space import Space
from search.task.metric import Metric
from search.task.objective import Objective

__all__ = [
    "Budget",
    "Choice",
    "Depth",
    "Float",
    "Head",
    "Int",
    "Loss",
    "Metric",
    "Objective",
    "Optimizer",
    "Schedule",
    "Setting",
    "Space",
]
