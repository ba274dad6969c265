"""Where images and their classes come from: one row for each kind of source."""

import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from search.data.reading import Greys, Pixels, open_image, pixels
from search.data.scan import Found, Progress, Scan, scan, why
from search.data.settings import DataSettings
from search.data.splits import Dataset, assign, contradictions, gather
from search.errors import DataError, unknown

_FOLDER_SHARES = {"test": 0.15, "val": 0.15}  # of each class; train has the rest
_DIGITS_SHARES = {"test": 0.5, "val": 0.2}  # a large test split, because in a small one noise hides differences


@dataclass(frozen=True)
class Unread:
    """Why an image could not be decoded: the file has `changed` since the scan, or its content is bad."""

    reason: str
    changed: bool


Reader = Callable[[tuple[str, str]], Pixels | Unread]  # from (item, digest)


@dataclass(frozen=True)
class Source:
    """One kind of source.

    Args:
        words: for people: what is given as `--data`.
        names: the sources that are known by a name.
        faults: what is wrong with a source that can be seen without reading an image.
        find: from a source, the seed of the split, how it is to be read, and progress: the dataset, with all splits.
            Raises `DataError`.
        reader: from a source, the node's cache, the side of the images in pixels, and how greys are scaled: what
            decodes one image. It is called from several threads.
    """

    words: str
    names: tuple[str, ...]
    faults: Callable[[str], list[str]]
    find: Callable[[str, int, DataSettings, Progress], Dataset]
    reader: Callable[[str, Path, int, Greys], Reader]


def of(source: str) -> Source:
    """The kind of a source: the one that knows its name, else a folder."""
    return next((kind for kind in SOURCES.values() if source in kind.names), SOURCES["folder"])


def names() -> list[str]:
    """The sources that are known by a name."""
    return [name for kind in SOURCES.values() for name in kind.names]


def _folder_faults(source: str) -> list[str]:
    root = Path(source).expanduser()
    try:
        if root.is_dir():
            return []
        there = root.exists()
    except OSError as error:
        return [f"{source}: {error.strerror}"]
    if root.name == source and not there:
        return [f"{unknown('data set', source, names())}; nor is there a folder of this name"]
    return [f"{source}: {'not a folder' if there else 'there is no such folder'}"]


def _from_folder(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:
    if wrong := _folder_faults(source):
        raise DataError(wrong)
    root = Path(source).expanduser().resolve()
    return _divided(str(root), scan(root, settings.folders, progress), seed)


def _divided(source: str, found: Scan, seed: int) -> Dataset:
    """The dataset of what was found, without contradictions, and with all splits."""
    contrary = dict(contradictions(found.images))
    images, notes = _split([image for image in found.images if image.path not in contrary], found.splits, seed)
    bad = sorted([*found.bad, *contrary.items()])
    return gather(source, found.classes, images, bad=bad, notes=(*found.notes, *notes), advice=found.advice)


def _split(images: list[Found], given: Collection[str], seed: int) -> tuple[list[Found], list[str]]:
    """The images with their splits, and notes on how the splits were made.

    Args:
        given: the splits that the data set gives itself.
    """
    if "val" in given:
        return images, []
    if given:
        parted = assign([image for image in images if image.split == "train"], seed, {"val": _FOLDER_SHARES["val"]})
        chosen = {image.path: image for image in parted}
        share = f"{_FOLDER_SHARES['val']:.0%}"
        note = f"no images are given for val: {share} of the training images of each class are taken for it"
        return [chosen.get(image.path, image) for image in images], [note]
    copies = len(images) - len({(image.class_name, image.digest) for image in images})
    note = f"files that are copies of others: {copies}; all copies of an image are in one split"
    return assign(images, seed, _FOLDER_SHARES), [note] * bool(copies)


def _from_digits(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:  # noqa: ARG001
    images, labels = _digits()
    found = [
        Found(str(index), str(label), "", hashlib.sha256(image.tobytes()).hexdigest())
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    note = "the built-in digits are used, not the folder of that name here: --data ./digits takes that one"
    notes = [note] * Path("digits").is_dir()
    return gather("digits", [str(label) for label in range(10)], assign(found, seed, _DIGITS_SHARES), notes=notes)


def _digits() -> tuple[Pixels, list[int]]:
    """Handwritten digits (1797, 8, 8), uint8, grey in [0, 255], and their labels.

    The file holds scikit-learn's `load_digits`, in its order, with greys from 0 to 16: the test part of "Optical
    Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49, CC BY 4.0).
    """
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        return np.rint(digits["images"] * (255 / 16)).astype(np.uint8), digits["labels"].tolist()


def _read_file(root: Path, image_size: int, greys: Greys, item: tuple[str, str]) -> Pixels | Unread:
    path, digest = item
    try:
        content = (root / path).read_bytes()
    except OSError as error:
        return Unread(why(error), changed=True)
    if hashlib.sha256(content).hexdigest() != digest:
        return Unread("its content has changed", changed=True)
    try:
        with open_image(io.BytesIO(content)) as image:
            return pixels(image, image_size, greys)
    except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
        return Unread(why(error), changed=False)


def _digits_reader(source: str, cache: Path, image_size: int, greys: Greys) -> Reader:  # noqa: ARG001
    images, _ = _digits()
    return lambda item: pixels(Image.fromarray(images[int(item[0])]), image_size, greys)


def _folder_reader(source: str, cache: Path, image_size: int, greys: Greys) -> Reader:  # noqa: ARG001
    return partial(_read_file, Path(source), image_size, greys)


SOURCES: Mapping[str, Source] = {
    "digits": Source(
        "the built-in handwritten digits",
        ("digits",),
        faults=lambda source: [],  # noqa: ARG005
        find=_from_digits,
        reader=_digits_reader,
    ),
    "folder": Source(
        "a folder with a folder for each class", (), faults=_folder_faults, find=_from_folder, reader=_folder_reader
    ),
}
