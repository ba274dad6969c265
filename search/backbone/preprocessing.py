"""Converts raw RGB pixels in [0, 255] to a network's input, with plain Keras layers that can be saved with it."""

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
    """A model that returns the pixels unchanged."""
    import keras

    pixels = _pixels()
    return keras.Model(pixels, keras.layers.Identity()(pixels), name="preprocess")


def affine(scale: float | list[float], offset: float | list[float], flipped: bool = False) -> keras.Model:
    """A model that scales and offsets each channel, then reverses their order if `flipped`.

    Its input and output are (batch, height, width, 3).
    """
    import keras

    pixels = _pixels()
    values = keras.layers.Rescaling(scale, offset)(pixels)
    return keras.Model(pixels, keras.ops.flip(values, axis=-1) if flipped else values, name="preprocess")


def _pixels() -> keras.KerasTensor:
    import keras

    return keras.Input((None, None, 3), dtype="float32", name="pixels")


def like(preprocess_input: Callable[[Images], Any]) -> keras.Model:
    """A model that does the same as a `preprocess_input` of `keras.applications`, found by probing that function.

    Each of Keras's functions is an affine map of every channel, and some reverse the channels. Probing with black gives
    the offsets; probing with pure red, green and blue gives the scales and the order.

    Raises:
        BackboneError: the function is not of this form.
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
