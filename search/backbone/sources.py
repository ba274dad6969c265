"""Where pretrained networks come from: one row for each kind of source, and what builds a network of it."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import random
import re
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.backbone import modelfile, preprocessing, tiny
from search.errors import BackboneError, unknown
from search.process import keras_folder

if TYPE_CHECKING:
    import keras

OWN = "own"
ANY_IMAGE_SIZE = 224  # pixels, for a model that takes images of any size
_DOWNLOAD_TIMEOUT_S = 10.0

_Built = tuple["keras.Model", "keras.Model"]


@dataclass(frozen=True)
class Kind:
    """One kind of source.

    Args:
        words: for people: what is given as `--backbone`.
        owns: whether a name is one of this kind. Does not import Keras.
        names: those that it knows; none for files. Does not import Keras.
        weights: the weights that its networks have if nothing else is asked for.
        faults: what is wrong with a name that can be seen without importing Keras.
        build: from name, weights and image size in pixels: the network, and its preprocessing. Raises `BackboneError`.
        image_size: the side of the images that a network was made for, in pixels. Raises `BackboneError`.
        whole: whether networks may have a classifier, which is left off.
    """

    words: str
    owns: Callable[[str], bool]
    names: Callable[[], list[str]]
    weights: str
    faults: Callable[[str], list[str]]
    build: Callable[[str, str, int], _Built]
    image_size: Callable[[str], int]
    whole: bool = False


def of(name: str) -> Kind | None:
    """The kind of source that a name belongs to; `None` if no kind knows it."""
    return next((kind for kind in KINDS.values() if kind.owns(name)), None)


def known(name: str) -> Kind:
    """The same of a name that was checked.

    Raises:
        BackboneError: no kind knows the name.
    """
    if not (kind := of(name)):
        raise BackboneError([unknown("backbone", name, names())])
    return kind


def names() -> list[str]:
    """The backbones known by name."""
    return [name for kind in KINDS.values() for name in kind.names()]


def build(name: str, weights: str, image_size: int) -> tuple[keras.Model, keras.Model]:
    """Build a network with its weights and, as a second model, its preprocessing.

    Args:
        name: a class of `keras.applications`, `tiny` or the path of a `.keras` file.
        weights: `imagenet`, `own`, `none` or the path of a weights file; already checked to be allowed for the name.
        image_size: height and width in pixels.

    Raises:
        BackboneError: the size does not fit, the weights do not fit or cannot be downloaded.
    """
    with _same_random_weights():
        network, preprocess = known(name).build(name, weights, image_size)
    if weights not in {"imagenet", OWN, "none"}:
        with refusal(f"weights file '{weights}' does not fit backbone '{name}'"), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of weights that it does not find
            network.load_weights(weights)
    return network, preprocess


def own_image_size(name: str) -> int:
    """The side of the images a network was made for, in pixels.

    Raises:
        BackboneError: the user's own model cannot be loaded, or cannot be used as a backbone.
    """
    return known(name).image_size(name)


@contextlib.contextmanager
def _same_random_weights() -> Iterator[None]:
    """A context in which Keras initialises weights with the same random values in every process.

    Keras draws the seeds of its initialisers from Python's `random`, whose state is restored afterwards. Importing
    Keras draws random numbers too, so it is imported first.
    """
    import keras  # noqa: F401

    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def refusal(what: str) -> Iterator[None]:
    """A context that turns the errors with which Keras refuses a request into a `BackboneError` of one sentence."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, UserWarning) as error:
        told = str(error).rpartition("Exception encountered: ")[2].partition(" Full object config")[0]
        reason = (told.strip() or type(error).__name__).splitlines()[0]
        raise BackboneError([f"{what}: {reason}"]) from error


def _build_tiny(name: str, weights: str, image_size: int) -> _Built:
    if image_size < tiny.MIN_IMAGE_SIZE:
        fault = f"backbone '{name}' cannot take images of {image_size} pixels: {tiny.MIN_IMAGE_SIZE} are the least"
        raise BackboneError([fault])
    network = tiny.build(image_size)
    if weights == OWN:
        network.load_weights(tiny.WEIGHTS)
    return network, preprocessing.affine(tiny.SCALE, tiny.OFFSET)


def _build_application(name: str, weights: str, image_size: int) -> _Built:
    """A network of `keras.applications`, and the `preprocess_input` of its module as a model."""
    import keras

    constructor = getattr(keras.applications, name)
    module = getattr(keras.applications, constructor.__module__.rpartition(".")[2])
    source = weights if weights == "imagenet" else None
    what = f"Keras refuses backbone '{name}' with weights '{weights}' and images of {image_size} pixels"
    with _download(name), refusal(what), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)
        network = constructor(include_top=False, weights=source, input_shape=(image_size, image_size, 3))
    return network, preprocessing.like(module.preprocess_input)


class _Echo(io.StringIO):
    """Stores written text and copies it to standard error, because standard output is for results."""

    def write(self, text: str) -> int:
        sys.stderr.write(text)
        return super().write(text)


@contextlib.contextmanager
def _download(name: str) -> Iterator[None]:
    """A context that turns a failed download into a `BackboneError` that names the file.

    Keras prints the file's URL before it downloads; the URL is taken from there.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(_Echo()) as shown:
            yield
    except Exception as error:
        address = re.search(r"Downloading data from (\S+)", shown.getvalue())
        if address is None:
            raise
        raise BackboneError([_how_to_fetch(name, address[1], error)]) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _how_to_fetch(name: str, address: str, error: Exception) -> str:
    folder = keras_folder() / "models"
    return (
        f"the imagenet weights of '{name}' could not be downloaded ({error}): fetch {address} elsewhere, and either "
        f"put {address.rpartition('/')[2]} into {folder}, where Keras looks for it, or name it with --weights FILE"
    )


def _build_file(name: str, weights: str, image_size: int) -> _Built:
    """A user's own model; its preprocessing is the identity, because the model preprocesses its input itself."""
    import keras

    network = _load_file(name)
    height, width = network.inputs[0].shape[1:3]
    if {height, width} - {None, image_size}:
        fault = f"takes images of {height} by {width} pixels, not {image_size} by {image_size}"
        raise BackboneError([f"backbone file '{name}' {fault}"])
    if weights == "none":
        network = keras.models.clone_model(network)
    return network, preprocessing.identity()


def _load_file(name: str) -> keras.Model:
    import keras

    with refusal(f"backbone file '{name}' cannot be loaded"):
        network = keras.models.load_model(name, compile=False, safe_mode=True)
    if fault := _kind_fault(network):
        raise BackboneError([f"backbone file '{name}' {fault}"])
    return network


def _kind_fault(network: Any) -> str:
    """Why a model cannot be a backbone for RGB images; empty when it can."""
    import keras

    if not isinstance(network, keras.Function | keras.Sequential):
        return f"holds a {type(network).__name__}; a functional or sequential model is needed"
    if not network.built:
        return (
            "was saved before it knew the size of its images, and so has no weights: put keras.Input((height, width, "
            "3)) before its first layer, train it, and save it again"
        )
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4 or network.inputs[0].shape[-1] != 3:
        shapes = ", ".join(str(tensor.shape) for tensor in network.inputs)
        return f"takes {shapes}; one tensor of images (batch, height, width, 3) is needed"
    if len(network.outputs) != 1 or len(network.outputs[0].shape) not in {2, 4}:
        shapes = ", ".join(str(tensor.shape) for tensor in network.outputs)
        return f"gives {shapes}; one feature map (batch, height, width, channels) or (batch, channels) is needed"
    return ""


def _applications() -> list[str]:
    """The classes of `keras.applications`, read from Keras's source without importing it."""
    spec = importlib.util.find_spec("keras")
    folder = Path((spec.origin if spec else None) or "").parent
    tree = ast.parse((folder / "applications" / "__init__.py").read_text(encoding="utf-8"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return sorted(name for name in imported if name[0].isupper())


def _application_size(name: str) -> int:
    import keras

    return _own_size(getattr(keras.applications, name)(weights=None))


def _own_size(network: keras.Model) -> int:
    return int(network.inputs[0].shape[1] or ANY_IMAGE_SIZE)


KINDS: Mapping[str, Kind] = {
    "tiny": Kind(
        "the built-in backbone",
        owns=lambda name: name == "tiny",
        names=lambda: ["tiny"],
        weights=OWN,
        faults=lambda name: [],  # noqa: ARG005
        build=_build_tiny,
        image_size=lambda name: tiny.IMAGE_SIZE,  # noqa: ARG005
    ),
    "file": Kind(
        "the path of a saved Keras model",
        owns=lambda name: name.endswith(".keras"),
        names=list,
        weights=OWN,
        faults=lambda name: modelfile.faults("backbone", Path(name)),
        build=_build_file,
        image_size=lambda name: _own_size(_load_file(name)),
        whole=True,
    ),
    "application": Kind(
        "a class of keras.applications",
        owns=lambda name: name in _applications(),
        names=_applications,
        weights="imagenet",
        faults=lambda name: [],  # noqa: ARG005
        build=_build_application,
        image_size=_application_size,
    ),
}
