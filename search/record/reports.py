"""What a trial's process tells the driver after every epoch: plain numbers, which get a type here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.task.metric import LOSS, OF_VALIDATION

LAST = "last_"


@dataclass(frozen=True)
class Failure:
    """A trial cannot go on.

    Args:
        cause: in one line.
        traceback: the whole.
    """

    cause: str
    traceback: str
    crowded: bool = True


@dataclass(frozen=True)
class Report:
    """How a trial stands after an epoch.

    Args:
        epoch: from 1.
        objective: the best so far; not a number where there is none.
        best_epoch: when that was; 0 where there is none.
        figures: all metrics of the best epoch.
        last: some metrics of this epoch, by the same names.
        seconds: spent on the trial.
        ending: the state that it ends in, `reason` why; empty while it goes on.
        paused: whether it ends here to go on later.
        note: what the user should know.
        crowded: whether its process should make way for a new one.
    """

    epoch: int
    objective: float
    best_epoch: int
    figures: Mapping[str, float]
    last: Mapping[str, float]
    seconds: float
    ending: str
    reason: str
    paused: bool
    note: str
    crowded: bool

    @property
    def known(self) -> bool:
        """Whether the objective is a number."""
        return math.isfinite(self.objective)

    def ended(self, ending: str, reason: str) -> "Report":
        """The same of a trial that ends here."""
        return replace(self, ending=ending, reason=reason)

    def event(self) -> dict[str, Any]:
        """As the history has it, in JSON, which has no number that is none."""
        return {
            "epoch": self.epoch,
            "objective": _json(self.objective),
            "best_epoch": self.best_epoch,
            **{name: _json(value) for name, value in self.figures.items()},
            **{f"{LAST}{name}": _json(value) for name, value in self.last.items()},
            "seconds": self.seconds,
            "ending": self.ending,
            "reason": self.reason,
        }


def read(result: Mapping[str, Any]) -> Report | Failure | None:
    """Read what a trial reported (see `training.train`), with whatever Ray has added; `None` if it reported nothing."""
    if "epoch" not in result:
        return None
    if "failure" in result:
        return Failure(str(result["failure"]), str(result["traceback"]), bool(result.get("crowded", True)))
    last = f"{LAST}{OF_VALIDATION}"
    return Report(
        epoch=int(result["epoch"]),
        objective=float(result["objective"]),
        best_epoch=int(result.get("best_epoch", 0)),
        figures={name: float(value) for name, value in result.items() if name.startswith(OF_VALIDATION)},
        last={
            LOSS: math.nan,
            **{name.removeprefix(LAST): float(value) for name, value in result.items() if name.startswith(last)},
        },
        seconds=float(result.get("seconds", 0.0)),
        ending=str(result["ending"]),
        reason=str(result.get("reason", "")),
        paused=bool(result.get("paused", False)),
        note=str(result.get("note", "")),
        crowded=bool(result.get("crowded", False)),
    )


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
