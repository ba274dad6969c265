"""Pretrained networks: constructor, weights, preprocessing and blocks of any `keras.applications` class by its name,
of the built-in `tiny`, and of a user's own `.keras` file. None is listed by hand.

`python -m search.backbones NAME WEIGHTS IMAGE_SIZE` prints `describe` as a line of JSON, so that a process that must
not import TensorFlow can ask.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import blocks, graph, networks
from search.blocks import Block
from search.errors import BackboneError, unknown

if TYPE_CHECKING:
    import keras

_WEIGHT_SUFFIXES = (".h5", ".keras")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Backbone:
    """A network and where it can be cut.

    Attributes:
        name: as it was asked for.
        network: from preprocessed images (batch, size, size, 3) to features (batch, height, width, channels) or
            (batch, channels). Its layers are flat, and all of them trainable.
        blocks: from input to output; together they hold every layer once.
        preprocess: from raw RGB pixels in [0, 255] to what the network wants; made of Keras's own layers.
        cuts: the tensor of `network` at which each block ends.
    """

    name: str
    network: keras.Model
    blocks: tuple[Block, ...]
    preprocess: keras.Model
    cuts: tuple[keras.KerasTensor, ...] = field(repr=False)


def names() -> list[str]:
    """The backbones known by name, read from Keras's source without importing it."""
    spec = importlib.util.find_spec("keras")
    folder = Path((spec.origin if spec else None) or "").parent
    tree = ast.parse((folder / "applications" / "__init__.py").read_text(encoding="utf-8"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return [*sorted(name for name in imported if name[0].isupper()), "tiny"]


def default_weights(name: str) -> str:
    """`imagenet` for a network of `keras.applications`; `own` for `tiny` and a `.keras` file, which bring theirs."""
    return networks.OWN if name == "tiny" or networks.is_file(name) else "imagenet"


def check(name: str, weights: str) -> list[str]:
    """The faults of a request that can be seen without importing Keras.

    Args:
        name: one of `names()`, or the path of a `.keras` file.
        weights: `imagenet`, `own`, `none` or the path of a weights file.
    """
    faults = []
    if networks.is_file(name):
        faults += _file_faults("backbone", Path(name))
    elif name not in names():
        return [unknown("backbone", name, names())]
    return faults + _weights_faults(name, weights)


def _weights_faults(name: str, weights: str) -> list[str]:
    default = default_weights(name)
    if weights in {default, "none"}:
        return []
    allowed = f"allowed are '{default}', 'none' and a file ending in .weights.h5, .h5 or .keras"
    if weights in {"imagenet", networks.OWN}:
        return [f"there are no '{weights}' weights for backbone '{name}'; {allowed}"]
    if not weights.endswith(_WEIGHT_SUFFIXES):
        return [f"unknown weights '{weights}'; {allowed}"]
    return _file_faults("weights", Path(weights))


def _file_faults(kind: str, path: Path) -> list[str]:
    """What can be told about a file from its first bytes."""
    if not path.is_file():
        return [f"{kind} file '{path}' does not exist"]
    if path.suffix == ".keras":
        return [] if zipfile.is_zipfile(path) else [f"{kind} file '{path}' is not a Keras model: it is no zip archive"]
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return [] if is_hdf5 else [f"{kind} file '{path}' is not an HDF5 file"]


def load(name: str, weights: str, image_size: int) -> Backbone:
    """Build a backbone with its weights, for square images of one size.

    Random weights (`none`) are the same in every process, so that features computed by one serve all.

    Args:
        name: one of `names()`, or the path of a `.keras` file.
        weights: `imagenet`, `own`, `none` or the path of a weights file.
        image_size: height and width in pixels.

    Raises:
        BackboneError: names every fault that was found.
    """
    if faults := check(name, weights):
        raise BackboneError(faults)
    network, preprocess = networks.build(name, weights, image_size)
    with networks.refusal(f"backbone '{name}' cannot take images of {image_size} pixels"):
        network, calls = graph.flatten(network, image_size)
    if networks.is_file(name):
        network, calls = graph.without_classifier(network, calls)
    network.trainable = True
    ends = blocks.find(calls)
    cuts = tuple(calls[end].outputs[0] for end in ends)
    return Backbone(name, network, blocks.name(network, calls, ends), preprocess, cuts)


def split(backbone: Backbone, unfreeze_depth: int) -> tuple[keras.Model, keras.Model]:
    """Cut a backbone in two models that share its layers and weights.

    Nothing is made trainable or frozen: the prefix is frozen by staying out of the model that is trained, the
    trainable weights of the suffix are those of the unfrozen blocks. `training=False` keeps batch normalisation in
    inference mode, but only where it is given while the model runs, as in the `call` of a subclassed model: Keras
    3.15 overrides what a functional model's graph says while that model is fitted (keras-team/keras#23364).

    Args:
        backbone: what to cut.
        unfreeze_depth: how many blocks, counted from the output, the suffix holds: 0 to `len(backbone.blocks)`.

    Returns:
        The prefix, from preprocessed images to the tensor at the cut, and the suffix, from there to the features.
        At depth 0 the suffix hands its input on; at full depth the prefix does.
    """
    if not 0 <= unfreeze_depth <= len(backbone.blocks):
        raise ValueError(f"unfreeze depth {unfreeze_depth} is not within 0 to {len(backbone.blocks)}")
    tensors = [backbone.network.inputs[0], *backbone.cuts]
    cut = tensors[len(backbone.blocks) - unfreeze_depth]
    return _between(tensors[0], cut, "prefix"), _between(cut, tensors[-1], "suffix")


def _between(start: keras.KerasTensor, end: keras.KerasTensor, name: str) -> keras.Model:
    """The part of a graph between two tensors; where they are one, a model that hands its input on."""
    import keras

    if start is end:
        start = keras.Input(start.shape[1:], dtype=start.dtype)
        end = keras.layers.Identity()(start)
    return keras.Model(start, end, name=name)


def describe(name: str, weights: str, image_size: int) -> dict[str, Any]:
    """What a search must know of a backbone, ready for JSON.

    Returns:
        `name`; `image_size`, the one asked for, or for 0 the backbone's own; `blocks`, their names from input to
        output; `parameters`, the trainable ones of each block; `weights_hash`, SHA-256 over all weights' values.

    Raises:
        BackboneError: as `load`.
    """
    if faults := check(name, weights):
        raise BackboneError(faults)
    image_size = image_size or networks.own_image_size(name)
    backbone = load(name, weights, image_size)
    layers = {layer.name: layer for layer in backbone.network.layers}
    counts = [graph.parameters(layers[layer] for layer in block.layers) for block in backbone.blocks]
    found = [block.name for block in backbone.blocks]
    return {
        "name": name,
        "image_size": image_size,
        "blocks": found,
        "parameters": counts,
        "weights_hash": _hash(backbone.network),
    }


def _hash(network: keras.Model) -> str:
    digest = hashlib.sha256()
    for values in network.get_weights():
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Print `describe` or the faults as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m search.backbones", description=main.__doc__)
    parser.add_argument("name")
    parser.add_argument("weights")
    parser.add_argument("image_size", type=int)
    request = parser.parse_args(arguments)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # nothing is computed, and a trial may need the memory
    try:
        answer = describe(request.name, request.weights, request.image_size)
    except BackboneError as error:
        answer = {"faults": error.faults}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
