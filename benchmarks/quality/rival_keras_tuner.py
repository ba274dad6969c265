"""KerasTuner's Hyperband in a replay: its own oracle, asked and told as its tuner does."""

import contextlib
import io
import math
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

import keras_tuner
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.quality.replay import GO_ON, PAUSE
from search.space import Space


class Hyperband:
    """Brackets of successive halving; it has no number of trials, so it ends where the space's trials have begun.

    Its tuner loads the weights of the trial that it promotes and trains on; here that trial goes on.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        folder = tempfile.mkdtemp(prefix="keras-tuner-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        parameters = keras_tuner.HyperParameters()
        for name, of in space.search.items():
            _declare(parameters, name, of)
        self._oracle = keras_tuner.oracles.HyperbandOracle(
            objective=keras_tuner.Objective("val_accuracy", "max"),
            max_epochs=space.budget.epochs,
            factor=3,
            hyperband_iterations=None,
            seed=seed,
            hyperparameters=parameters,
            max_consecutive_failed_trials=10**9,
        )
        self._oracle.verbose = 0
        self._oracle._set_project_dir(folder, "search")
        self._roots: dict[str, str] = {}  # its trial → the one whose training it goes on with
        self._running: dict[str, Any] = {}
        self._asked = 0

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """What the oracle gives a tuner that is free."""
        self._asked += 1
        with contextlib.redirect_stdout(io.StringIO()):
            trial = self._oracle.create_trial(f"tuner {self._asked}")
        if trial.status != "RUNNING":
            return None
        values = trial.hyperparameters.values
        before = values.get("tuner/trial_id")
        root = self._roots[before] if before else trial.trial_id
        if root not in self._roots.values() and len(set(self._roots.values())) == self._space.budget.trials:
            return None
        self._roots[trial.trial_id] = root
        self._running[root] = trial
        return root, self._space.parameters(self._space.suggest(lambda name, of: values[name]))  # noqa: ARG005

    def told(self, number: str, report: dict[str, Any]) -> str:
        """A trial that has its epochs is complete with its best so far, until it is promoted."""
        trial = self._running[number]
        if not report["ending"] and report["epoch"] < trial.hyperparameters.values["tuner/epochs"]:
            return GO_ON
        with contextlib.redirect_stdout(io.StringIO()):
            value = report["objective"] if math.isfinite(report["objective"]) else 0.0
            self._oracle.update_trial(trial.trial_id, {"val_accuracy": value}, step=report["epoch"])
            trial.status = "COMPLETED"
            self._oracle.end_trial(trial)
        return PAUSE


def _declare(parameters: Any, name: str, of: Any) -> None:
    """One parameter, as KerasTuner has it."""
    match of:
        case CategoricalDistribution():
            parameters.Choice(name, list(of.choices))
        case IntDistribution():
            parameters.Int(name, of.low, of.high)
        case FloatDistribution():
            parameters.Float(name, of.low, of.high, sampling="log" if of.log else "linear")
