"""The optimizers, one row each.

All follow a schedule. Weight decay is decoupled, and is not applied to biases and normalisation layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search.component import Component
from search.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Optimizer(Component):
    """One optimizer.

    Args:
        build: returns a Keras optimizer, from one variable per parameter, so that another value needs no new trace. The
            caller sets its learning rate and weight decay. It imports Keras only when called.
    """

    build: Callable[[Mapping[str, Any]], Any]


def _adam(variables: Mapping[str, Any]) -> Any:  # noqa: ARG001
    from search.components.scheduled import Adam

    return Adam()


def _sgd(variables: Mapping[str, Any]) -> Any:
    from search.components.scheduled import Momentum

    return Momentum(variables["momentum"])


def _of_keras(name: str) -> Callable[[Mapping[str, Any]], Any]:
    def build(variables: Mapping[str, Any]) -> Any:  # noqa: ARG001
        import keras

        return getattr(keras.optimizers, name)()

    return build


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adam": Optimizer("Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980)", build=_adam),
    "adamw": Optimizer("the same by its name with weight decay (https://arxiv.org/abs/1711.05101)", build=_adam),
    "sgd": Optimizer(
        "stochastic gradient descent with momentum",
        {"momentum": Setting("of sgd", 0.9, low=0, high=1, searchable=True)},
        build=_sgd,
    ),
    "rmsprop": Optimizer("RMSprop (Tieleman and Hinton 2012)", build=_of_keras("RMSprop")),
    "nadam": Optimizer("Adam with Nesterov momentum (Dozat 2016)", build=_of_keras("Nadam")),
    "lion": Optimizer(
        "Lion (Chen et al. 2023, https://arxiv.org/abs/2302.06675): a tenth of Adam's rate", build=_of_keras("Lion")
    ),
}
