"""What a search needs of Optuna that Optuna does not promise."""

from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


def frozen(study: Study, trial: Trial) -> FrozenTrial:
    """A trial as its study has it now; it is not copied."""
    found: FrozenTrial = study._storage.get_trial(trial._trial_id)
    return found


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is one that a distribution can give."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False
