"""Searches on a table of recorded curves, with a virtual clock: what a tool proposes and stops is what it really does.

A worker that is free asks the tool what to run; an epoch takes the seconds that it took when it was recorded; then the
tool is told, and says whether the trial goes on. A trial ends by itself as a real one does: after the space's patience,
at its last epoch, or where it diverges.
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.quality.table import FIXED, Curves, Plane, Table, curves_at
from search.record.states import COMPLETED, DIVERGED

GO_ON, STOP, PAUSE = "go on", "stop", "pause"
WARM = math.ceil(FIXED["warmup_epochs"])


@dataclass
class Trial:
    """One configuration, as far as it is trained.

    Args:
        configuration: as the tool has it.
        curves: what it will show; a tool must not look further than `epochs`.
        seconds: of an epoch.
        epochs: trained so far.
        ending: the state that it ended in by itself; empty while it goes on.
    """

    number: str
    configuration: Mapping[str, Any]
    curves: Curves
    seconds: float
    epochs: int = 0
    ending: str = ""
    best: int = 0  # its best epoch, from 1

    def after(self, epochs: int, patience: int) -> None:
        """One epoch more.

        Args:
            epochs: at most so many.
            patience: epochs without a better one, of those after the warm-up, until it ends.
        """
        self.epochs += 1
        value = self.curves.val[self.epochs - 1]
        if not math.isfinite(self.curves.loss[self.epochs - 1]):
            self.ending = DIVERGED
            return
        if not self.best or value > self.curves.val[self.best - 1]:
            self.best = self.epochs
        if self.epochs == epochs or (
            self.epochs > WARM and self.epochs - (WARM + 1 + self.curves.val[WARM : self.epochs].argmax()) >= patience
        ):
            self.ending = COMPLETED

    @property
    def report(self) -> dict[str, Any]:
        """What a real trial reports (see `search.trial.training.train`)."""
        last, best = self.epochs - 1, self.best - 1
        known = self.best > 0
        return {
            "epoch": self.epochs,
            "objective": float(self.curves.val[best]) if known else math.nan,
            "best_epoch": self.best,
            "val_accuracy": float(self.curves.val[best]) if known else math.nan,
            "val_loss": float(self.curves.loss[best]) if known else math.nan,
            "last_val_accuracy": float(self.curves.val[last]),
            "last_val_loss": float(self.curves.loss[last]),
            "seconds": self.seconds * self.epochs,
            "ending": self.ending,
            "reason": "",
        }


class Tool(Protocol):
    """A searcher and a stopping rule together."""

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """A trial to run, with its configuration: a new one, or one that was paused; `None` for nothing now."""

    def told(self, number: str, report: dict[str, Any]) -> str:
        """Whether a trial goes on after an epoch: `GO_ON`, `STOP` or `PAUSE`."""


@dataclass
class Trace:
    """What a search found, and when: after each epoch of any trial, in order.

    Args:
        at: virtual seconds; `epochs` trained in all by then; `best` validation accuracy so far; `test` the test
            accuracy of that epoch of that trial.
    """

    at: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)


def replay(table: Table, tool: Tool, *, epochs: int, patience: int, workers: int, seconds: float = math.inf) -> Trace:
    """Run a search to its end.

    Args:
        epochs: of a trial, at most.
        patience: epochs without a better one until a trial ends by itself, see `Trial.after`.
        workers: trials at a time.
        seconds: virtual ones, after which it ends.
    """
    trace, running, idle, now = Trace(), [], workers, 0.0
    best, test = 0.0, 0.0
    while True:
        while idle and (given := tool.next()):
            number, configuration = given
            if number not in trace.trials:
                plane = Plane(
                    int(configuration["unfreeze_depth"]),
                    configuration["optimizer"],
                    configuration["weight_decay"],
                    configuration["dropout"],
                )
                trace.trials[number] = Trial(
                    number, configuration, *curves_at(table, plane, configuration["learning_rate"])
                )
            heapq.heappush(running, (now + trace.trials[number].seconds, number))
            idle -= 1
        if not running:
            return trace
        now, number = heapq.heappop(running)
        if now > seconds:
            return trace
        trial = trace.trials[number]
        trial.after(epochs, patience)
        value = float(trial.curves.val[trial.epochs - 1])
        if trial.ending != DIVERGED and value > best:
            best, test = value, float(trial.curves.test[trial.epochs - 1])
        trace.at.append(now)
        trace.epochs.append(len(trace.epochs) + 1)
        trace.best.append(best)
        trace.test.append(test)
        if tool.told(number, trial.report) == GO_ON and not trial.ending:
            heapq.heappush(running, (now + trial.seconds, number))
        else:
            idle += 1
