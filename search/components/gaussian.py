"""Optuna's Gaussian process sampler, adapted to stopped trials. It needs PyTorch."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial, TrialState


class Gaussian(GPSampler):
    """Optuna's Gaussian process sampler, but it also learns from stopped trials, by their last reported objective."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all complete and stopped trials have."""
        return super().infer_relative_search_space(_all_complete(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters for which the largest improvement is expected."""
        seen = _all_complete(study)
        return super().sample_relative(seen, seen.get_trials(deepcopy=False)[trial.number], search_space)


def _all_complete(study: optuna.Study) -> optuna.Study:
    """A copy of the study in which stopped trials are complete."""
    seen = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(deepcopy=False):
        reached = trial.state == TrialState.PRUNED and trial.intermediate_values
        seen.add_trial(_complete(trial) if reached else trial)
    return seen


def _complete(stopped: FrozenTrial) -> FrozenTrial:
    reached = max(stopped.intermediate_values.items())[1]
    return optuna.create_trial(value=reached, params=stopped.params, distributions=stopped.distributions)
