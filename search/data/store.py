"""Finds and checks images in three disjoint splits, decodes them once into the node's cache, and opens them from there.

No trial sees a test image: a trial loads `train` and `val`, and only the winner is tested on `test`.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL

from search.data import sources
from search.data.cached import locked
from search.data.duplicates import Looks
from search.data.folders import SPLITS
from search.data.near import about_near, apart
from search.data.reading import Pixels
from search.data.scan import Progress, in_threads, silent
from search.data.settings import DataSettings
from search.data.sources import Decoded, Unread
from search.data.splits import Dataset, demand_usable, listing, without
from search.errors import DataError, StorageError
from search.task.task import Array

__all__ = ["SPLITS", "Dataset", "Progress", "decode", "faults", "find", "load", "silent"]

_LOOKS = "looks.npy"  # beside the images: the difference hash of each


def faults(source: str) -> list[str]:
    """What is wrong with a source that can be seen without reading an image."""
    return sources.of(source).faults(source)


def find(
    source: str,
    *,
    seed: int,
    max_bad_files: float,
    settings: DataSettings | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Scan the images and split them.

    Args:
        source: a built-in name, or a folder: `DIR/<class>/*` is split 70/15/15 within each class,
            `DIR/{train,val,test}/<class>/*` is split already; if `val` is missing, it is 15 % of `train`. Or a table
            of images, or an archive of either.
        seed: determines the split if the data do not.
        settings: how the data set is read; nothing: every setting has its default.
        max_bad_files: share in [0, 1] of the image files that may be skipped, rounded up to whole files.
        progress: called from this thread from time to time.

    Raises:
        DataError: the folder cannot be used; names every fault at once.
    """
    found = sources.of(source).find(source, seed, settings or DataSettings(), progress)
    demand_usable(found, max_bad_files)
    return found


def decode(
    found: Dataset,
    *,
    max_bad_files: float,
    image_size: int,
    cache: Path,
    near_duplicates: str = "tell",
    progress: Progress = silent,
) -> Dataset:
    """Decode the images into the cache, unless they are there already.

    Args:
        found: the dataset that `find` returned.
        max_bad_files: as for `find`; images whose content turns out to be bad are counted too.
        image_size: side in pixels; images are resized bilinearly, the aspect ratio is not kept.
        cache: a folder of this node; the images are written below `images/` in it.
        near_duplicates: `skip` leaves out training images that look nearly as validation or test images do; `tell`
            counts them in a note.
        progress: called from this thread from time to time.

    Returns:
        The dataset without the images that could not be decoded, or were left out.

    Raises:
        DataError: too many images are bad; names every fault at once.
        StorageError: the cache cannot be written.
    """
    dataset, looks = _decoded(found, cache, image_size, progress)
    if near_duplicates == "skip" and (kept := apart(dataset, looks)) is not dataset:
        dataset, _ = _decoded(kept, cache, image_size, progress)
    else:
        dataset = replace(dataset, notes=(*dataset.notes, *about_near(dataset, looks)))
    demand_usable(dataset, max_bad_files)
    return dataset


def _decoded(found: Dataset, cache: Path, image_size: int, progress: Progress) -> tuple[Dataset, dict[str, Looks]]:
    """The dataset without the images that could not be decoded, and the difference hashes of the others."""
    home = _home(found, image_size, cache)
    with locked(home):
        dataset = _stored(found, home, image_size) or _store(found, cache, image_size, progress)
        return dataset, {split: np.load(home / f"{split}.{_LOOKS}") for split in SPLITS}


def load(dataset: Dataset, split: str, image_size: int, cache: Path) -> tuple[Pixels, Array]:
    """Open one split; decode the images again if the cache has lost them.

    Returns:
        Images (n, image_size, image_size, 3), uint8, RGB, memory-mapped and read-only; labels (n, …), see
        `Dataset.targets`.

    Raises:
        DataError: the images must be decoded again, and some files are gone, have changed since the scan or are bad.
        StorageError: the cache cannot be written.
    """
    home = _home(dataset, image_size, cache)
    images = _opened(dataset, split, home, image_size)
    if images is None:
        with locked(home):
            if _opened(dataset, split, home, image_size) is None:
                _store(dataset, cache, image_size, silent, nothing_bad=True)
            images = _opened(dataset, split, home, image_size)
    if images is None:
        raise StorageError(f"{home}: the images that were just decoded are gone; was the cache emptied?")
    return images, dataset.targets(split)


def _home(dataset: Dataset, image_size: int, cache: Path) -> Path:
    """The folder of the decoded images; its name contains everything that determines their bytes."""
    return cache / "images" / f"{dataset.fingerprint[:32]}-{image_size}-pillow{PIL.__version__}"


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
    return dataset if complete and _hashed(dataset, home) else None


def _hashed(dataset: Dataset, home: Path) -> bool:
    """Whether every image has its difference hash beside it; those that an older version decoded have none."""
    try:
        return all(len(np.load(home / f"{split}.{_LOOKS}")) == len(dataset.items[split]) for split in SPLITS)
    except (OSError, ValueError, TypeError):
        return False


def _store(asked: Dataset, cache: Path, image_size: int, progress: Progress, nothing_bad: bool = False) -> Dataset:
    """Decode all three splits into a temporary folder, then rename it; return the dataset without the bad images.

    Raises:
        DataError: files are gone or have changed since the scan; with `nothing_bad`, also if files are bad.
    """
    home = _home(asked, image_size, cache)
    making = home.with_name(f"{home.name}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        reader = sources.of(asked.source).reader(asked.source, cache, image_size, asked.greys)
        unread: dict[str, Unread] = {}
        for split in SPLITS:
            items = list(zip(asked.items[split], asked.digests[split], strict=True))
            results = in_threads(reader, items, f"decoding {split} images", progress)
            looks: list[int] = []
            images = _readable(asked.items[split], results, unread, looks)
            _write(making / f"{split}.npy", images, image_size)
            np.save(making / f"{split}.{_LOOKS}", np.array(looks, np.uint64))
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


def _readable(
    items: Sequence[str], results: Iterable[Decoded | Unread], unread: dict[str, Unread], looks: list[int]
) -> Iterator[Pixels]:
    """The pixels that were decoded, in order, whose hashes are added to `looks`; failures to `unread`, by item."""
    for item, result in zip(items, results, strict=True):
        if isinstance(result, Unread):
            unread[item] = result
        else:
            looks.append(result.look)
            yield result.pixels


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
