"""PriorBand of NePS in a replay: its own optimizer, asked and told by its own interface.

It needs pandas 2, and the project is locked to pandas 3: install it in an environment of its own, with
`pip install '.[quality]' neural-pipeline-search`. ifBO, its other multi-fidelity method, needs a pretrained network
that it fetches from the internet.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import neps
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.quality.replay import GO_ON, PAUSE
from search.space import Space


class PriorBand:
    """Asynchronous Hyperband whose samples come from a prior, from around the best, or from anywhere.

    The prior is what people begin with, and what three of four start points of the project's own space say.
    """

    PRIOR: Mapping[str, Any] = {
        "unfreeze_depth": "half",
        "learning_rate": 1e-3,
        "optimizer": "adam",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "dropout": 0.1,
    }

    def __init__(self, space: Space, seed: int) -> None:
        import numpy as np
        import torch

        logging.getLogger("neps").setLevel(logging.ERROR)
        np.random.seed(seed)  # noqa: NPY002 it has no seed of its own
        torch.manual_seed(seed)
        self._space = space
        parameters = {name: self._domain(name, of) for name, of in space.search.items()}
        fidelity = neps.HPOInteger(1, space.budget.epochs, is_fidelity=True)
        made = neps.SearchSpace({**parameters, "epochs": fidelity})
        self._optimizer = neps.AskAndTell(neps.algorithms.priorband(made, base="async_hb"))
        self._roots: dict[str, str] = {}  # its trial → the one whose training it goes on with
        self._running: dict[str, Any] = {}

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """A new configuration, or one that is promoted."""
        if len(set(self._roots.values())) > self._space.budget.trials:
            return None
        trial = self._optimizer.ask()
        before = trial.metadata.previous_trial_id
        root = self._roots[before] if before else trial.metadata.id
        new = root not in self._roots.values()
        if new and len(set(self._roots.values())) == self._space.budget.trials:
            self._roots[trial.metadata.id] = root
            return None
        self._roots[trial.metadata.id] = root
        self._running[root] = trial
        values = trial.config
        return root, self._space.parameters(self._space.suggest(lambda name, of: values[name]))  # noqa: ARG005

    def told(self, number: str, report: dict[str, Any]) -> str:
        """It asks for what a trial has after so many epochs."""
        trial = self._running[number]
        if not report["ending"] and report["epoch"] < trial.config["epochs"]:
            return GO_ON
        value = report["objective"] if math.isfinite(report["objective"]) else 0.0
        self._optimizer.tell(trial.metadata.id, {"objective_to_minimize": 1 - value, "cost": report["epoch"]})
        return PAUSE

    def _domain(self, name: str, of: Any) -> Any:
        """One parameter, as NePS has it."""
        told: dict[str, Any] = {"prior": self.PRIOR[name], "prior_confidence": "medium"}
        match of:
            case CategoricalDistribution():
                return neps.HPOCategorical(list(of.choices), **told)
            case IntDistribution():
                return neps.HPOInteger(of.low, of.high, **{**told, "prior": (of.low + of.high) // 2})
            case FloatDistribution():
                return neps.HPOFloat(of.low, of.high, log=of.log, **told)
        raise TypeError(of)
