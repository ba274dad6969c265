"""Keras's optimizers, adapted to a search: what it varies is held in variables, and Adam and SGD are traced fast.

They update each variable with one TensorFlow operation, where Keras uses up to twenty. The arithmetic is Keras's.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from search.cache import Array
from search.internals import of_keras


class Scheduled:
    """A mixin for an optimizer whose learning rate and weight decay follow a schedule; see `schedules.factors`.

    Attributes:
        decay: the weight decay before the schedule, a variable.
        layer_decay: the ratio of a level's rate to the rate of the level before it, a variable.
        levels: the level of each trained variable, from 0; empty: all variables are at level 0.
    """

    learning_rate: Any
    iterations: Any
    decay: Any
    layer_decay: Any
    levels: Sequence[int]
    _factors: Any
    _rates: list[Any]

    def follow(self, factors: Array) -> None:
        """Set the schedule, (steps, 2); after its last step, its last row is used."""
        self._factors.assign(factors)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        row = max(0, min(int(self.iterations), len(self._factors.numpy())) - 1)
        return float(self.learning_rate) * float(self._factors.numpy()[row, 0])

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update all variables."""
        step = tf.minimum(tf.cast(self.iterations.value, "int32"), tf.shape(self._factors)[0] - 1)
        rate, decay = tf.unstack(tf.gather(self._factors, step))
        self._rates = [self.learning_rate * rate]
        for _ in range(max(self.levels, default=0)):
            self._rates.append(self._rates[-1] * self.layer_decay)
        self.weight_decay = self.decay * decay
        super().apply(grads, trainable_variables)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ARG002
        """Update one variable, with the rate of the step and of its level."""
        level = self.levels[of_keras.index(self, variable)] if self.levels else 0
        super().update_step(gradient, variable, self._rates[level])  # type: ignore[misc]


def scheduled(optimizer: Any, levels: Sequence[int] = ()) -> Any:
    """Make a Keras optimizer that is not built yet follow a schedule; return the same object.

    Args:
        levels: the level of each variable that it will train, from 0; empty: all are at level 0.
    """
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (Scheduled, kind), {})
    optimizer._factors = tf.Variable(np.ones((1, 2), "float32"), shape=(None, 2), trainable=False)
    optimizer.levels, optimizer.layer_decay = levels, keras.Variable(1.0, trainable=False, name="layer_decay")
    optimizer.decay = keras.Variable(0.0, trainable=False, name="weight_decay")
    optimizer.weight_decay = 0.0
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980)."""

    _powers: tuple[Any, Any] = (0.0, 0.0)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update all variables."""
        done = keras.ops.cast(self.iterations, "float32") + 1.0
        self._powers = keras.ops.power(self.beta_1, done), keras.ops.power(self.beta_2, done)
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        momentum, velocity = of_keras.moments(self, of_keras.index(self, variable))
        dtype = variable.dtype
        rate, first, second = (tf.cast(scalar, dtype) for scalar in (learning_rate, *self._powers))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            beta1_power=first,
            beta2_power=second,
            lr=rate,
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class Momentum(keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent whose momentum is held in a variable."""

    def __init__(self, momentum: Any) -> None:
        super().__init__(momentum=0.9)  # not 0, because Keras then keeps no velocities
        self.momentum = momentum

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[of_keras.index(self, variable)].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum.value, variable.dtype),
        )
