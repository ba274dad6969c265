"""What an image folder holds: which files are images, of which class and split, and which cannot be used."""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol, TypeVar

from PIL import Image, UnidentifiedImageError

from search import machine
from search.errors import DataError

SPLITS = ("train", "val", "test")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
MAX_MEGAPIXELS = 50
LAYOUTS = "DIR/<class>/* or DIR/{train,val,test}/<class>/*"

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 64
_TOO_LARGE = f"more than {MAX_MEGAPIXELS} megapixels"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "val"
)


class Progress(Protocol):
    """Hears, from the main thread, how far a long step has come."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` files are through the step called `what`."""


def silent(what: str, done: int, total: int) -> None:
    """The progress nobody watches."""


@dataclass(frozen=True)
class Found:
    """One image; path relative to the folder, split empty until it is known, digest a SHA-256 in hex."""

    path: str
    class_name: str
    split: str
    digest: str


@dataclass(frozen=True)
class Scan:
    """What a folder holds. Everything is sorted by path, so that it depends on the folder's content alone."""

    classes: tuple[str, ...]  # of every class folder, empty ones too
    given: bool  # the folder itself says train, val and test
    images: tuple[Found, ...]
    bad: tuple[tuple[str, str], ...]  # (path, reason)
    notes: tuple[str, ...]


def scan(root: Path, progress: Progress = silent) -> Scan:
    """Find the images of a folder, read every header and hash every content, in threads.

    Args:
        root: a resolved path, so that links which leave it can be told.
        progress: called after every few dozen files.

    Raises:
        DataError: not readable, or splits of which some are missing.
    """
    try:
        given = _given_splits(root)
        classes = _classes(root, given)
    except OSError as error:
        raise DataError([why(error)], subject=str(root)) from error
    inside: list[tuple[Path, str]] = []
    outside, others = 0, 0
    for path, obstacle in _walk(root, root, frozenset({root})):
        if path.suffix.lower() not in EXTENSIONS and not (obstacle and path.is_dir()):
            others += 1
        elif not obstacle and not _in_class_folder(path.relative_to(root), given):
            outside += 1
        else:
            inside.append((path, obstacle))
    checked = in_threads(partial(_check, root), inside, "scanning images", progress)
    images, bad = [], []
    for (path, _), (digest, reason) in zip(inside, checked, strict=True):
        relative = path.relative_to(root)
        if reason:
            bad.append((printable(relative.as_posix()), reason))
        else:
            class_name, split = (relative.parts[1], relative.parts[0]) if given else (relative.parts[0], "")
            images.append(Found(relative.as_posix(), class_name, split, digest))
    return Scan(classes, given, tuple(images), tuple(bad), _notes(outside, others))


def open_image(file: IO[bytes]) -> Image.Image:
    """Read an image's header; its content decides the format, not its name.

    Raises:
        Exception: of any kind; Pillow passes on what its decoders meet in a corrupt file. `why` puts it in words.
    """
    return Image.open(file, formats=FORMATS)


def why(error: Exception) -> str:
    """Why an image could not be read, in a few words on one line."""
    if isinstance(error, Image.DecompressionBombError):
        return _TOO_LARGE
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG, GIF, BMP or WebP image"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read: {printable(said.splitlines()[0])}"


def printable(name: str) -> str:
    """The name with its control characters (and bytes that are no UTF-8) written as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], name)


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, progress: Progress
) -> Iterator[Result]:
    """The function's results in the items' order; a batch of them at most waits in memory.

    Pillow's and Python's warnings about odd files stay silent meanwhile: what counts is whether a file can be decoded.
    """
    with ThreadPoolExecutor(min(16, machine.cpus())) as pool:
        for start in range(0, len(items), _BATCH):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = list(pool.map(function, items[start : start + _BATCH]))
            yield from results
            progress(what, start + len(results), len(items))


def _given_splits(root: Path) -> bool:
    """Whether the folder itself says train, val and test; a fault where it says only some of them."""
    names = [folder.name for folder in _subfolders(root)]
    missing = [split for split in SPLITS if split not in names]
    words = [name for name in names if name.lower() in _SPLIT_WORDS]
    if not missing or not words or (len(words) == 1 < len(names)):
        return not missing
    renames = {_SPLIT_WORDS[name.lower()]: name for name in words if name not in SPLITS}
    advice = [f"rename '{renames[split]}' to '{split}'" if split in renames else f"add '{split}'" for split in missing]
    fault = f"the folders {', '.join(words)} look like splits, which must be train, val and test: {', '.join(advice)}"
    raise DataError([f"{fault}; or put every class directly below the folder, to have it split"], subject=str(root))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(root: Path, given: bool) -> tuple[str, ...]:
    parents = [root / split for split in SPLITS] if given else [root]
    return tuple(sorted({folder.name for parent in parents for folder in _subfolders(parent)}))


def _in_class_folder(relative: Path, given: bool) -> bool:
    parts = relative.parts
    return len(parts) > 2 and parts[0] in SPLITS if given else len(parts) > 1


def _walk(folder: Path, root: Path, above: frozenset[Path]) -> Iterator[tuple[Path, str]]:
    """Every visible file below a folder with the obstacle to reading it, or ""; a folder too where it is the obstacle.

    Args:
        folder: where to look, links followed.
        root: what no link may leave.
        above: the real paths of the folder and of those the walk came through.
    """
    try:
        paths = sorted(folder.iterdir())
        folders = {path for path in paths if path.is_dir()}
    except OSError as error:
        yield folder, why(error)
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        obstacle = _obstacle(path, root, above) if path.is_symlink() else ""
        if path in folders and not obstacle:
            yield from _walk(path, root, above | {path.resolve()})
        else:
            yield path, obstacle


def _obstacle(link: Path, root: Path, above: frozenset[Path]) -> str:
    try:
        target = link.resolve()
    except (OSError, RuntimeError):
        return "a link to itself"
    if not target.is_relative_to(root):
        return "a link that leaves the folder"
    return "a link to a folder above it" if target in above else ""


def _check(root: Path, found: tuple[Path, str]) -> tuple[str, str]:
    """The digest of a file's content, and why it cannot be used or ""."""
    path, obstacle = found
    if obstacle:
        return "", obstacle
    if _UNPRINTABLE.search(str(path.relative_to(root))):
        return "", "control characters in its name"
    try:
        if not path.is_file():
            return "", "not a file"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            with open_image(file) as image:
                return digest, _TOO_LARGE if image.width * image.height > MAX_MEGAPIXELS * 1_000_000 else ""
    except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
        return "", why(error)


def _notes(outside: int, others: int) -> tuple[str, ...]:
    notes = []
    if outside:
        notes.append(f"image files left out because they lie outside the class folders: {outside}; expected {LAYOUTS}")
    if others:
        notes.append(f"files left out because of their extension: {others}; known are {' '.join(EXTENSIONS)}")
    return tuple(notes)
