"""The floor: what the arithmetic alone costs, on one core.

    python -m benchmarks.rivals.floor WORKLOAD.json OUT.json

One process and one thread. The features at every cut point lie in memory, and one function per unfreeze depth, which
holds a whole epoch and its validation, is traced already: neither is counted. No Ray, no logging, no callback, no
file. What is counted, in the processor's seconds: every given configuration trained for all epochs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.rivals.log import Log, arguments, grid
from search.backbone.backbones import Backbone, load

Data = dict[str, tuple[Any, Any]]


@dataclass
class Suffix:
    """What is trained at one unfreeze depth: the features it reads, an epoch as one function, what resets it."""

    epoch: Callable[[Any], Any]
    network: keras.Model
    optimizer: keras.optimizers.Optimizer
    begin: list[Any]
    images: int

    def train(self, learning_rate: float, epochs: int, seed: int, log: Log) -> None:
        """Train one configuration from the beginning."""
        self.network.set_weights(self.begin)
        for variable in self.optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        self.optimizer.learning_rate.assign(learning_rate)
        random = np.random.default_rng(seed)
        for _ in range(epochs):
            log.epoch(float(self.epoch(tf.constant(random.permutation(self.images)))))


def features(prefix: keras.Model, backbone: Backbone, pooled: bool, workload: dict[str, Any]) -> Data:
    """What the frozen blocks make of the images: split → (features, labels)."""
    size, data = workload["image_size"], {}
    for part in ("train", "val"):
        images = keras.utils.image_dataset_from_directory(
            f"{workload['data']}/{part}", image_size=(size, size), shuffle=False, verbose=False
        )
        batches = [(prefix(backbone.preprocess(pixels), training=False), labels) for pixels, labels in images]
        values, labels = (tf.concat(parts, axis=0) for parts in zip(*batches, strict=True))
        data[part] = (tf.reduce_mean(values, [1, 2]) if pooled else values, labels)
    return data


def suffix(backbone: Backbone, depth: int, workload: dict[str, Any]) -> Suffix:
    """Build what is trained at one depth, with its features, and trace it."""
    tensors = [*backbone.network.inputs, *backbone.cuts]
    cut = tensors[-1 - depth]
    data = features(keras.Model(tensors[0], cut), backbone, depth == 0, workload)
    keras.utils.set_random_seed(workload["seed"])
    inputs = keras.Input(data["train"][0].shape[1:])
    pooled = keras.layers.GlobalAveragePooling2D()(keras.Model(cut, tensors[-1])(inputs)) if depth else inputs
    network = keras.Model(inputs, keras.layers.Dense(workload["classes"])(pooled))
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    epoch = epoch_function(network, optimizer, data, workload["batch_size"])
    begin, images = network.get_weights(), len(data["train"][1])
    epoch(tf.range(images, dtype=tf.int64))
    return Suffix(epoch, network, optimizer, begin, images)


def epoch_function(network: keras.Model, optimizer: Any, data: Data, batch_size: int) -> Callable[[Any], Any]:
    """One epoch over the rows in the order given, as one graph; gives the validation accuracy after it."""
    (train, train_labels), (val, val_labels) = data["train"], data["val"]
    variables = [variable.value for variable in network.trainable_variables]

    @tf.function(jit_compile=False, reduce_retracing=True)
    def epoch(order: Any) -> Any:
        for start in tf.range(0, len(train_labels), batch_size):
            rows = order[start : start + batch_size]
            labels = tf.gather(train_labels, rows)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                logits = network(tf.gather(train, rows), training=False)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(losses)
            optimizer.apply(tape.gradient(loss, variables), network.trainable_variables)
        right = 0
        for start in tf.range(0, len(val_labels), batch_size):
            found = tf.argmax(network(val[start : start + batch_size], training=False), axis=1, output_type=tf.int32)
            right += tf.reduce_sum(tf.cast(found == val_labels[start : start + batch_size], tf.int32))
        return right / len(val_labels)

    return epoch


def main() -> None:
    """Train the configurations of the workload one after another."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    workload, out = arguments(__doc__)
    backbone = load(workload["backbone"], workload["weights"], workload["image_size"])
    log, by_depth, total = Log(), {}, 0.0
    for depth in workload["unfreeze_depths"]:
        prepared = suffix(backbone, depth, workload)
        configurations = [one for one in grid(workload) if one["unfreeze_depth"] == depth]
        began = time.process_time()
        for configuration in configurations:
            log.begin(configuration)
            prepared.train(configuration["learning_rate"], workload["epochs"], workload["seed"], log)
            log.end()
        seconds = time.process_time() - began
        by_depth[depth], total = seconds / (len(configurations) * workload["epochs"]), total + seconds
    log.write(out, core_seconds=total, epoch_core_seconds=by_depth)


if __name__ == "__main__":
    main()
