"""Pretrained networks: constructor, weights, preprocessing and blocks of any `keras.applications` class by its name,
of the built-in `tiny`, and of a user's own `.keras` file. The classes of Keras are found, not listed by hand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from search.backbone import blocks, graph, modelfile, sources
from search.backbone.blocks import Block
from search.errors import BackboneError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

_WEIGHT_SUFFIXES = (".h5", ".keras")


class Source(NamedTuple):
    """What a backbone is made from.

    Attributes:
        name: one of `names()`, or the path of a `.keras` file.
        weights: `imagenet`, `own`, `none` or the path of a weights file.
        image_size: height and width in pixels; 0: the size the backbone was made for.
        precision: a Keras dtype policy.
    """

    name: str
    weights: str
    image_size: int
    precision: str = "float32"


@dataclass(frozen=True)
class Backbone:
    """A network and where it can be cut.

    Attributes:
        name: as requested.
        network: from preprocessed images (batch, size, size, 3) to features (batch, height, width, channels) or
            (batch, channels). It has no nested models, and all its layers are trainable.
        blocks: from input to output; together they hold every layer exactly once.
        preprocess: from raw RGB pixels in [0, 255] to the input of the network; made of Keras's own layers.
        cuts: the tensor of `network` at which each block ends.
        left_off: the names of the layers that only augment images; see `graph.flatten`.
    """

    name: str
    network: keras.Model
    blocks: tuple[Block, ...]
    preprocess: keras.Model
    cuts: tuple[keras.KerasTensor, ...] = field(repr=False)
    left_off: tuple[str, ...] = ()


def names() -> list[str]:
    """The backbones known by name; Keras is not imported."""
    return sources.names()


def default_weights(name: str) -> str:
    """The weights that a backbone has if nothing else is asked for: `imagenet`, or `own` if it has its own."""
    kind = sources.of(name)
    return kind.weights if kind else "imagenet"


def check(name: str, weights: str) -> list[str]:
    """The faults of a request that can be seen without importing Keras.

    Args:
        name: one of `names()`, or the path of a `.keras` file.
        weights: `imagenet`, `own`, `none` or the path of a weights file.
    """
    if not (kind := sources.of(name)):
        return [modelfile.other_kind(name) or unknown("backbone", name, names())]
    return kind.faults(name) + _weights_faults(name, weights)


def _weights_faults(name: str, weights: str) -> list[str]:
    default = default_weights(name)
    if weights in {default, "none"}:
        return []
    allowed = f"allowed are '{default}', 'none' and a file ending in .weights.h5, .h5 or .keras"
    if weights in {"imagenet", sources.OWN}:
        return [f"there are no '{weights}' weights for backbone '{name}'; {allowed}"]
    if not weights.endswith(_WEIGHT_SUFFIXES):
        return [f"unknown weights '{weights}'; {allowed}"]
    return modelfile.faults("weights", Path(weights))


def load(name: str, weights: str, image_size: int) -> Backbone:
    """Build a backbone with its weights, for square images of one size.

    Random weights (`none`) are the same in every process, so that all can use features computed by one of them.

    Args:
        name: one of `names()`, or the path of a `.keras` file.
        weights: `imagenet`, `own`, `none` or the path of a weights file.
        image_size: height and width in pixels.

    Raises:
        BackboneError: names every fault that was found.
    """
    if faults := check(name, weights):
        raise BackboneError(faults)
    network, preprocess = sources.build(name, weights, image_size)
    with sources.refusal(f"backbone '{name}' cannot take images of {image_size} pixels"):
        network, calls, left_off = graph.flatten(network, image_size)
    if sources.known(name).whole:
        network, calls = graph.without_classifier(network, calls)
    network.trainable = True
    ends = blocks.find(calls)
    cuts = tuple(calls[end].outputs[0] for end in ends)
    return Backbone(name, network, blocks.name(network, calls, ends), preprocess, cuts, tuple(left_off))


def between(backbone: Backbone, start: int, end: int) -> keras.Model:
    """The part of a backbone between two cuts, as a model that shares its layers and weights.

    Nothing is made trainable or frozen. To keep batch normalisation in inference mode, pass `training=False` when the
    model is called, as in the `call` of a subclassed model: while a functional model is fitted, Keras 3.15 overrides
    the value that is stored in its graph (keras-team/keras#23364).

    Args:
        backbone: what to cut.
        start: the cut where the part starts, 0 to `len(backbone.blocks)`: the number of blocks before it. At 0 the
            part takes preprocessed images.
        end: the cut where it ends, `start` or later; if both are the same, the model returns its input.

    Raises:
        ValueError: `start` and `end` are not two cuts in order.
    """
    import keras

    if not 0 <= start <= end <= len(backbone.blocks):
        raise ValueError(f"{start} and {end} are not two of the cuts 0 to {len(backbone.blocks)}, in order")
    tensors = [backbone.network.inputs[0], *backbone.cuts]
    first, last = tensors[start], tensors[end]
    if start == end:
        first = keras.Input(first.shape[1:], dtype=first.dtype)
        last = keras.layers.Identity()(first)
    return keras.Model(first, last, name=f"blocks_{start}_to_{end}")


def prefix(backbone: Backbone, cuts: Sequence[int]) -> keras.Model:
    """A model from raw images (batch, size, size, 3) to a list of the features at each cut, counted as in `between`."""
    import keras

    inner = keras.Model(backbone.network.inputs[0], [backbone.cuts[cut - 1] for cut in cuts])
    images = keras.Input(backbone.network.input_shape[1:], dtype="uint8", name="images")
    found, last = inner(prepared(backbone, images)), len(backbone.blocks)
    return without_xla(keras.Model(images, [pool(x) if cut == last else x for cut, x in zip(cuts, found, strict=True)]))


def without_xla(model: Any) -> Any:
    """The same model with XLA off: on a GPU, Keras would compile it with XLA, which takes half a minute per model."""
    model.jit_compile = False
    return model


def prepared(backbone: Backbone, images: Any) -> Any:
    """Preprocess raw images, of any numeric dtype, for the network."""
    import keras

    return backbone.preprocess(keras.ops.cast(images, "float32"))


def pool(x: Any) -> Any:
    """The mean of a feature map over height and width; a tensor without these axes is returned unchanged."""
    import keras

    return keras.layers.GlobalAveragePooling2D(dtype="float32")(x) if len(x.shape) == 4 else x


def describe(backbone: Backbone) -> dict[str, Any]:
    """What a search must know about a backbone, as data for JSON.

    Returns:
        `image_size`, in pixels; `blocks`, their names from input to output; `parameters`, the number of trainable
        parameters of each block; `multiplications`, of each block for one image; `shapes`, of one image's tensor at
        the end of each block, for the last block after pooling; `left_off`, the names of the layers that only augment
        images; `identity`, SHA-256 in hex over everything that determines the backbone's output.
    """
    import keras

    layers = {layer.name: layer for layer in backbone.network.layers}
    parts = [[layers[layer] for layer in block.layers] for block in backbone.blocks]
    shapes = [list(cut.shape[1:]) for cut in backbone.cuts]
    made_of = [*map(_structure, (backbone.network, backbone.preprocess)), _hash(backbone.network), keras.version()]
    return {
        "image_size": backbone.network.input_shape[1],
        "blocks": [block.name for block in backbone.blocks],
        "parameters": [graph.parameters(part) for part in parts],
        "multiplications": [sum(map(graph.multiplications, part)) for part in parts],
        "shapes": [*shapes[:-1], shapes[-1][-1:]],
        "left_off": list(backbone.left_off),
        "identity": hashlib.sha256("".join(made_of).encode()).hexdigest(),
    }


def _structure(network: keras.Model) -> str:
    """A network as JSON with its names replaced by numbers, because Keras numbers some names by process."""
    text = str(network.to_json())
    for number, named in enumerate([network, *network.operations]):
        text = text.replace(f'"{named.name}"', f'"{number}"')
    return text


def _hash(network: keras.Model) -> str:
    digest = hashlib.sha256()
    for values in network.get_weights():
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
