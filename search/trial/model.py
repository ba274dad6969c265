"""The network of a trial: what is frozen, the suffix that is trained, and how it is made new for the next trial."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from search.backbone.backbones import Backbone, between, pool, prepared
from search.cache import Array
from search.component import Component
from search.components.losses import class_weights
from search.components.scheduled import scheduled
from search.components.schedules import factors
from search.components.tables import Parts
from search.features import IMAGES, Start
from search.setting import Values
from search.task.task import Target
from search.trial.batches import STEPS_PER_EXECUTION, Fitted, Split


class InInference(keras.layers.Layer):  # type: ignore[misc]
    """A part of the backbone, in inference mode also while the network around it is trained.

    So batch normalisation keeps the statistics of the pretraining data, and the backbone's own dropout is off, in the
    prefix and in the suffix alike (https://keras.io/guides/transfer_learning/). The mode must be set inside a layer's
    `call`: one that is given while a functional model is put together gives way to that of the whole model.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network

    def call(self, x: Any) -> Any:
        """(batch, …) as the network takes it → (batch, …) as it gives it."""
        return self.network(x, training=False)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> Any:
        """The network's own."""
        return self.network.compute_output_shape(shape)


class Dropout(keras.layers.Layer):  # type: ignore[misc]
    """Dropout (Srivastava et al. 2014) whose rate, in [0, 1), is a variable: another one needs no new trace."""

    def __init__(self) -> None:
        super().__init__(name="dropout")
        self.rate = self.add_weight(shape=(), initializer="zeros", trainable=False, autocast=False, name="rate")
        self.numbers = keras.random.SeedGenerator(0)

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, channels) → the same, in training with some values zero and the others larger."""
        if not training:
            return x
        kept = keras.random.uniform(keras.ops.shape(x), seed=self.numbers) >= self.rate
        return keras.ops.where(kept, x / (1.0 - keras.ops.cast(self.rate, x.dtype)), keras.ops.zeros_like(x))


class Mixup(keras.layers.Layer):  # type: ignore[misc]
    """Mixes each image's features with those of another one of its batch, in training, by one share for the batch.

    Mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412), at the trial's cut as in manifold mixup (Verma et al.
    2019, https://arxiv.org/abs/1806.05236), so that features that are kept are mixed as those that are not.

    Attributes:
        share: of an image's own features, of the step that is being traced.
    """

    def __init__(self) -> None:
        super().__init__(name="mixup")
        self.alpha = self.add_weight(shape=(), initializer="ones", trainable=False, autocast=False, name="alpha")
        self.numbers = keras.random.SeedGenerator(0)
        self.share: Any = None

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, …) → the same."""
        if not training:
            return x
        self.share = keras.random.beta((), self.alpha, self.alpha, seed=self.numbers)
        share = keras.ops.cast(self.share, x.dtype)
        return share * x + (1 - share) * keras.ops.flip(x, 0)


@dataclass(frozen=True)
class Network:
    """A compiled network and the part of it that is trained.

    Args:
        fitted: what is at the start cut → (batch, outputs); fitted to step numbers.
        suffix: the tensor at the trial's cut → the same: the blocks above the cut, and the head. Only its
            weights change, so only they are saved.
        dropout: the layer that gets the pooled features.
        hidden: the head's layers after it.
        head: the last layer.
        fresh: the optimizer's variables before the first step; `None` stands for zeros.
        variables: of the parameters of loss and optimizer, by name.
        mixup: the layer that mixes what the suffix gets, where any does.
    """

    fitted: Fitted
    suffix: keras.Model
    dropout: Dropout
    hidden: tuple[keras.layers.Layer, ...]
    head: keras.layers.Dense
    fresh: tuple[Array | None, ...]
    variables: Mapping[str, keras.Variable] = field(default_factory=dict)
    mixup: Mixup | None = None

    @property
    def optimizer(self) -> Any:
        """The optimizer itself, also where mixed precision scales the loss around it."""
        return getattr(self.fitted.optimizer, "inner_optimizer", self.fitted.optimizer)

    @property
    def top(self) -> list[Any]:
        """The variables above the pooled features."""
        return [*(variable for layer in self.hidden for variable in layer.variables), self.head.kernel, self.head.bias]

    @property
    def state(self) -> list[Any]:
        """Every variable that training changes, in an order that all processes agree on.

        Those that are set from the parameters alone are left out, so that a version that sets others can go on.
        """
        set_alone = [self.optimizer.decay, self.optimizer.layer_decay, *self.variables.values()]
        known = {id(variable) for variable in set_alone}
        optimizer = [variable for variable in self.fitted.optimizer.variables if id(variable) not in known]
        mixing = [self.mixup.numbers.state] if self.mixup else []
        return [*self.weights, *optimizer, *mixing]

    @property
    def weights(self) -> list[Any]:
        """The suffix's variables that training changes."""
        return [variable for variable in self.suffix.variables if variable is not self.dropout.rate]


def build(
    backbone: Backbone, parts: Parts, values: Values, target: Target, *, start: Start, splits: tuple[Split, Split]
) -> Network:
    """Join the frozen blocks between the start and the trial's cut, the blocks that are trained, and a new head.

    Args:
        values: the trial's parameters.
        target: what is predicted.
        start: where the features come from.
        splits: what is trained on, and what is validated on.
    """
    unfreeze_depth = values.whole("unfreeze_depth")
    cut = len(backbone.blocks) - unfreeze_depth
    trained = between(backbone, cut, len(backbone.blocks))
    features = keras.Input(_shape(backbone, cut), dtype=trained.inputs[0].dtype, name="features")
    pooled = pool(InInference(trained)(features)) if unfreeze_depth else features
    dropout, hidden = Dropout(), tuple(parts.head.build(values))
    head = keras.layers.Dense(
        target.outputs, activation=target.task.activation, dtype="float32", name=target.task.output
    )
    suffix = keras.Model(features, head(through(hidden, dropout(pooled))), name="suffix")
    given = keras.Input(start.shape, dtype=start.dtype, name="start")
    mixup = Mixup() if values["mixup"] else None
    frozen = _frozen(backbone, given, start.cut, cut)
    fitted = Fitted(given, suffix(mixup(frozen) if mixup else frozen), name="network")
    fitted.train, fitted.val = splits
    fitted.target, fitted.mixup = target, mixup
    thaw(fitted, suffix)
    variables = {**_variables(parts.loss), **_variables(parts.optimizer)}
    levels = [] if values["layer_decay"] == 1 else _levels(backbone, fitted)
    fresh = _compile(fitted, parts, variables, levels)
    return Network(fitted, suffix, dropout, hidden, head, fresh, variables, mixup)


def _levels(backbone: Backbone, fitted: Fitted) -> list[int]:
    """How many blocks each trained variable lies below the head; 0 for the head's own."""
    known: dict[int, int] = {}
    for level, block in enumerate(reversed(backbone.blocks), 1):
        layers = map(backbone.network.get_layer, block.layers)
        known |= {id(variable): level for layer in layers for variable in layer.variables}
    return [known.get(id(variable), 0) for variable in fitted.trainable_variables]


def through(layers: Sequence[keras.layers.Layer], values: Any) -> Any:
    """What layers make of values, one after the other."""
    for layer in layers:
        values = layer(values)
    return values


def _variables(component: Component) -> dict[str, keras.Variable]:
    defaults = Values({name: setting.default for name, setting in component.parameters.items()})
    return {name: keras.Variable(defaults.number(name), trainable=False, name=name) for name in component.parameters}


def thaw(fitted: Fitted, suffix: keras.Model) -> None:
    """Make the suffix trainable and nothing else; networks that share a backbone change each other's marks."""
    for layer in fitted.layers:
        layer.trainable = True  # Keras takes no mark twice, and would leave the layers inside as they are
        layer.trainable = False
    suffix.trainable = True


def _compile(
    fitted: Fitted, parts: Parts, variables: Mapping[str, Any], levels: Sequence[int]
) -> tuple[Array | None, ...]:
    optimizer = scheduled(parts.optimizer.build(variables), levels)
    spread = {"jit_compile": False, "steps_per_execution": STEPS_PER_EXECUTION}
    fitted.compile(optimizer=optimizer, loss=parts.loss.build(variables), metrics=fitted.target.task.counted, **spread)
    fitted.optimizer.build(fitted.trainable_variables)
    # Metrics make their variables when they are first used; made in a step, they would have it traced twice.
    labels = np.zeros((1, *fitted.target.label_shape))
    fitted.compute_metrics(None, labels, np.eye(1, fitted.output_shape[-1]))
    return tuple(None if len(variable.shape) else np.asarray(variable) for variable in fitted.optimizer.variables)


def _frozen(backbone: Backbone, values: Any, start: int, cut: int) -> Any:
    """What is at the cut, from what is at the start."""
    last = len(backbone.blocks)
    if start == IMAGES:
        values = prepared(backbone, values)
    if start == cut:
        return values
    found = InInference(between(backbone, start, cut))(values)
    return pool(found) if cut == last else found


def _shape(backbone: Backbone, cut: int) -> tuple[int, ...]:
    """Of one image's values at a cut; the last one is pooled."""
    if cut == IMAGES:
        return tuple(backbone.network.input_shape[1:])
    shape = tuple(backbone.cuts[cut - 1].shape[1:])
    return shape[-1:] if cut == len(backbone.blocks) else shape


def reset(
    network: Network,
    parts: Parts,
    values: Values,
    seed: int,
    top: Sequence[Array] | None,
    *,
    labels: Array,
    epochs: int,
) -> None:
    """Make all but the backbone's weights new for a trial.

    Args:
        values: the trial's parameters.
        seed: of the head's weights and of dropout.
        top: weights for `Network.top`; `None`: drawn by the seed, for the last layer as Glorot and Bengio 2010 do.
        labels: (images, …), of the training images.
        epochs: that the schedule is laid out over.
    """
    for variable, value in zip(network.top, top or _drawn(network, parts, values, seed), strict=True):
        variable.assign(value)
    network.dropout.rate.assign(values.number("dropout"))
    network.dropout.numbers.state.assign([seed, 0])
    for variable, fresh in zip(network.fitted.optimizer.variables, network.fresh, strict=True):
        variable.assign(np.zeros(variable.shape, variable.dtype) if fresh is None else fresh)
    for name, variable in network.variables.items():
        variable.assign(values.number(name))
    steps = math.ceil(len(labels) / values.whole("batch_size"))
    network.optimizer.learning_rate = values.number("learning_rate")
    network.optimizer.decay.assign(values.number("weight_decay"))
    network.optimizer.layer_decay.assign(values.number("layer_decay"))
    if network.mixup:
        network.mixup.alpha.assign(values.number("mixup"))
        network.mixup.numbers.state.assign([seed, 0])
    network.optimizer.follow(factors(parts.schedule, values, steps, epochs))
    if network.fitted.target.task.weighted:
        counts = np.bincount(labels, minlength=network.fitted.target.outputs)
        network.fitted.train.weigh(class_weights(counts, values.number("class_weight_exponent")))


def _drawn(network: Network, parts: Parts, values: Values, seed: int) -> list[Array]:
    """The head's weights, new; its own layers draw them as they do."""
    hidden: list[Array] = []
    if network.hidden:
        keras.utils.set_random_seed(seed)
        fresh = list(parts.head.build(values))
        through(fresh, keras.Input(network.hidden[0].input.shape[1:]))
        hidden = [np.array(variable) for layer in fresh for variable in layer.variables]
    kernel, bias = network.head.kernel, network.head.bias
    return [*hidden, np.array(keras.initializers.GlorotUniform(seed)(kernel.shape)), np.zeros(bias.shape, "float32")]


def whole(backbone: Backbone, network: Network) -> keras.Model:
    """The whole network as a model that stands alone, with the weights that both have now.

    It takes raw images (batch, size, size, 3) in [0, 255]. All layers are Keras's own, except those of a head that the
    space declares. It is compiled, so that it can be evaluated, with plain SGD, which has no state: Keras would warn on
    loading where the state of an optimizer is missing.
    """
    images = keras.Input(backbone.network.input_shape[1:], name="images")
    features = between(backbone, IMAGES, len(backbone.blocks))(backbone.preprocess(images))
    dropped = keras.layers.Dropout(float(network.dropout.rate), name="dropout")(pool(features))
    target, outputs = network.fitted.target, network.head(through(network.hidden, dropped))
    if target.task.scaled:
        outputs = keras.layers.Rescaling([*target.spread], [*target.mean], dtype="float32", name="scaled")(outputs)
    alone = keras.Model(images, outputs, name="network")
    alone.compile(optimizer="sgd", loss=target.task.loss, metrics=target.task.counted, jit_compile=False)
    return alone
