"""Adam and SGD as a search needs them: what it varies is in variables, and they are traced fast.

One operation of TensorFlow moves a variable, where Keras has up to twenty. The arithmetic is Keras's.
"""

from typing import Any

import keras
import tensorflow as tf


class Warmup:
    """Warms an optimizer's rate up: it rises linearly over the first steps, whose number is a variable.

    A high rate from the first step on destroys what a pretrained network knows before the moments of Adam, or the
    velocities, are any good (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
    """

    def __init__(self) -> None:
        self.warmup_steps = keras.Variable(0.0, trainable=False, name="warmup_steps")

    def rate(self, learning_rate: Any, done: Any) -> Any:
        """The rate of a step, from what it is once warm and the steps with it, a float."""
        return learning_rate * keras.ops.minimum(done / keras.ops.maximum(self.warmup_steps, 1.0), 1.0)


class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980) that warms up."""

    def __init__(self) -> None:
        super().__init__()
        self.warmup = Warmup()
        self._scalars: tuple[Any, Any, Any] = (0.0, 0.0, 0.0)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Move all variables."""
        done = keras.ops.cast(self.iterations, "float32") + 1.0
        powers = keras.ops.power(self.beta_1, done), keras.ops.power(self.beta_2, done)
        self._scalars = (self.warmup.rate(self.learning_rate, done), *powers)
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ARG002
        """Move one variable."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        rate, first, second = (tf.cast(scalar, dtype) for scalar in self._scalars)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=first,
            beta2_power=second,
            lr=rate,
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class Momentum(keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent that warms up. Its momentum is a variable: another one needs no new trace."""

    def __init__(self) -> None:
        super().__init__(momentum=0.9)  # not 0, for which Keras keeps no velocities
        self.momentum = keras.Variable(0.9, trainable=False, name="momentum")
        self.warmup = Warmup()
        self._rate: Any = 0.0

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Move all variables."""
        self._rate = self.warmup.rate(self.learning_rate, keras.ops.cast(self.iterations, "float32") + 1.0)
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ARG002
        """Move one variable."""
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(self._rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum.value, variable.dtype),
        )
