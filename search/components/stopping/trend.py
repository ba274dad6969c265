"""Trend: trials are compared by the loss that they are predicted to reach, and by their best objective so far.

A learning rate that is high enough to train deep layers makes a network worse at first than a low rate, but better in
the end. So at a rung the validation loss is extrapolated to the last epoch by a power law, which describes learning
curves well (Domhan et al. 2015, https://www.ijcai.org/Proceedings/15/Papers/487.pdf; Viering and Loog 2022,
https://arxiv.org/abs/2103.10948). With both axes logarithmic this is a straight line through the mean of two epochs and
the better of the two epochs after them. If the trial had a lower loss before, that loss is used, because the weights of
the best epoch are kept. Successive halving (see `asha`) decides twice, by the predicted loss and by the best objective
so far. A trial stops only if both say so: a fast start may end in overfitting, and a slow trial may recover.
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
from search.task.objective import Objective

SPAN = 2  # epochs in each of the two groups
BELIEVED = 0.7  # share of the slope that is extrapolated, because learning slows down
STEEPEST = 1.5
TINY = 1e-12


class Trend:
    """Trend ASHA, with rungs at `first_rung`, but not before epoch 4, then each `reduction_factor` times as late.

    For every objective, the prediction uses the validation loss, because it is finer with few validation images.
    """

    name = "trend ASHA"

    def __init__(self, budget: Budget, objective: Objective) -> None:
        self._asha = Asha(budget, objective)
        self.rungs = replace(budget, first_rung=max(budget.first_rung, 2 * SPAN)).rungs[:-1]
        self._last = budget.epochs
        self._share = 1 / budget.reduction_factor

    def stops(self, trial: Curve, others: Sequence[Curve]) -> bool:
        """Whether neither its best objective nor its predicted loss is among the best 1 / reduction_factor."""
        epoch = trial.epochs
        there = [self._heading(one, epoch) for one in others if one.reached(epoch)]
        if not there or not self._asha.stops(trial, others):
            return False
        return self._heading(trial, epoch) > float(np.quantile(there, self._share))

    def _heading(self, trial: Curve, epoch: int) -> float:
        """The logarithm of the best loss predicted for the last epoch, from the trial's curve up to `epoch`."""
        losses = [_logarithm(trial.points.get(at)) for at in range(1, epoch + 1)]
        before, now = fmean(losses[-2 * SPAN : -SPAN]), min(losses[-SPAN:])
        slope = (now - before) / math.log(epoch / (epoch - SPAN))
        ahead = now + BELIEVED * min(max(slope, -STEEPEST), 0.0) * math.log(self._last / epoch)
        return min(ahead, *losses)


def _logarithm(point: Point | None) -> float:
    """The logarithm of a loss; a loss that is missing or not finite counts as very large."""
    loss = point.val_loss if point else math.nan
    return math.log(max(loss, TINY) if math.isfinite(loss) else 1 / TINY)
