"""The samplers, which propose configurations, one row each; every option that changes their proposals is pinned.

Conditional parameters are sampled independently of the others.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.component import Component

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True, kw_only=True)
class Sampler(Component):
    """One sampler.

    Args:
        build: returns an Optuna sampler, from a seed.
        lasting: whether its proposals form one sequence, so that one sampler must serve all trials; if not, each trial
            gets a new sampler.
    """

    build: "Callable[[int], BaseSampler]"
    lasting: bool = False


def _tpe(seed: int) -> "BaseSampler":
    from optuna.samplers import TPESampler

    pinned = {"multivariate": True, "group": False, "constant_liar": True}
    return TPESampler(**pinned, n_startup_trials=10, n_ei_candidates=24, seed=seed)  # type: ignore[arg-type]


def _random(seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _qmc(seed: int) -> "BaseSampler":
    from optuna.samplers import QMCSampler

    return QMCSampler(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)


def _gp(seed: int) -> "BaseSampler":
    from search.components.gaussian import Gaussian

    return Gaussian(seed=seed, n_startup_trials=10, deterministic_objective=False)


def _no_torch() -> list[str]:
    if importlib.util.find_spec("torch"):
        return []
    return ["sampler gp needs PyTorch: pip install 'finetune-search[gp]', or use tpe"]


SAMPLERS: Mapping[str, Sampler] = {
    "tpe": Sampler(
        "multivariate tree-structured Parzen estimator (Falkner et al. 2018, https://arxiv.org/abs/1807.01774); trials "
        "still running repel new ones",
        build=_tpe,
    ),
    "random": Sampler("chance", build=_random),
    "qmc": Sampler("scrambled Sobol points", build=_qmc, lasting=True),
    "gp": Sampler("Gaussian process, which learns from stopped trials too", missing=_no_torch, build=_gp),
}
