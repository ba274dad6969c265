"""One model from several: the mean of their weights, of as many as make it better.

The greedy soup of Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time" (https://arxiv.org/abs/2203.05482). Trials of one search begin with the same backbone
and the same probe's head, so that their weights can be averaged, across unfreeze depths too. What helps is told by the
loss, for a few hundred images hardly tell accuracies apart; but no mean is taken whose objective is below that of the
best model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from search.cache import Array

Name = TypeVar("Name")
Weights = Sequence[Array]


class Judged(NamedTuple):
    """What a model is worth, on the validation images.

    Args:
        objective: of the search, the higher the better.
        figures: all metrics.
    """

    objective: float
    loss: float
    figures: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Soup(Generic[Name]):
    """A mean of weights.

    Args:
        names: of what is in it, the first one's first.
        weights: the mean.
        worth: what the judge says of it.
    """

    names: tuple[Name, ...]
    weights: list[Array]
    worth: Judged


def greedy(
    best: tuple[Name, Weights],
    others: Iterable[tuple[Name, Weights]],
    judge: Callable[[Weights], Judged],
) -> tuple[Soup[Name], Soup[Name]]:
    """Add one model after the other to the mean, and keep each that makes its loss less.

    Args:
        best: name and weights of the best model, which is always in it.
        others: likewise, the better ones first; each is asked for once.
        judge: what a model with such weights is worth.

    Returns:
        The best model alone, and the last of the means whose objective is no less; where there is none, the same again.
    """
    name, weights = best
    alone = mean = taken = Soup((name,), [np.asarray(each) for each in weights], judge(weights))
    for name, weights in others:
        count = len(mean.names)
        mixed = [_mean(each, np.asarray(added), count) for each, added in zip(mean.weights, weights, strict=True)]
        worth = judge(mixed)
        if worth.loss < mean.worth.loss:
            mean = Soup((*mean.names, name), mixed, worth)
            if worth.objective >= alone.worth.objective:
                taken = mean
    return alone, taken


def _mean(mean: Array, added: Array, count: int) -> Array:
    """The mean of `count` values with one more; what is no number with a fraction stays."""
    if not np.issubdtype(mean.dtype, np.floating):
        return mean
    return np.asarray(mean + (added - mean) / (count + 1), mean.dtype)
