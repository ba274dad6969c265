"""One model from several: the mean of their weights, of as many as make it better.

The greedy soup of Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time" (https://arxiv.org/abs/2203.05482). Trials of one search begin with the same backbone
and the same probe's head, so that their weights can be averaged, across unfreeze depths too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from search.cache import Array

Name = TypeVar("Name")
Value = tuple[float, float]
Weights = Sequence[Array]


@dataclass(frozen=True)
class Soup(Generic[Name]):
    """A mean of weights.

    Args:
        names: of what is in it, the first one's first.
        weights: the mean.
        value: what the judge says of it; `alone` what it says of the first one.
    """

    names: tuple[Name, ...]
    weights: list[Array]
    value: Value
    alone: Value


def greedy(
    best: tuple[Name, Weights], others: Iterable[tuple[Name, Weights]], judge: Callable[[Weights], Value]
) -> Soup[Name]:
    """Add one model after the other to the mean, and keep each that makes it better.

    Args:
        best: name and weights of the best model, which is always in it.
        others: likewise, the better ones first; each is asked for once.
        judge: the value of a model with such weights, the higher the better.
    """
    name, weights = best
    alone = judge(weights)
    soup = Soup((name,), [np.asarray(each) for each in weights], alone, alone)
    for name, weights in others:
        count = len(soup.names)
        mixed = [_mean(mean, np.asarray(each), count) for mean, each in zip(soup.weights, weights, strict=True)]
        value = judge(mixed)
        if value > soup.value:
            soup = Soup((*soup.names, name), mixed, value, alone)
    return soup


def _mean(mean: Array, added: Array, count: int) -> Array:
    """The mean of `count` values with one more; what is no number with a fraction stays."""
    if not np.issubdtype(mean.dtype, np.floating):
        return mean
    return np.asarray(mean + (added - mean) / (count + 1), mean.dtype)
