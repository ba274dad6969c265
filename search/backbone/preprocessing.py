"""From raw RGB pixels in [0, 255] to what a network wants, as plain Keras layers that can be saved with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import BackboneError

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    Images = NDArray[np.float64]

_TOLERANCE = 1e-4


def identity() -> keras.Model:
    """Hands the pixels on."""
    import keras

    pixels = _pixels()
    return keras.Model(pixels, keras.layers.Identity()(pixels), name="preprocess")


def affine(scale: float | list[float], offset: float | list[float], flipped: bool = False) -> keras.Model:
    """Scale and offset each channel, then reverse the channels if `flipped`; (batch, height, width, 3) in and out."""
    import keras

    pixels = _pixels()
    values = keras.layers.Rescaling(scale, offset)(pixels)
    return keras.Model(pixels, keras.ops.flip(values, axis=-1) if flipped else values, name="preprocess")


def _pixels() -> keras.KerasTensor:
    import keras

    return keras.Input((None, None, 3), dtype="float32", name="pixels")


def like(preprocess_input: Callable[[Images], Any]) -> keras.Model:
    """The layers that do what a `preprocess_input` of `keras.applications` does, found by probing it.

    Every one that Keras has is an affine map of each channel, some with the channels reversed: black gives the
    offsets; full red, green and blue give the scales and the order.

    Raises:
        BackboneError: the function is of another form.
    """
    probes = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).reshape(4, 1, 1, 3)
    offset, *responses = np.asarray(preprocess_input(probes.copy())).reshape(4, 3)
    slopes = (np.array(responses) - offset) / 255
    flipped = bool(abs(slopes[0, 2]) > abs(slopes[0, 0]))
    order = slice(None, None, -1 if flipped else 1)
    scale, offset = np.diag(slopes[:, order]), offset[order]
    _verify(preprocess_input, scale, offset, order)
    return affine(scale.tolist(), offset.tolist(), flipped)


def _verify(preprocess_input: Callable[[Images], Any], scale: Images, offset: Images, order: slice) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3))
    difference = np.abs((pixels * scale + offset)[..., order] - preprocess_input(pixels.copy())).max()
    if not difference < _TOLERANCE:
        fault = f"{preprocess_input.__module__}.preprocess_input is not a scale, an offset and an order of channels"
        raise BackboneError([fault])
