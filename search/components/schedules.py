"""The schedules: how the learning rate changes from step to step, one row each.

A schedule gives what the rate is multiplied by at every step of a trial. These numbers lie in a variable that the
compiled step looks them up in, so that another schedule needs no new trace.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.component import Component
from search.setting import Setting, Values

Numbers = NDArray[np.floating]

START, SUMMIT, END = 1 / 25, 0.3, 1e-4  # of one cycle: its first rate, when it is highest, its last rate


@dataclass(frozen=True, kw_only=True)
class Schedule(Component):
    """One schedule.

    Args:
        factor: from how far each step is, (steps,) in [0, 1), and the trial's parameters to what the rate is
            multiplied by, (steps,), 0 or more.
        plateau: whether the rate falls as well where the objective stands still.
    """

    factor: Callable[[Numbers, Values], Numbers]
    plateau: bool = False


def constant(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """The first rate."""
    return np.ones_like(progress)


def linear(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """Down to 0 in a straight line."""
    return np.asarray(1 - progress)


def cosine(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """Down to 0 along half a cosine (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983), no restart."""
    return np.asarray((1 + np.cos(np.pi * progress)) / 2)


def one_cycle(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """Up to the rate and far down again (Smith and Topin 2018, https://arxiv.org/abs/1708.07120); momentum stays."""
    up = START + (1 - START) * (1 - np.cos(np.pi * progress / SUMMIT)) / 2
    down = END + (1 - END) * (1 + np.cos(np.pi * (progress - SUMMIT) / (1 - SUMMIT))) / 2
    return np.asarray(np.where(progress < SUMMIT, up, down))


SCHEDULES: Mapping[str, Schedule] = {
    "plateau": Schedule(
        "the rate falls where the objective stands still",
        {
            "plateau_patience": Setting(
                "epochs without a better objective until the rate falls", 3, low=1, searchable=True
            ),
            "plateau_factor": Setting(
                "what the rate is multiplied by then", 0.3, low=0, high=1, above=True, searchable=True
            ),
        },
        factor=constant,
        plateau=True,
    ),
    "constant": Schedule("the rate stays", factor=constant),
    "linear": Schedule("down to 0 in a straight line, by the last epoch", factor=linear),
    "cosine": Schedule("down to 0 along half a cosine, by the last epoch", factor=cosine),
    "one_cycle": Schedule("up for three tenths of the epochs, then far down along a cosine", factor=one_cycle),
}


def factors(schedule: Schedule, values: Values, steps: int, epochs: int) -> NDArray[np.float32]:
    """What rate and weight decay are multiplied by at each step, (steps of all epochs, 2).

    The rate rises linearly over the `warmup_epochs`; the schedule begins after them. A high rate from the first step on
    destroys what a pretrained network knows before the moments of Adam, or the velocities, are any good (Goyal et al.
    2017, https://arxiv.org/abs/1706.02677). Weight decay follows the schedule, not the warm-up.

    Args:
        values: the trial's parameters.
        steps: of an epoch.
    """
    done = np.arange(1, steps * epochs + 1, dtype=np.float32)
    warm = np.float32(steps * values.number("warmup_epochs"))
    progress = np.clip((done - 1 - warm) / np.maximum(len(done) - warm, 1), 0, 1)
    shape = np.asarray(schedule.factor(progress, values), np.float32)
    rising = np.minimum(done / np.maximum(warm, np.float32(1)), np.float32(1))
    return np.stack([shape * rising, shape], axis=1)
