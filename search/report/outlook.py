"""What a search was worth: what more trials could be expected to give, and who was stopped while still getting better.

The expected best of k trials of a search is computed from all that it ran, as if their order were chance (Dodge et al.
2019, https://arxiv.org/abs/1909.03004; without replacement, as Tang et al. 2020, https://arxiv.org/abs/2004.13705). A
sampler that learns does better than that, so a search may gain a little more than is told here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.record.record import Row
from search.report.analysis import Findings

ENOUGH = 8
DRAWS, SHARE = 400, 0.9


@dataclass(frozen=True)
class Worth:
    """What twice the trials would be expected to add to the best value.

    Args:
        trials: that gave a value.
        gain: expected of as many again; never less than 0. Where less is better, it is what the loss would fall by.
        low: with `high`, what nine of ten estimates lie between, over searches drawn from this one's trials.
        high: see `low`.
    """

    trials: int
    gain: float
    low: float
    high: float


def expected(values: Sequence[float], count: int) -> float:
    """The mean over all ways to choose `count` of the values of the largest one that is chosen.

    Args:
        count: from 1 to the number of the values.
    """
    known = np.sort(values)
    places = np.arange(len(known) - 1, count - 1, -1)  # falling: how many ways make a place the best of those chosen
    shares = count / len(known) * np.cumprod([1.0, *((places - count + 1) / places)])
    return float(known[-1] + shares @ (known[::-1][: len(shares)] - known[-1]))


def values(found: Findings) -> list[float]:
    """The objective of every trial of the search that has one; a loss with its sign changed, so that more is better."""
    return [value if found.up else -value for row in found.searched if (value := found.value(row)) is not None]


def worth(found: Findings) -> Worth | None:
    """What more trials could be expected to give; `None` where too few gave a value."""
    known = values(found)
    if len(known) < ENOUGH:
        return None
    chance, gain = random.Random(0), _gain(known)  # noqa: S311
    drawn = sorted([gain, *(_gain(chance.choices(known, k=len(known))) for _ in range(DRAWS))])
    edge = round((1 - SHARE) / 2 * DRAWS)
    return Worth(len(known), gain, min(gain, drawn[edge]), max(gain, drawn[-1 - edge]))


def _gain(values: Sequence[float]) -> float:
    """What the next doubling would give, if doublings go on to give less and less as the last two did."""
    quarter, half, whole = (expected(values, max(1, len(values) // part)) for part in (4, 2, 1))
    before, last = half - quarter, whole - half
    return last * min(1.0, last / before) if before > 0 else 0.0


def rising(found: Findings) -> list[Row]:
    """The trials that a rule stopped although their last epoch had been their best."""
    return [row for row in found.searched if row.rung and row.best_epoch == row.epochs]
