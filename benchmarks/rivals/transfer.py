"""Transfer learning as Keras's own guides show it; every rival trains this.

Images with `image_dataset_from_directory`, preprocessing and a partly frozen backbone with a new head in one model
(https://keras.io/guides/transfer_learning/), layers unfrozen by name with batch normalisation left frozen, so that it
runs in inference mode (https://keras.io/examples/vision/image_classification_efficientnet_fine_tuning/).
"""

from typing import Any

import keras
import tensorflow as tf


def use_threads(count: int) -> None:
    """Give TensorFlow so many threads; before anything is computed."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def images(workload: dict[str, Any]) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """The training and the validation images, read once and then kept in memory."""
    size = (workload["image_size"], workload["image_size"])
    common = {"image_size": size, "batch_size": workload["batch_size"], "seed": workload["seed"], "verbose": False}
    train, val = (
        keras.utils.image_dataset_from_directory(f"{workload['data']}/{split}", **common) for split in ("train", "val")
    )
    return train.cache().prefetch(tf.data.AUTOTUNE), val.cache().prefetch(tf.data.AUTOTUNE)


def model(workload: dict[str, Any], unfreeze_depth: int, learning_rate: float) -> keras.Model:
    """A compiled model: raw pixels to class probabilities."""
    base, preprocess = backbone(workload["backbone"], workload["image_size"])
    base.load_weights(workload["weights"])
    unfrozen = workload["layers"][unfreeze_depth]
    base.trainable = True
    for layer in base.layers:
        layer.trainable = layer.name in unfrozen and not isinstance(layer, keras.layers.BatchNormalization)
    inputs = keras.Input(base.input_shape[1:])
    x = base(preprocess(inputs), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(workload["classes"], activation="softmax")(x)
    whole = keras.Model(inputs, outputs)
    whole.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return whole


def backbone(name: str, size: int) -> tuple[keras.Model, Any]:
    """A network without its weights, and what turns raw pixels into what it takes."""
    if name == "tiny":
        from search.backbone import tiny

        return tiny.build(size), keras.layers.Rescaling(tiny.SCALE, tiny.OFFSET)
    module = {"MobileNetV2": "mobilenet_v2", "ResNet50": "resnet50"}[name]
    constructor = getattr(keras.applications, name)
    network = constructor(include_top=False, weights=None, input_shape=(size, size, 3))
    return network, getattr(keras.applications, module).preprocess_input


def callbacks(workload: dict[str, Any]) -> list[keras.callbacks.Callback]:
    """A lower rate on a plateau, an end when nothing gets better; the checkpoints are each tool's own affair."""
    watched = {"monitor": "val_accuracy", "mode": "max"}
    return [
        keras.callbacks.ReduceLROnPlateau(
            patience=workload["plateau_patience"], factor=workload["plateau_factor"], **watched
        ),
        keras.callbacks.EarlyStopping(patience=workload["stop_patience"], **watched),
    ]
