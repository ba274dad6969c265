"""Trend: trials are compared by where their loss is heading as well as by where they stand.

A rate that is high enough to move deep layers first makes a network worse than a timid one, and better in the end. So
at a rung the validation loss is extrapolated to the last epoch by a power law, as learning curves are well described by
(Domhan et al. 2015, https://www.ijcai.org/Proceedings/15/Papers/487.pdf; Viering and Loog 2022,
https://arxiv.org/abs/2103.10948): where both axes are logarithmic, straight on through the mean of two epochs and the
better of the two after them. Where a trial was better before, that counts, for the weights of its best epoch are kept.
Successive halving decides twice (see `asha`), by that and by the best objective so far, and a trial stops where both
say so: a fast start may end in overfitting, and a slow one may come back from a fall.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from search.budget import Budget
from search.components.stopping.asha import Asha
from search.components.stopping.rule import Curve
from search.record.record import Point
from search.task.metrics import Objective

SPAN = 2  # epochs in each of the two groups
BELIEVED = 0.7  # share of the slope, for learning slows down
STEEPEST = 1.5
TINY = 1e-12


class Trend:
    """Rungs at `first_rung`, but not before the fourth epoch, then `reduction_factor` times as late, and so on.

    Whatever the objective is, where a trial is heading is told by the loss: it is the finer measure where validation
    images are few.
    """

    name = "trend ASHA"

    def __init__(self, budget: Budget, objective: Objective) -> None:
        self._asha = Asha(budget, objective)
        self.rungs = replace(budget, first_rung=max(budget.first_rung, 2 * SPAN)).rungs[:-1]
        self._last = budget.epochs
        self._share = 1 / budget.reduction_factor

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether it is worse than the best 1 / reduction_factor, and heading for worse than they are."""
        epoch = trial.epochs
        there = [self._heading(one, epoch) for one in others if one.reached(epoch)]
        if not there or not self._asha.stops(trial, others):
            return False
        return self._heading(trial, epoch) > float(np.quantile(there, self._share))

    def _heading(self, trial: Curve, epoch: int) -> float:
        """The logarithm of the best loss that a trial that came to `epoch` would have by the last one."""
        losses = [_logarithm(trial.points.get(at)) for at in range(1, epoch + 1)]
        before, now = fmean(losses[-2 * SPAN : -SPAN]), min(losses[-SPAN:])
        slope = (now - before) / math.log(epoch / (epoch - SPAN))
        ahead = now + BELIEVED * min(max(slope, -STEEPEST), 0.0) * math.log(self._last / epoch)
        return min(ahead, *losses)


def _logarithm(point: Point | None) -> float:
    """Of a loss; of one that is no number that of a very large one."""
    loss = point.val_loss if point else math.nan
    return math.log(max(loss, TINY) if math.isfinite(loss) else 1 / TINY)
