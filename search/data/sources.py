"""Where images and their classes come from: one row for each kind of source."""

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from search.data import archives, duplicates, listed, shards, tables
from search.data.division import divided
from search.data.reading import Greys, Pixels, open_image, pixels
from search.data.scan import Found, Progress, Scan, scan, why
from search.data.settings import DataSettings
from search.data.splits import Dataset, assign, gather
from search.errors import DataError, unknown

_DIGITS_SHARES = {"test": 0.5, "val": 0.2}  # a large test split, because in a small one noise hides differences


@dataclass(frozen=True)
class Unread:
    """Why an image could not be decoded: the file has `changed` since the scan, or its content is bad."""

    reason: str
    changed: bool


@dataclass(frozen=True)
class Decoded:
    """An image: its pixels (side, side, 3), uint8, and its difference hash, see `duplicates`."""

    pixels: Pixels
    look: int = duplicates.NONE


Reader = Callable[[tuple[str, str]], Decoded | Unread]  # from (item, digest)


@dataclass(frozen=True)
class Source:
    """One kind of source.

    Args:
        words: for people: what is given as `--data`.
        owns: whether a source is of this kind; the first kind that says so has it.
        names: the sources that are known by a name.
        faults: what is wrong with a source that can be seen without reading an image.
        find: from a source, the seed of the split, how it is to be read, and progress: the dataset, with all splits.
            Raises `DataError`.
        reader: from a source, the node's cache, the side of the images in pixels, and how greys are scaled: what
            decodes one image. It is called from several threads.
    """

    words: str
    owns: Callable[[str], bool]
    names: tuple[str, ...]
    faults: Callable[[str], list[str]]
    find: Callable[[str, int, DataSettings, Progress], Dataset]
    reader: Callable[[str, Path, int, Greys], Reader]


def of(source: str) -> Source:
    """The kind of a source; what no other kind owns is a folder."""
    return next(kind for kind in SOURCES.values() if kind.owns(source))


def names() -> list[str]:
    """The sources that are known by a name."""
    return [name for kind in SOURCES.values() for name in kind.names]


def _folder_faults(source: str) -> list[str]:
    if "://" in source:
        known = "shards, as in s3://bucket/shards/{000..099}.tar"
        return [f"{source}: of object storage only {known}, are read; see docs/data.md"]
    root = Path(source).expanduser()
    try:
        if root.is_dir():
            return []
        there = root.exists()
    except OSError as error:
        return [f"{source}: {error.strerror}"]
    if root.name == source and not there:
        return [f"{unknown('data set', source, names())}; nor is there a folder of this name"]
    kinds = f"no folder, no table ({', '.join(tables.KINDS)}) and no archive ({', '.join(archives.KINDS)})"
    return [f"{source}: {kinds if there else 'there is no such folder'}"]


def _file_faults(source: str) -> list[str]:
    path = Path(source).expanduser()
    if not os.access(path, os.F_OK):
        return [f"{source}: there is no such file"]
    return [] if path.is_file() and os.access(path, os.R_OK) else [f"{source}: not a file that can be read"]


def _archive_faults(source: str) -> list[str]:
    if wrong := _file_faults(source):
        return wrong
    try:
        return archives.faults(Path(source).expanduser())
    except OSError as error:
        return [f"{source}: {error.strerror}"]


def _from_table(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:
    if wrong := _file_faults(source):
        raise DataError(wrong)
    table = _root(source) / Path(source).name
    return divided(str(table), listed.scan(table.parent, {table: ""}, settings, progress), seed)


def _from_archive(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:
    if wrong := _archive_faults(source):
        raise DataError(wrong)
    archive = Path(source).expanduser().resolve()
    root = archives.folder(archive, settings.cache, progress)
    try:
        return divided(str(archive), _scan(root, settings, progress), seed)
    except DataError as error:
        raise DataError(error.faults, subject=f"{archive}, unpacked into {root}") from error


def _from_folder(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:
    if wrong := _folder_faults(source):
        raise DataError(wrong)
    root = Path(source).expanduser().resolve()
    return divided(str(root), _scan(root, settings, progress), seed)


def _scan(root: Path, settings: DataSettings, progress: Progress) -> Scan:
    """What a folder holds: images that tables in it list, or that lie in class folders.

    Raises:
        DataError: it cannot be used.
    """
    given, beside = dict[Path, str](), list[Path]()
    with contextlib.suppress(OSError):  # it is told by the scan
        beside = listed.tables_in_sight(root)
        given = {} if settings.folders == "classes" else listed.tables_in(root)
    if given:
        return listed.scan(root, given, settings, progress)
    ways = [f"if {table.name} says what the images are, give --data {table}" for table in beside]
    try:
        _demand_no_table(str(root), settings)
        found = scan(root, settings.folders, progress)
    except DataError as error:
        *faults, last = error.faults
        raise DataError([*faults, "\n    ".join([last, *ways])], subject=error.subject) from error
    return replace(found, advice=(*found.advice, *ways))


def _demand_no_table(source: str, settings: DataSettings) -> None:
    asked = [f"--set {name}={column}" for name, column in settings.columns.items()]
    faults = [f"{' '.join(asked)}: there is no table in which to look for a column"] if asked else []
    if settings.task != "classification":
        faults.append(f"--set task={settings.task}: such labels are in a table; give one, as in --data labels.csv")
    if faults:
        raise DataError(faults, subject=source)


def _root(source: str) -> Path:
    """The folder to which the items of a folder or a table are relative."""
    path = Path(source).expanduser()
    return path.resolve() if path.is_dir() else path.parent.resolve()


def _from_digits(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:  # noqa: ARG001
    _demand_no_table(source, settings)
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


def _from_shards(source: str, seed: int, settings: DataSettings, progress: Progress) -> Dataset:
    if wrong := shards.faults(source):
        raise DataError(wrong)
    whole = shards.whole(source)
    return divided(whole, shards.scan(whole, settings, progress), seed)


def _read_file(root: Path, image_size: int, greys: Greys, item: tuple[str, str]) -> Decoded | Unread:
    path, digest = item
    try:
        content = (root / path).read_bytes()
    except OSError as error:
        return Unread(why(error), changed=True)
    return _decoded(content, digest, image_size, greys)


def _decoded(content: bytes, digest: str, image_size: int, greys: Greys) -> Decoded | Unread:
    if hashlib.sha256(content).hexdigest() != digest:
        return Unread("its content has changed", changed=True)
    try:
        with open_image(io.BytesIO(content)) as image:
            small = min(image.size) < duplicates.SMALLEST
            read = pixels(image, image_size, greys)
            return Decoded(read, duplicates.NONE if small else duplicates.look(read))
    except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
        return Unread(why(error), changed=False)


def _digits_reader(source: str, cache: Path, image_size: int, greys: Greys) -> Reader:  # noqa: ARG001
    images, _ = _digits()
    return lambda item: Decoded(pixels(Image.fromarray(images[int(item[0])]), image_size, greys))


def _folder_reader(source: str, cache: Path, image_size: int, greys: Greys) -> Reader:  # noqa: ARG001
    return partial(_read_file, _root(source), image_size, greys)


def _archive_reader(source: str, cache: Path, image_size: int, greys: Greys) -> Reader:
    return partial(_read_file, archives.folder(Path(source), cache), image_size, greys)


def _shards_reader(source: str, cache: Path, image_size: int, greys: Greys) -> Reader:  # noqa: ARG001
    held, known, lost = shards.Shards(source), dict[str, tuple[str, shards.Place]](), list[str]()
    for shard in held.names:
        with contextlib.suppress(OSError, tarfile.TarError, ValueError):
            known |= {f"{shard}/{name}": (shard, place) for name, place in held.places(shard).items()}

    def read(item: tuple[str, str]) -> Decoded | Unread:
        if item[0] not in known or lost:
            return Unread(lost[0] if lost else "it is gone, or its shard cannot be read any more", changed=True)
        try:
            content = held.content(*known[item[0]])
        except OSError as error:
            lost.append(why(error))  # what cannot be reached would take its time for every image
            return Unread(lost[0], changed=True)
        return _decoded(content, item[1], image_size, greys)

    return read


SOURCES: Mapping[str, Source] = {
    "digits": Source(
        "the built-in handwritten digits",
        lambda source: source == "digits",
        ("digits",),
        faults=lambda source: [],  # noqa: ARG005
        find=_from_digits,
        reader=_digits_reader,
    ),
    "table": Source(
        "a table with the path and the class of each image",
        lambda source: source.lower().endswith(tuple(tables.KINDS)) and not os.path.isdir(source),  # noqa: PTH112
        (),
        faults=_file_faults,
        find=_from_table,
        reader=_folder_reader,
    ),
    "shards": Source(
        "shards of WebDataset, as in shards/{000..099}.tar",
        shards.owns,
        (),
        faults=shards.faults,
        find=_from_shards,
        reader=_shards_reader,
    ),
    "archive": Source(
        "an archive of such a folder",
        lambda source: bool(archives.kind(source)) and not os.path.isdir(source),  # noqa: PTH112
        (),
        faults=_archive_faults,
        find=_from_archive,
        reader=_archive_reader,
    ),
    "folder": Source(
        "a folder with a folder for each class",
        lambda source: True,  # noqa: ARG005
        (),
        faults=_folder_faults,
        find=_from_folder,
        reader=_folder_reader,
    ),
}
