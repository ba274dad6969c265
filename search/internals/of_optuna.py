"""What a search needs from Optuna that is not part of Optuna's public API."""

from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


def frozen(study: Study, trial: Trial) -> FrozenTrial:
    """The present state of a trial in its study; it is not copied."""
    found: FrozenTrial = study._storage.get_trial(trial._trial_id)
    return found


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution contains a value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False
