"""The network of one trial: preprocessing, frozen prefix, trained suffix with its head."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from search.backbones import Backbone, split
from search.settings import Value

LOSS = "sparse_categorical_crossentropy"


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


@dataclass(frozen=True)
class Network:
    """A network and the part of it that is trained.

    Args:
        whole: (batch, size, size, 3) raw pixels in [0, 255] → (batch, classes) probabilities.
        suffix: the tensor at the cut point → probabilities; the blocks above the cut and the head. Only its weights
            change, so only they are saved.
        standing_alone: the same function as `whole`, from the same weights, made of Keras's own layers only.
    """

    whole: keras.Model
    suffix: keras.Model
    standing_alone: keras.Model


def build(backbone: Backbone, unfreeze_depth: int, classes: int, dropout: float) -> Network:
    """Join a backbone, of which the top `unfreeze_depth` blocks are trained, and a new head."""
    prefix, blocks = split(backbone, unfreeze_depth)
    prefix.trainable, blocks.trainable = False, True
    head = _head(blocks.output_shape[1:], classes, dropout)
    features = keras.Input(blocks.input_shape[1:], name="features")
    suffix = keras.Model(features, head(InInference(blocks)(features)), name="suffix")
    images = keras.Input(backbone.network.input_shape[1:], name="images")
    prepared = backbone.preprocess(images)
    whole = keras.Model(images, suffix(InInference(prefix)(prepared)), name="network")
    return Network(whole, suffix, keras.Model(images, head(blocks(prefix(prepared))), name="network"))


def _head(shape: tuple[int, ...], classes: int, dropout: float) -> keras.Model:
    """Features, pooled where they are a map, to probabilities."""
    features = x = keras.Input(shape, name="features")
    if len(shape) == 3:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(features, x, name="head")


def compile_for_training(network: Network, parameters: Mapping[str, Value]) -> None:
    """Compile with the optimizer that `parameters` ask for; weight decay is decoupled and spares biases and norms."""
    common = {"learning_rate": parameters["learning_rate"], "weight_decay": parameters["weight_decay"]}
    if parameters["optimizer"] == "sgd":
        optimizer = keras.optimizers.SGD(momentum=parameters["momentum"], **common)
    else:
        optimizer = keras.optimizers.Adam(**common)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    network.whole.compile(optimizer=optimizer, loss=LOSS, metrics=["accuracy"], jit_compile=False)
    optimizer.build(network.whole.trainable_variables)


def export(network: Network, path: Path) -> keras.Model:
    """Write the network as a model that stands alone, and return it as plain Keras loads it.

    It is compiled, so that it can be evaluated; plain SGD has no state, for whose lack Keras would warn on loading.
    """
    network.standing_alone.compile(optimizer="sgd", loss=LOSS, metrics=["accuracy"])
    network.standing_alone.save(path)
    return keras.models.load_model(path)
