"""The schedules: how the learning rate changes from step to step, one row each.

A schedule gives the factor of the learning rate at every step of a trial. The factors are held in a variable, where the
compiled training step looks them up, so that another schedule needs no new trace.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.component import Component
from search.setting import Setting, Values

Numbers = NDArray[np.floating]

START, SUMMIT, END = 1 / 25, 0.3, 1e-4  # of one cycle: first factor, progress at the highest factor, last factor


@dataclass(frozen=True, kw_only=True)
class Schedule(Component):
    """One schedule.

    Args:
        factor: returns the factor of the rate at each step, (steps,), 0 or more, from the progress at each step,
            (steps,) in [0, 1), and the trial's parameters.
        plateau: whether the rate also falls when the objective no longer improves.
    """

    factor: Callable[[Numbers, Values], Numbers]
    plateau: bool = False


def constant(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """The first rate at all steps."""
    return np.ones_like(progress)


def linear(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """Down to 0 in a straight line."""
    return np.asarray(1 - progress)


def cosine(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """Down to 0 along half a cosine (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983), no restart."""
    return np.asarray((1 + np.cos(np.pi * progress)) / 2)


def one_cycle(progress: Numbers, values: Values) -> Numbers:  # noqa: ARG001
    """Up to the rate and far down again (Smith and Topin 2018, https://arxiv.org/abs/1708.07120), momentum constant."""
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
    """The factors of rate and weight decay at each step, (steps * epochs, 2).

    The rate rises linearly over the `warmup_epochs`; the schedule begins after them. A high rate from the first step on
    would destroy the pretrained weights before the moments of Adam, or the velocities of SGD, are good estimates (Goyal
    et al. 2017, https://arxiv.org/abs/1706.02677). Weight decay follows the schedule, but not the warm-up.

    Args:
        values: the trial's parameters.
        steps: per epoch.
    """
    done = np.arange(1, steps * epochs + 1, dtype=np.float32)
    warm = np.float32(steps * values.number("warmup_epochs"))
    progress = np.clip((done - 1 - warm) / np.maximum(len(done) - warm, 1), 0, 1)
    shape = np.asarray(schedule.factor(progress, values), np.float32)
    rising = np.minimum(done / np.maximum(warm, np.float32(1)), np.float32(1))
    return np.stack([shape * rising, shape], axis=1)
