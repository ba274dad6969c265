"""Finds and checks images in three disjoint splits, decodes them once into the node's cache, and opens them from there.

No trial sees a test image: a trial loads `train` and `val`, and only the winner is tested on `test`.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from search.data.folders import SPLITS, printable
from search.data.reading import Greys, Pixels, open_image, pixels
from search.data.scan import Found, Progress, Scan, in_threads, scan, silent, why
from search.data.splits import Dataset, assign, contradictions, demand_usable, gather, listing, without
from search.errors import DataError, StorageError, unknown

__all__ = ["BUILT_IN", "SPLITS", "Dataset", "Progress", "decode", "faults", "find", "load", "silent"]

BUILT_IN = ("digits",)

_FOLDER_SHARES = {"test": 0.15, "val": 0.15}  # of each class; train has the rest
_DIGITS_SHARES = {"test": 0.5, "val": 0.2}  # a large test split, because in a small one noise hides differences


@dataclass(frozen=True)
class _Unread:
    """Why an image could not be decoded: the file has `changed` since the scan, or its content is bad."""

    reason: str
    changed: bool


_Reader = Callable[[tuple[str, str]], Pixels | _Unread]  # from (item, digest)


def faults(source: str) -> list[str]:
    """What is wrong with a source that can be seen without reading an image."""
    root = Path(source).expanduser()
    try:
        if source in BUILT_IN or root.is_dir():
            return []
        there = root.exists()
    except OSError as error:
        return [f"{source}: {error.strerror}"]
    if root.name == source and not there:
        return [f"{unknown('data set', source, BUILT_IN)}; nor is there a folder of this name"]
    return [f"{source}: {'not a folder' if there else 'there is no such folder'}"]


def find(
    source: str, *, seed: int, max_bad_files: float, folders: str = "auto", progress: Progress = silent
) -> Dataset:
    """Scan the images and split them.

    Args:
        source: a built-in name, or a folder: `DIR/<class>/*` is split 70/15/15 within each class,
            `DIR/{train,val,test}/<class>/*` is split already; if `val` is missing, it is 15 % of `train`.
        seed: determines the split if the folder does not.
        folders: `classes` if the folders are classes even though they look like splits; else `auto`.
        max_bad_files: share in [0, 1] of the image files that may be skipped, rounded up to whole files.
        progress: called from this thread from time to time.

    Raises:
        DataError: the folder cannot be used; names every fault at once.
    """
    found = _from_digits(seed) if source in BUILT_IN else _from_folder(source, seed, folders, progress)
    demand_usable(found, max_bad_files)
    return found


def decode(
    found: Dataset, *, max_bad_files: float, image_size: int, cache: Path, progress: Progress = silent
) -> Dataset:
    """Decode the images into the cache, unless they are there already.

    Args:
        found: the dataset that `find` returned.
        max_bad_files: as for `find`; images whose content turns out to be bad are counted too.
        image_size: side in pixels; images are resized bilinearly, the aspect ratio is not kept.
        cache: a folder of this node; the images are written below `images/` in it.
        progress: called from this thread from time to time.

    Returns:
        The dataset without the images that could not be decoded.

    Raises:
        DataError: too many images are bad; names every fault at once.
        StorageError: the cache cannot be written.
    """
    home = _home(found, image_size, cache)
    with _locked(home):
        dataset = _stored(found, home, image_size) or _store(found, home, image_size, progress)
    demand_usable(dataset, max_bad_files)
    return dataset


def load(dataset: Dataset, split: str, image_size: int, cache: Path) -> tuple[Pixels, NDArray[np.int32]]:
    """Open one split; decode the images again if the cache has lost them.

    Returns:
        Images (n, image_size, image_size, 3), uint8, RGB, memory-mapped and read-only; labels (n,), int32.

    Raises:
        DataError: the images must be decoded again, and some files are gone, have changed since the scan or are bad.
        StorageError: the cache cannot be written.
    """
    home = _home(dataset, image_size, cache)
    images = _opened(dataset, split, home, image_size)
    if images is None:
        with _locked(home):
            if _opened(dataset, split, home, image_size) is None:
                _store(dataset, home, image_size, silent, nothing_bad=True)
            images = _opened(dataset, split, home, image_size)
    if images is None:
        raise StorageError(f"{home}: the images that were just decoded are gone; was the cache emptied?")
    return images, np.asarray(dataset.labels[split], np.int32)


def _from_folder(source: str, seed: int, folders: str, progress: Progress) -> Dataset:
    if wrong := faults(source):
        raise DataError(wrong)
    root = Path(source).expanduser().resolve()
    found = scan(root, folders, progress)
    contrary = dict(contradictions(found.images))
    images, notes = _split([image for image in found.images if image.path not in contrary], found, seed)
    empty = [
        f"class '{printable(name)}' holds no image and is left out"
        for name in found.folders.classes
        if name not in found.classes
    ]
    bad = sorted([*found.bad, *contrary.items()])
    told = (*empty, *found.notes, *notes)
    return gather(str(root), found.classes, images, bad=bad, notes=told, advice=found.advice)


def _split(images: list[Found], found: Scan, seed: int) -> tuple[list[Found], list[str]]:
    """The images with their splits, and notes on how the splits were made."""
    given = found.folders.splits
    if "val" in given.values():
        return images, []
    if given:
        parted = assign([image for image in images if image.split == "train"], seed, {"val": _FOLDER_SHARES["val"]})
        chosen = {image.path: image for image in parted}
        share = f"{_FOLDER_SHARES['val']:.0%}"
        note = f"there is no folder of val images: {share} of the training images of each class are taken for it"
        return [chosen.get(image.path, image) for image in images], [note]
    copies = len(images) - len({(image.class_name, image.digest) for image in images})
    note = f"files that are copies of others: {copies}; all copies of an image are in one split"
    return assign(images, seed, _FOLDER_SHARES), [note] * bool(copies)


def _from_digits(seed: int) -> Dataset:
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


def _home(dataset: Dataset, image_size: int, cache: Path) -> Path:
    """The folder of the decoded images; its name contains everything that determines their bytes."""
    return cache / "images" / f"{dataset.fingerprint[:32]}-{image_size}-pillow{PIL.__version__}"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """A context for one process of the node at a time: it decodes; the others wait and then find the images.

    Raises:
        StorageError: the cache cannot be written.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{home}.lock"):
            yield
    except OSError as error:
        raise StorageError(
            f"the cache {home.parent} cannot be written: {error}; choose another with --cache"
        ) from error


def _opened(dataset: Dataset, split: str, home: Path, image_size: int) -> Pixels | None:
    """The memory-mapped images of a split; `None` if they are missing or do not match the dataset."""
    try:
        images: Pixels = np.lib.format.open_memmap(home / f"{split}.npy", mode="r")
    except (OSError, ValueError):
        return None
    expected = (len(dataset.items[split]), image_size, image_size, 3)
    return images if images.dtype == np.uint8 and images.shape == expected else None


def _stored(asked: Dataset, home: Path, image_size: int) -> Dataset | None:
    """The dataset as it was decoded before, without the images that were bad then; `None` if it is not complete."""
    try:
        bad = [(path, reason) for path, reason in json.loads((home / "skipped.json").read_text())]
    except (OSError, ValueError, TypeError):
        return None
    dataset = without(asked, bad)
    complete = all(_opened(dataset, split, home, image_size) is not None for split in SPLITS)
    return dataset if complete else None


def _store(asked: Dataset, home: Path, image_size: int, progress: Progress, nothing_bad: bool = False) -> Dataset:
    """Decode all three splits into a temporary folder, then rename it; return the dataset without the bad images.

    Raises:
        DataError: files are gone or have changed since the scan; with `nothing_bad`, also if files are bad.
    """
    making = home.with_name(f"{home.name}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        read, unread = _reader(asked.source, image_size, asked.greys), dict[str, _Unread]()
        for split in SPLITS:
            items = list(zip(asked.items[split], asked.digests[split], strict=True))
            results = in_threads(read, items, f"decoding {split} images", progress)
            _write(making / f"{split}.npy", _readable(asked.items[split], results, unread), image_size)
        bad = [(item, failure.reason) for item, failure in unread.items()]
        changed = [(item, failure.reason) for item, failure in unread.items() if failure.changed or nothing_bad]
        if changed:
            total = sum(map(len, asked.items.values()))
            fault = f"gone or changed since the scan, {len(changed)} of {total} files:{listing(changed)}"
            raise DataError([fault], subject=asked.source)
        dataset = without(asked, bad)
        (making / "skipped.json").write_text(json.dumps(dataset.skipped))
        shutil.rmtree(home, ignore_errors=True)
        making.replace(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return dataset


def _reader(source: str, image_size: int, greys: Greys) -> _Reader:
    if source not in BUILT_IN:
        return partial(_read_file, Path(source), image_size, greys)
    images, _ = _digits()
    return lambda item: pixels(Image.fromarray(images[int(item[0])]), image_size, greys)


def _read_file(root: Path, image_size: int, greys: Greys, item: tuple[str, str]) -> Pixels | _Unread:
    path, digest = item
    try:
        content = (root / path).read_bytes()
    except OSError as error:
        return _Unread(why(error), changed=True)
    if hashlib.sha256(content).hexdigest() != digest:
        return _Unread("its content has changed", changed=True)
    try:
        with open_image(io.BytesIO(content)) as image:
            return pixels(image, image_size, greys)
    except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
        return _Unread(why(error), changed=False)


def _readable(
    items: Sequence[str], results: Iterable[Pixels | _Unread], unread: dict[str, _Unread]
) -> Iterator[Pixels]:
    """The results that are pixels, in order; the failures are added to `unread` by their item."""
    for item, result in zip(items, results, strict=True):
        if isinstance(result, _Unread):
            unread[item] = result
        else:
            yield result


def _write(path: Path, images: Iterable[Pixels], image_size: int) -> None:
    """Write images one by one as an array; the header is written last, as its length does not depend on their count."""
    shape = (image_size, image_size, 3)
    count = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (0, *shape)})
        for count, image in enumerate(images, start=1):  # noqa: B007
            file.write(image.data)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
