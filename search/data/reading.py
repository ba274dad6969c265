"""How an image file is converted to pixels, in the search and, by the README's recipe, for users of the model.

Decision 2 (`docs/decisions`) gives the reasons.
"""

import functools
import importlib
import importlib.util
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, features

Pixels = NDArray[np.uint8]

MAX_MEGAPIXELS = 50
_ALWAYS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _SAMPLE_FORMAT = 254, 258, 262, 277, 284, 339  # of TIFF 6.0
_TURNS = range(2, 9)
_SAMPLED = 100_000
_PNG_TAGS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")


class Greys(NamedTuple):
    """The range of images with more than 8 bits of grey: the value that becomes black, and the one that becomes white.

    The range is the same for all images of a data set.
    """

    black: float = 0.0
    white: float = 65535.0


ALL_GREYS = Greys()


@dataclass(frozen=True)
class Header:
    """What is known about an image before it is used.

    Args:
        greys: its smallest and its largest value, if it has more than 8 bits of grey; else `None`.
        bulk: the 1st and the 99th percentile of its values, if it has more than 8 bits of grey; else `None`.
        fractions: whether these values are fractions.
        turned: whether its orientation tag says that the stored image is not upright.
        shortened: the largest value that is read, if it has 16 bits per colour, of which Pillow reads the upper 8;
            else `None`.
        paged: whether it is a TIFF of several pages, of which only the first is read.
    """

    greys: Greys | None = None
    bulk: Greys | None = None
    fractions: bool = False
    turned: bool = False
    shortened: int | None = None
    paged: bool = False


ORDINARY = Header()

logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # it repeats what exceptions say


class TooLargeError(ValueError):
    """An image of more than `MAX_MEGAPIXELS`."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_MEGAPIXELS} megapixels")


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read; AVIF and HEIF only if Pillow, or its plug-in pillow-heif, can."""
    found = [*_ALWAYS, *(["AVIF"] if features.check("avif") else [])]
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found.append("HEIF")
    return tuple(found)


def open_image(file: IO[bytes]) -> Image.Image:
    """Read an image's header; the content determines the format, not the file's name.

    Raises:
        TooLargeError: according to the header the image is too large; nothing is decoded.
        Exception: of any kind; Pillow passes on the errors that its decoders raise for a corrupt file.
    """
    image = Image.open(file, formats=formats())
    if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
        raise TooLargeError
    return image


def header(image: Image.Image) -> Header:
    """The header of an opened image; an image with more than 8 bits per value is decoded for this.

    Raises:
        ValueError: Pillow would misread the values, some of them are not finite, or the tags are broken.
        Exception: of any kind, as from `open_image`.
    """
    turned, paged = _is_turned(image), False
    if image.format == "TIFF":
        _demand_understood(image)
        paged = getattr(image, "n_frames", 1) > 1
    if not _is_deep(image):
        shortened = int(np.asarray(image).max()) if ";16" in str(getattr(image, "tile", "")) else None
        return Header(turned=turned, shortened=shortened, paged=paged)
    greys, bulk = _extremes(image)
    return Header(greys, bulk, image.mode == "F", turned, paged=paged)


def together(found: Iterable[Greys | None]) -> Greys:
    """The range that covers all images.

    Args:
        found: the range of each image; `None` for one of 8 bits. If all are `None`, the result is all 16 bits.
    """
    known = [greys for greys in found if greys]
    if not known:
        return ALL_GREYS
    black, white = min(greys.black for greys in known), max(greys.white for greys in known)
    return Greys(black, white if white > black else black + 1)


def pixels(image: Image.Image, image_size: int, greys: Greys) -> Pixels:
    """RGB (image_size, image_size, 3), uint8: upright, more than 8 bits of grey scaled to 8, resized bilinearly.

    For an image of 8 bits without an orientation tag, `keras.utils.load_img(..., interpolation="bilinear")` gives the
    same pixels.
    """
    image = ImageOps.exif_transpose(image)
    if _is_deep(image):
        values = np.asarray(image)
        few = values.dtype == np.uint16  # scaling all possible values takes less memory than scaling all pixels
        scaled = _scaled(np.arange(1 << 16), greys)[values] if few else _scaled(values, greys)
        image = Image.fromarray(scaled)
    image = image.convert("RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _scaled(values: NDArray[Any], greys: Greys) -> Pixels:
    share = (values.astype("float64") - greys.black) / (greys.white - greys.black)
    found: Pixels = np.rint(255 * share.clip(0, 1)).astype("uint8")
    return found


def _is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits of grey: whole numbers (`I`, `I;16`) or fractions (`F`)."""
    return image.mode[0] in "IF"


def _extremes(image: Image.Image) -> tuple[Greys, Greys]:
    """The smallest and the largest value; and the 1st and the 99th percentile, of a sample of the values.

    Raises:
        ValueError: some values are not finite, or Pillow misread them.
    """
    values: Any = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("it holds values that are no numbers")
    if low < 0 and image.format == "TIFF" and _tag(image, _SAMPLE_FORMAT, 1) == 1:
        raise ValueError("it holds values of 2,147,483,648 and more, which Pillow takes for negative ones")
    some = values.ravel()[:: max(1, values.size // _SAMPLED)]
    bulk = np.percentile(some, 1, method="higher"), np.percentile(some, 99, method="lower")
    return Greys(low, high), Greys(*map(float, bulk))


def _is_turned(image: Image.Image) -> bool:
    """Whether the orientation tag says that an image is not upright.

    `False` for a PNG whose tags come after its pixels: they cannot be read without decoding the pixels.

    Raises:
        ValueError: the EXIF data are broken.
    """
    if image.format == "PNG" and not any(tag in image.info for tag in _PNG_TAGS):
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in _TURNS
    except SyntaxError as error:
        raise ValueError("its EXIF data are broken") from error


def _demand_understood(image: Image.Image) -> None:
    """Check that a TIFF is not of a kind that Pillow opens but misreads.

    Raises:
        ValueError: it is.
    """
    wide = _tag(image, _BITS, 1) > 8
    if _tag(image, _SUBFILE, 0) & 1:
        raise ValueError("its first picture is a thumbnail, as in raw files of cameras")
    if wide and _tag(image, _PHOTOMETRIC, 1) == 0:
        raise ValueError("it has more than 8 bits, and 0 is white in it, which Pillow does not turn round")
    if wide and _tag(image, _PLANAR, 1) == 2 and _tag(image, _SAMPLES, 1) > 1:
        raise ValueError("it has more than 8 bits, and its colours lie apart, which Pillow does not read")
    if not wide and _tag(image, _SAMPLE_FORMAT, 1) == 2:
        raise ValueError("it has 8 bits with a sign, which Pillow does not read")


def _tag(image: Image.Image, tag: int, default: int) -> int:
    """The value of a tag of a TIFF image; the largest one if it has several."""
    value: Any = getattr(image, "tag_v2", {}).get(tag, default)
    return int(max(value)) if isinstance(value, tuple) else int(value)
