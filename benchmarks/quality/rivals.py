"""What people use instead, in the same replay: each with its own classes, on the same space, without start points."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.quality.replay import GO_ON, PAUSE, STOP
from search.parameters import sample
from search.record.states import DIVERGED
from search.space import Space

FIRST_RUNG = 2


class Optuna:
    """Optuna's own loop: ask, report, should_prune, tell; a trial that ended by itself is complete."""

    def __init__(self, space: Space, sampler: BaseSampler, pruner: BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._trials: dict[str, optuna.Trial] = {}

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """What the study asks for."""
        if len(self._trials) == self._space.budget.trials:
            return None
        trial = self._study.ask()
        self._trials[str(trial.number)] = trial
        return str(trial.number), self._space.parameters(self._space.suggest(lambda name, of: sample(trial, name, of)))

    def told(self, number: str, report: dict[str, Any]) -> str:
        """Whether it is to be pruned. Optuna users report the value of the epoch."""
        trial = self._trials[number]
        if report["ending"]:
            if math.isfinite(report["objective"]) and report["ending"] != DIVERGED:
                self._study.tell(trial, report["objective"])
            else:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return GO_ON
        trial.report(report["last_val_accuracy"], report["epoch"])
        if trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return STOP
        return GO_ON


class RayTune:
    """Ray Tune's OptunaSearch and its ASHA, as its documentation joins them."""

    def __init__(self, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        budget = space.budget
        self._space, self._begun = space, 0

        def define(trial: optuna.Trial) -> None:
            space.suggest(lambda name, of: sample(trial, name, of))

        self._search = OptunaSearch(define, metric="objective", mode="max", seed=seed)
        self._asha = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="objective",
            mode="max",
            max_t=budget.epochs,
            grace_period=FIRST_RUNG,
            reduction_factor=3,
        )

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """What OptunaSearch suggests."""
        if self._begun == self._space.budget.trials:
            return None
        number = str(self._begun)
        self._begun += 1
        return number, self._space.parameters(self._search.suggest(number))

    def told(self, number: str, report: dict[str, Any]) -> str:
        """What its ASHA says; a trial that it stops is complete for OptunaSearch."""
        ended = bool(report["ending"])
        result = {**report, "objective": report["objective"] if math.isfinite(report["objective"]) else 0.0}
        result["training_iteration"] = report["epoch"]
        self._search.on_trial_result(number, result)
        bracket = self._asha._brackets[0]
        stopped = (
            not ended and bracket.on_result(_Named(number), report["epoch"], result["objective"]) == TrialScheduler.STOP
        )
        if ended or stopped:
            self._search.on_trial_complete(number, result)
        return STOP if stopped else GO_ON


class _Named:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


class TopK:
    """One epoch of everything, then the best K to the end (Egele et al. 2023, https://arxiv.org/abs/2307.15422)."""

    def __init__(self, space: Space, seed: int, share: float = 1 / 6) -> None:
        self._inner = Optuna(space, RandomSampler(seed), NopPruner())
        self._keep = max(1, round(share * space.budget.trials))
        self._trials = space.budget.trials
        self._first: dict[str, float] = {}
        self._configurations: dict[str, Mapping[str, Any]] = {}
        self._again: list[str] | None = None

    def next(self) -> tuple[str, Mapping[str, Any]] | None:
        """New ones first; once all had their epoch, the best of them."""
        if given := self._inner.next():
            self._configurations[given[0]] = given[1]
            return given
        if len(self._first) < self._trials:
            return None
        if self._again is None:
            self._again = sorted(self._first, key=lambda one: -self._first[one])[: self._keep]
        return (one := self._again.pop(0), self._configurations[one]) if self._again else None

    def told(self, number: str, report: dict[str, Any]) -> str:
        """Paused after its first epoch."""
        if number in self._first:
            return GO_ON
        self._first[number] = report["last_val_accuracy"] if not report["ending"] else -1.0
        return PAUSE


def _keras_tuner(space: Space, seed: int) -> Any:
    from benchmarks.quality.rival_keras_tuner import Hyperband

    return Hyperband(space, seed)


def _syne_tune(method: str) -> Callable[[Space, int], Any]:
    def make(space: Space, seed: int) -> Any:
        from benchmarks.quality.rival_syne_tune import METHODS, SyneTune

        return SyneTune(METHODS[method], space, seed)

    return make


RIVALS: dict[str, Callable[[Space, int], Any]] = {
    "random": lambda space, seed: Optuna(space, RandomSampler(seed), NopPruner()),
    "Ray Tune: OptunaSearch + ASHA": RayTune,
    "Optuna: TPE + Hyperband": lambda space, seed: Optuna(
        space, TPESampler(seed=seed), HyperbandPruner(1, space.budget.epochs, 3)
    ),
    "Optuna: TPE + median": lambda space, seed: Optuna(space, TPESampler(seed=seed), MedianPruner()),
    "one epoch, then the top sixth": TopK,
}
# Of packages that the benchmark alone needs, see `quality` in pyproject.toml.
MORE: dict[str, Callable[[Space, int], Any]] = {
    "KerasTuner: Hyperband": _keras_tuner,
    "Syne Tune: ASHA": _syne_tune("ASHA"),
    "Syne Tune: ASHA + CQR": _syne_tune("ASHA + CQR"),
    "Syne Tune: BOHB": _syne_tune("BOHB"),
}
