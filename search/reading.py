"""How an image file becomes pixels: the same in the search and, by the README's recipe, for whoever uses the model.

Decision 2 (`docs/decisions`) says why so.
"""

import functools
import importlib
import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, features

Pixels = NDArray[np.uint8]

MAX_MEGAPIXELS = 50
_ALWAYS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_PNG_TAGS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")


class Greys(NamedTuple):
    """Two values of images with more than 8 bits of grey: the one that becomes black, and the one that becomes white.

    They are the same for all images of a data set.
    """

    black: float = 0.0
    white: float = 65535.0


ALL_GREYS = Greys()


@dataclass(frozen=True)
class Header:
    """What can be said of an image before it is used.

    Args:
        greys: its least and its greatest value, where it has more than 8 bits of grey; `None` where it has not.
        turned: whether its orientation tag says that it is not upright as it is stored.
        shortened: whether it has 16 bits in each colour, of which Pillow reads the upper 8.
        paged: whether it is a TIFF of several pages, of which the first is read.
    """

    greys: Greys | None = None
    turned: bool = False
    shortened: bool = False
    paged: bool = False


ORDINARY = Header()


class TooLargeError(ValueError):
    """An image of more than `MAX_MEGAPIXELS`."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_MEGAPIXELS} megapixels")


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names: AVIF and HEIF where Pillow, and its plug-in pillow-heif, can."""
    found = [*_ALWAYS, *(["AVIF"] if features.check("avif") else [])]
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found.append("HEIF")
    return tuple(found)


def open_image(file: IO[bytes]) -> Image.Image:
    """Read an image's header; its content decides the format, not its name.

    Raises:
        TooLargeError: by its header, before anything is decoded.
        Exception: of any kind; Pillow passes on what its decoders meet in a corrupt file.
    """
    image = Image.open(file, formats=formats())
    if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
        raise TooLargeError
    return image


def header(image: Image.Image) -> Header:
    """What can be said of an opened image; one with more than 8 bits of grey is decoded for it.

    Raises:
        ValueError: it holds values that are no numbers.
        Exception: as of `open_image`.
    """
    turned = _orientation(image) not in (None, 1)
    shortened = not _is_deep(image) and ";16" in str(getattr(image, "tile", ""))
    paged = image.format == "TIFF" and getattr(image, "n_frames", 1) > 1
    return Header(_extremes(image) if _is_deep(image) else None, turned, shortened, paged)


def together(found: Iterable[Greys | None]) -> Greys:
    """The range that images use together, `None` for those of 8 bits; all 16 bits where all are."""
    known = [greys for greys in found if greys]
    if not known:
        return ALL_GREYS
    black, white = min(greys.black for greys in known), max(greys.white for greys in known)
    return Greys(black, white if white > black else black + 1)


def pixels(image: Image.Image, image_size: int, greys: Greys) -> Pixels:
    """RGB (image_size, image_size, 3): upright, more than 8 bits of grey scaled to 8, resized bilinear.

    An image of 8 bits without an orientation tag is as `keras.utils.load_img(..., interpolation="bilinear")` gives it.
    """
    image = ImageOps.exif_transpose(image)
    if _is_deep(image):
        values = (np.asarray(image, "float64") - greys.black) / (greys.white - greys.black)
        image = Image.fromarray(np.rint(255 * values.clip(0, 1)).astype("uint8"))
    image = image.convert("RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits of grey: whole numbers (`I`, `I;16`), or fractions (`F`)."""
    return image.mode[0] in "IF"


def _extremes(image: Image.Image) -> Greys:
    values: Any = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("it holds values that are no numbers")
    return Greys(low, high)


def _orientation(image: Image.Image) -> int | None:
    """By its tag. Of a PNG whose tags stand behind its pixels it is not known without decoding them."""
    if image.format == "PNG" and not any(tag in image.info for tag in _PNG_TAGS):
        return None
    return image.getexif().get(ExifTags.Base.Orientation)
