"""The parameters of a space: Optuna's distributions, and `Depth`, whose upper end depends on the backbone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from optuna.trial import Trial

from search.setting import Value

__all__ = ["Choice", "Depth", "Float", "Int", "Parameter", "count", "ends", "is_whole", "sample", "values"]

FRACTIONS: Mapping[str, Callable[[int], int]] = {"half": lambda blocks: (blocks + 1) // 2, "all": lambda blocks: blocks}


@dataclass(frozen=True)
class Depth:
    """How many blocks are trained, counted from the output: `low` to `high` (`None`: all blocks of the backbone)."""

    low: int = 0
    high: int | None = None

    def __post_init__(self) -> None:
        if not is_whole(self.low) or not (self.high is None or (is_whole(self.high) and self.low <= self.high)):
            raise ValueError(f"a Depth needs whole numbers with low <= high; got low={self.low!r}, high={self.high!r}")

    def resolve(self, blocks: int) -> Int:
        """The range of whole numbers for a backbone of `blocks` blocks."""
        return Int(self.low, blocks if self.high is None else self.high)

    def place(self, value: Value, blocks: int) -> Value:
        """The number that a start point's value stands for; `half` and `all` are clipped to the range."""
        if not isinstance(value, str):
            return value
        numbers = self.resolve(blocks)
        return max(numbers.low, min(FRACTIONS[value](blocks), numbers.high))

    def fault(self, name: str, value: Value) -> str | None:
        """What is wrong with a start point's value; `None` when nothing is."""
        named = isinstance(value, str) and value in FRACTIONS
        if named or (is_whole(value) and self.low <= value <= (math.inf if self.high is None else self.high)):  # type: ignore[operator]
            return None
        top = "" if self.high is None else f" to {self.high}"
        return f"'{name}' must be a whole number from {self.low}{top}, 'half' or 'all'; got {value!r}"


Parameter = BaseDistribution | Depth


def ends(parameter: Parameter) -> list[Value]:
    """The values at the ends of a parameter's range, or all its choices."""
    if isinstance(parameter, Choice):
        return list(parameter.choices)
    if isinstance(parameter, Depth):
        return [parameter.low] if parameter.high is None else [parameter.low, parameter.high]
    return [parameter.low, parameter.high]  # type: ignore[attr-defined]


def values(parameter: Parameter) -> list[Value]:
    """Every value of a `Choice` or an `Int`; a `Depth` must be resolved first."""
    match parameter:
        case Choice():
            return list(parameter.choices)
        case Int():
            return list(range(parameter.low, parameter.high + 1, parameter.step))
        case _:
            raise TypeError(f"{parameter!r} has no end of values")


def count(parameter: Parameter) -> float:
    """How many values a parameter has; infinite for a number without steps. A `Depth` must be resolved first."""
    match parameter:
        case Choice():
            return len(set(parameter.choices))
        case Int():
            return len(range(parameter.low, parameter.high + 1, parameter.step))
        case Float() if parameter.step is not None:
            return 1 + round((parameter.high - parameter.low) / parameter.step)
        case Float():
            return 1 if parameter.single() else math.inf
        case _:
            raise TypeError(f"{parameter!r} is not resolved")


def sample(trial: Trial, name: str, parameter: Parameter) -> Value:
    """Ask an Optuna trial for a value. A `Depth` must be resolved first."""
    match parameter:
        case Float():
            return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        case Int():
            return trial.suggest_int(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        case Choice():
            return trial.suggest_categorical(name, parameter.choices)
        case _:
            raise TypeError(f"{name}: {parameter!r} is not resolved")


def is_whole(value: object) -> bool:
    """Whether a value is a whole number; `True` and `False` are not."""
    return isinstance(value, int) and not isinstance(value, bool)
