"""A network as a list of calls: all layers and operations in the order in which they are applied."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

SIDE = 2  # size of the axes of a test input that the layer leaves open


@dataclass(frozen=True)
class Call:
    """One call of an operation (a layer or a bare `keras.ops` operation), with its input and output tensors."""

    operation: Any
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def flatten(network: keras.Model, image_size: int) -> tuple[keras.Model, list[Call], list[str]]:
    """Rebuild a network for one image size, without nested models and with names that are the same in every process.

    Augmentation layers are left off: Keras's random layers are active by default, so a model that holds some returns
    other values at each call. The caller of the network decides the mode, training or inference.

    Args:
        network: functional or sequential, from one tensor (batch, height, width, 3) to one tensor. The result shares
            its layers and weights; layers with a number in their Keras name get a new number.
        image_size: height and width of the images, in pixels.

    Returns:
        The flat network, its calls in topological order, and the names of the layers that were left off.

    Raises:
        ValueError: from Keras, when the images are too small.
    """
    import keras

    images = keras.Input((image_size, image_size, 3), name="images")
    network = keras.Model(network.inputs[0], network.outputs[0])
    left_off: list[str] = []
    while True:
        calls: list[Call] = []
        network = keras.models.clone_model(network, images, lambda layer: layer, _recorder(calls, left_off, images))
        if not any(_is_nested(call.operation) for call in calls):
            return network, calls, left_off


def _is_nested(operation: Any) -> bool:
    import keras

    return isinstance(operation, keras.Function | keras.Sequential | keras.layers.Pipeline)


def _is_augmentation(operation: Any, given: Any) -> bool:
    """Whether a layer runs in training mode by default, and returns its input unchanged in inference mode."""
    import keras

    mode = inspect.signature(operation.call).parameters.get("training")
    if mode is None or mode.default is not True or not isinstance(given, keras.KerasTensor):
        return False
    shape = [side or SIDE for side in given.shape]
    noise = np.random.default_rng(0).integers(0, 256, shape).astype("float32")  # whole numbers: exact in half precision
    return np.array_equal(operation(noise, training=False), noise)


def _recorder(calls: list[Call], left_off: list[str], images: keras.KerasTensor) -> Any:
    """A `call_function` for `clone_model` that unpacks nested models by one level and records every call."""
    named: dict[str, Any] = {images.name: images}

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("training", None)
        if not _is_nested(operation) and _is_augmentation(operation, args[0]):
            left_off.append(operation.name)
            return args[0]
        _rename(operation, named)
        result = (operation.call if _is_nested(operation) else operation)(*args, **kwargs)
        calls.append(Call(operation, _tensors((args, kwargs)), _tensors(result)))
        return result

    return call


def _tensors(structure: Any) -> tuple[keras.KerasTensor, ...]:
    """The distinct tensors of a nested structure."""
    import keras

    found = {id(leaf): leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)}
    return tuple(found.values())


def _rename(operation: Any, named: dict[str, Any]) -> None:
    """Give an operation a free name that does not depend on what else the process has built."""
    stem = re.sub(r"_\d+$", "", operation.name)
    if stem.replace("_", "") != type(operation).__name__.lower():
        stem = operation.name
    numbered = (f"{stem}_{number}" for number in itertools.count(1))
    free = (name for name in itertools.chain([stem], numbered) if named.get(name, operation) is operation)
    operation.name = next(free)
    named[operation.name] = operation


def without_classifier(network: keras.Model, calls: list[Call]) -> tuple[keras.Model, list[Call]]:
    """Leave off a last dense layer with softmax or sigmoid, whether as its activation or as a separate operation."""
    import keras

    dense = [isinstance(call.operation, keras.layers.Dense) for call in calls]
    left_off = 0
    if _is_classifying(calls[-1].operation):
        left_off = 1 if dense[-1] else 2 * dense[-2:-1].count(True)
    if left_off in {0, len(calls)}:
        return network, calls
    calls = calls[:-left_off]
    return keras.Model(network.inputs[0], calls[-1].outputs[0]), calls


def _is_classifying(operation: Any) -> bool:
    import keras

    activations = {keras.activations.softmax, keras.activations.sigmoid}
    is_activation = type(operation).__name__ in {"Softmax", "Sigmoid"}
    return is_activation or getattr(operation, "activation", None) in activations


def parameters(operations: Iterable[Any]) -> int:
    """The number of trainable parameters of some operations; an operation that occurs twice counts once."""
    distinct = {id(operation): operation for operation in operations}.values()
    weights = [weight for operation in distinct for weight in getattr(operation, "trainable_weights", [])]
    return sum(math.prod(weight.shape) for weight in weights)


def weights(call: Call) -> list[Any]:
    """The weights of the called operation; a bare operation has none."""
    return list(getattr(call.operation, "weights", []))


def is_kernel(call: Call) -> bool:
    """Whether an operation mixes values (it has a weight matrix), not only scales them (it has only vectors)."""
    return any(len(weight.shape) > 1 for weight in weights(call))


def multiplications(layer: Any) -> int:
    """The multiplications of a layer's kernels for one image: each kernel value is used once per output position."""
    kernels = sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return int(kernels * math.prod(layer.output.shape[1:-1])) if kernels else 0
