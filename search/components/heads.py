"""The heads: what lies between the pooled features of the backbone and the output layer, one row each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.component import Component
from search.setting import Setting, Values


@dataclass(frozen=True, kw_only=True)
class Head(Component):
    """One head.

    Args:
        build: returns new Keras layers for the trial's parameters. The input of the first is the pooled features
            (batch, channels), after dropout; the output layer follows the last. It imports Keras only when called.
    """

    build: Callable[[Values], Sequence[Any]]


def _hidden(values: Values) -> list[Any]:
    import keras

    return [keras.layers.Dense(values.whole("head_width"), activation="relu", dtype="float32", name="hidden")]


HEADS: Mapping[str, Head] = {
    "linear": Head("the output layer alone", build=lambda values: []),  # noqa: ARG005
    "hidden": Head(
        "one hidden layer before the output layer",
        {"head_width": Setting("units of the head's hidden layer", 256, low=1, high=65536, searchable=True)},
        build=_hidden,
    ),
}
