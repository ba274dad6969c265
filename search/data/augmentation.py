"""Fixed random views of images: augmentation whose result can be cached, because a view never changes.

View 0 is the image itself. Every other view is one random flip, shift, rotation, zoom and contrast, drawn once for
(seed, view, image). It depends neither on the image's place in the dataset nor on the other images of its batch.

The distortions are those of Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks Applied to
Visual Document Analysis" (ICDAR 2003), and of Keras's layers RandomFlip, RandomTranslation, RandomRotation, RandomZoom
and RandomContrast (https://keras.io/guides/preprocessing_layers/), which draw them anew in every epoch.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CONTRAST", "ROTATION", "SHIFT", "ZOOM", "view"]

SHIFT = 0.1  # at most this share of the side, left or right and up or down
ROTATION = 10.0  # at most this many degrees, in either direction
ZOOM = 0.1  # the content becomes larger or smaller by at most this share
CONTRAST = 0.2  # distances from the image's mean grow or shrink by at most this share

Pixels = NDArray[np.uint8]


def view(images: Pixels, digests: Sequence[str], number: int, seed: int) -> Pixels:
    """One view of each image.

    The transform of an image is drawn from `np.random.default_rng([seed, number, first 16 hex digits of its digest])`,
    with the digits as one integer, so images with the same content have the same views. Other versions of Pillow, which
    interpolates, or NumPy, which draws, may give other bytes: store both versions with the views.

    Args:
        images: (n, size, size, 3), uint8, in [0, 255].
        digests: SHA-256 in hex of each image's content, n of them.
        number: which view, 0 or more; 0 is the images as they are.
        seed: 0 or more; another seed gives other views.

    Returns:
        (n, size, size, 3), uint8, in [0, 255]; for view 0 the given array itself, not a copy.
    """
    if number == 0:
        return images
    size = images.shape[1]
    views = np.empty(images.shape, np.uint8)
    for row, (image, digest) in enumerate(zip(images, digests, strict=True)):
        generator = np.random.default_rng([seed, number, int(digest[:16], 16)])
        flip, right, down, turn, zoom, contrast = generator.uniform(-1, 1, 6).tolist()
        matrix, margin = _placed(size, flip < 0, (SHIFT * right, SHIFT * down), ROTATION * turn, 1 + ZOOM * zoom)
        wanted = np.arange(-margin, size + margin) % (2 * size)
        mirrored = np.minimum(wanted, 2 * size - 1 - wanted)  # …, 1, 0, 0, 1, …, size - 1, size - 1, …
        larger = Image.fromarray(image.take(mirrored, axis=1).take(mirrored, axis=0))
        moved = larger.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        views[row] = _contrast_table(1 + CONTRAST * contrast, float(image.mean())).take(np.asarray(moved))
    return views


def _placed(
    size: int, flip: bool, shift: tuple[float, float], degrees: float, zoom: float
) -> tuple[tuple[float, ...], int]:
    """The affine map from a view to the image with a margin around it, and the width of this margin in pixels.

    The image is flipped, then rotated and zoomed about its centre, then shifted right and down by shares of its side.

    Returns:
        (a, b, c, d, e, f), which map a point (x, y) of the view to (ax + by + c, dx + ey + f) of the image with its
        margin; and the margin, wide enough for all points.
    """
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    a, b, d, e = (-cos, -sin, -sin, cos) if flip else (cos, sin, -sin, cos)
    x, y = (size * (0.5 + share) for share in shift)  # where the centre moves to
    reach = (0.5 + max(map(abs, shift))) * (cos + abs(sin))  # distance of a corner from the centre, in sides
    margin = max(0, math.ceil((reach - 0.5) * size)) + 1  # one more pixel for interpolation
    centre = margin + size / 2
    return (a, b, centre - a * x - b * y, d, e, centre - d * x - e * y), margin


def _contrast_table(factor: float, mean: float) -> Pixels:
    """For each value from 0 to 255, the new value after its distance from the mean is multiplied by `factor`."""
    table: Pixels = np.clip(np.rint(mean + factor * (np.arange(256) - mean)), 0, 255).astype(np.uint8)
    return table
