"""Builds a network with its weights and its preprocessing, from Keras, from the built-in `tiny` or from a file."""

from __future__ import annotations

import contextlib
import io
import random
import re
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from search.backbone import preprocessing, tiny
from search.errors import BackboneError
from search.process import keras_folder

if TYPE_CHECKING:
    import keras

OWN = "own"
ANY_IMAGE_SIZE = 224  # pixels, for a model that takes images of any size
_DOWNLOAD_TIMEOUT_S = 10.0


def is_file(name: str) -> bool:
    """Whether a backbone's name is the path of a user's own model."""
    return name.endswith(".keras")


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
        network, preprocess = _builder(name)(name, weights, image_size)
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
    import keras

    if name == "tiny":
        return tiny.IMAGE_SIZE
    network = _load_file(name) if is_file(name) else getattr(keras.applications, name)(weights=None)
    return int(network.inputs[0].shape[1] or ANY_IMAGE_SIZE)


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


_Built = tuple["keras.Model", "keras.Model"]


def _builder(name: str) -> Callable[[str, str, int], _Built]:
    """The function that builds network and preprocessing from a name, weights and an image size."""
    if is_file(name):
        return _build_file
    return _build_tiny if name == "tiny" else _build_application


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
