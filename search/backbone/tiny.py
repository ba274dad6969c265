"""The built-in backbone: a residual network of 176,000 parameters for images of 32 by 32 pixels.

Its weights, `tiny.weights.h5`, were pretrained on rendered letters by `benchmarks/tiny_backbone.py`;
`docs/tiny-backbone.md` says how much they help.

Method: He et al., "Deep Residual Learning for Image Recognition" (2016), figure 2, with three stages as in section 4.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

WEIGHTS = Path(__file__).with_name("tiny.weights.h5")
SCALE, OFFSET = 1 / 127.5, -1.0
IMAGE_SIZE = 32
MIN_IMAGE_SIZE = 16
_WIDTHS = (16, 16, 32, 32, 64, 64)


def build(image_size: int) -> keras.Model:
    """The network with random weights.

    Args:
        image_size: height and width, `MIN_IMAGE_SIZE` or more.

    Returns:
        A model from images (batch, size, size, 3) in [-1, 1] to a feature map (batch, size / 8, size / 8, 64), with
        size / 8 rounded up.
    """
    import keras

    images = keras.Input((image_size, image_size, 3))
    x = _convolution(images, _WIDTHS[0], 2, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    for number, width in enumerate(_WIDTHS, start=1):
        x = _residual(x, width, f"block{number}")
    return keras.Model(images, x, name="tiny")


def _residual(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    """Two convolutions and a shortcut; where the width grows, the resolution is halved."""
    import keras

    stride = 1 if x.shape[-1] == width else 2
    shortcut = x if stride == 1 else _convolution(x, width, stride, f"{name}_shortcut", kernel_size=1)
    x = _convolution(x, width, stride, f"{name}_1")
    x = keras.layers.ReLU(name=f"{name}_1_relu")(x)
    x = _convolution(x, width, 1, f"{name}_2")
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_out")(x)


def _convolution(x: keras.KerasTensor, width: int, stride: int, name: str, kernel_size: int = 3) -> keras.KerasTensor:
    """Convolution and batch normalisation; input and output are (batch, height, width, channels)."""
    import keras

    settings = {"strides": stride, "padding": "same", "use_bias": False, "name": f"{name}_conv"}
    x = keras.layers.Conv2D(width, kernel_size, **settings)(x)
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
