"""Syne Tune's multi-fidelity methods in a replay: its own schedulers, asked and told as its tuner does."""

import contextlib
import io
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHA, ASHACQR, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.quality.replay import GO_ON, STOP
from search.space import Space


class SyneTune:
    """One of its schedulers, with its default first rung.

    Args:
        make: the scheduler's class.
    """

    def __init__(self, make: Callable[..., Any], space: Space, seed: int) -> None:
        np.random.seed(seed)  # noqa: NPY002 some of its searchers use it
        self._space = space
        self._scheduler = make(
            config_space={name: _domain(of) for name, of in space.search.items()},
            metric="val_accuracy",
            do_minimize=False,
            time_attr="epoch",
            max_t=space.budget.epochs,
            random_seed=seed,
        )
        self._trials: dict[str, Trial] = {}

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """What it suggests."""
        if len(self._trials) == self._space.budget.trials:
            return None
        with contextlib.redirect_stdout(io.StringIO()):
            values = self._scheduler.suggest().config
        number = len(self._trials)
        self._trials[str(number)] = trial = Trial(number, values, datetime.fromtimestamp(0))
        self._scheduler.on_trial_add(trial)
        return str(number), self._space.parameters(self._space.suggest(lambda name, of: values[name]))  # noqa: ARG005

    def told(self, number: str, report: dict[str, Any]) -> str:
        """Its decision after an epoch; one that ended by itself is complete."""
        value = report["objective"] if math.isfinite(report["objective"]) else 0.0
        result = {"val_accuracy": value, "epoch": report["epoch"]}
        if report["ending"]:
            self._scheduler.on_trial_complete(self._trials[number], result)
            return GO_ON
        decision = self._scheduler.on_trial_result(self._trials[number], result)
        return STOP if decision == SchedulerDecision.STOP else GO_ON


def _domain(of: Any) -> Any:
    """One parameter, as Syne Tune has it."""
    match of:
        case CategoricalDistribution():
            return config_space.choice(list(of.choices))
        case IntDistribution():
            return config_space.randint(of.low, of.high)
        case FloatDistribution():
            return config_space.loguniform(of.low, of.high) if of.log else config_space.uniform(of.low, of.high)
    raise TypeError(of)


METHODS = {"ASHA": ASHA, "ASHA + CQR": ASHACQR, "BOHB": BOHB}
