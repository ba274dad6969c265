"""Scans an image folder: which files are images, of which class and split, and which cannot be used."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image, UnidentifiedImageError

from search import machine
from search.data import folders, reading
from search.data.folders import LAYOUTS, PICTURES, UNPRINTABLE, WASTE, printable
from search.data.labels import Label
from search.data.reading import ORDINARY, Header
from search.errors import DataError

# Endings of files that are often found beside images. Any other file in a class folder is an image or a bad file.
BESIDE = frozenset(
    (
        *(".txt", ".md", ".rst", ".html", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml"),
        *(".ini", ".cfg", ".log", ".db", ".dvc", ".xmp", ".url", ".lnk"),
    )
)

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 64
_SIGNED = 64  # bytes at the start of a file that identify its type
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LFS = b"version https://git-lfs.github.com/spec/"
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_LINKS = (
    "links are not followed out of the folder: copy it with what they lead to, cp -rL FOLDER COPY "
    "(git-annex: git annex get . && git annex unlock .; DVC: dvc config cache.type copy && dvc checkout --relink)"
)


class Progress(Protocol):
    """A callback, called from the main thread, for the progress of a long step."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` files have passed the step called `what`."""


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Found:
    """One image: path relative to the folder, split (empty until it is known), SHA-256 in hex of its content."""

    path: str
    class_name: str  # or its label, as text
    split: str
    digest: str
    header: Header = ORDINARY
    group: str = ""  # images of one group stay in one split; empty: the image is a group of its own
    label: Label | None = None  # where it is more than the class

    @property
    def strata(self) -> tuple[str, ...]:
        """What each split gets its share of: the image's class, or its labels."""
        return (self.label and self.label.names) or (self.class_name,)


@dataclass(frozen=True)
class Scan:
    """What a data set contains. Everything is sorted by path, so that it depends only on the content."""

    splits: tuple[str, ...]  # those that the data set gives; each image has one of them, or none is given
    classes: tuple[str, ...]  # those with images, even if only bad ones
    images: tuple[Found, ...]
    bad: tuple[tuple[str, str], ...]  # (path, reason)
    notes: tuple[str, ...]
    advice: tuple[str, ...]  # what to do if the folder cannot be used, one line each
    kind: str = "classification"  # of the task, a key of `TASKS`


@dataclass(frozen=True)
class Checked:
    """A checked file: an image with its digest; a bad file with the reason, and advice if any; or not an image."""

    digest: str = ""
    header: Header = ORDINARY
    reason: str = ""
    advice: str = ""


def scan(root: Path, asked: str, progress: Progress = silent) -> Scan:
    """Find the images of a folder; read the header and hash the content of each, in threads.

    Args:
        root: a resolved path, so that links that leave it can be recognised.
        asked: as for `folders.find`.
        progress: called after every few dozen files.

    Raises:
        DataError: the folder cannot be read, or its folders look like splits, but which ones is not clear.
    """
    try:
        found = folders.find(root, asked)
    except OSError as error:
        raise DataError([f"{why(error)}: {error.filename}"], subject=str(root)) from error
    inside, others, waste = list[tuple[Path, str]](), list[Path](), list[Path]()
    for path, obstacle in _walk(root, root, frozenset({root}), waste):
        inside_class = found.place(path.relative_to(root)) or (obstacle and (path.is_dir() or not path.suffix))
        inside.append((path, obstacle)) if inside_class else others.append(path)
    images, bad, classes, advice = list[Found](), list[tuple[str, str]](), set[str](), dict[str, None]()
    checked = in_threads(partial(check, root), inside, "scanning images", progress)
    for (path, _), one in zip(inside, checked, strict=True):
        relative = path.relative_to(root)
        class_name, split = found.place(relative) or found.place(relative / "folder") or ("", "")
        if one.digest:
            images.append(Found(relative.as_posix(), class_name, split, one.digest, one.header))
        elif one.reason:
            bad.append((printable(relative.as_posix()), one.reason))
            advice |= {one.advice: None} if one.advice else {}
        else:
            others.append(path)
            continue
        classes.add(class_name)
    held = tuple(sorted(classes - {""}))
    empty = [
        f"class '{printable(name)}' holds no image and is left out" for name in found.classes if name not in classes
    ]
    notes = (*empty, *found.notes, *_left_out(others, waste), *as_they_are(images))
    alone = [folder for folder in folders.subfolders(root) if held == (folders.one_form(folder.name),)]
    further_in = [line for folder in alone if (line := folders.further_in(root, folder))]
    return Scan(tuple(found.splits.values()), held, tuple(images), tuple(bad), notes, (*advice, *further_in))


def why(error: Exception) -> str:
    """Why an image could not be read, in a few words on one line."""
    if isinstance(error, Image.DecompressionBombError | reading.TooLargeError):
        return str(reading.TooLargeError())
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read: {printable(said.splitlines()[0])}"


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, progress: Progress
) -> Iterator[Result]:
    """The function's results in the order of the items; at most one batch of results is held in memory.

    Warnings of Pillow and Python about unusual files are not shown: it only matters whether a file can be decoded.
    """
    with ThreadPoolExecutor(min(16, machine.cpus())) as pool:
        for start in range(0, len(items), _BATCH):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = list(pool.map(function, items[start : start + _BATCH]))
            yield from results
            progress(what, start + len(results), len(items))


def _walk(folder: Path, root: Path, above: frozenset[Path], waste: list[Path]) -> Iterator[tuple[Path, str]]:
    """Every visible file below a folder, with the obstacle to reading it, or ""; also folders that cannot be entered.

    Args:
        folder: where to look; links are followed.
        root: the folder that no link may leave.
        above: the real paths of the folder and of its parents in the walk.
        waste: files and folders named in `WASTE` are added here; they are not entered.
    """
    try:
        paths = sorted(folder.iterdir())
        below = {path for path in paths if path.is_dir()}
    except OSError as error:
        yield folder, why(error)
        return
    for path in paths:
        if folders.left_out(path.name):
            waste += [path] if path.name.lower() in WASTE else []
            continue
        obstacle = _obstacle(path, root, above) if path.is_symlink() else ""
        if path in below and not obstacle:
            yield from _walk(path, root, above | {path.resolve()}, waste)
        else:
            yield path, obstacle


def _obstacle(link: Path, root: Path, above: frozenset[Path]) -> str:
    try:
        target = link.resolve()
    except (OSError, RuntimeError):
        return "a link to itself"
    if not target.is_relative_to(root):
        return "a link that leaves the folder"
    if not target.exists():
        return "a link to nothing"
    return "a link to a folder above it" if target in above else ""


def check(root: Path, found: tuple[Path, str]) -> Checked:
    """Read the header of a file, and hash its content.

    Args:
        root: the data set's folder.
        found: a file in it, and the obstacle to reading it, or "".
    """
    path, obstacle = found
    beside = path.suffix.lower() in BESIDE
    if obstacle:
        return Checked() if beside else Checked(reason=obstacle, advice=_LINKS if path.is_symlink() else "")
    if UNPRINTABLE.search(str(path.relative_to(root))) and not beside:
        return Checked(reason="control characters in its name")
    try:
        if not path.is_file():
            return Checked(reason="not a file")
        with path.open("rb") as file:
            return _read(file)
    except UnidentifiedImageError as error:
        return Checked() if beside else _told(path, why(error))
    except Exception as error:  # noqa: BLE001 (a corrupt file makes Pillow raise anything)
        return Checked(reason=why(error))


def _read(file: BufferedReader) -> Checked:
    with reading.open_image(file) as image:
        header = reading.header(image)
        file.seek(0)
        return Checked(hashlib.file_digest(file, "sha256").hexdigest(), header)


def told(path: Path, reason: str) -> str:
    """Why a file is not an image, and what to do, in one line: `reason`, or a better one, see `_told`."""
    found = _told(path, reason)
    return f"{found.reason}; {found.advice}" if found.advice else found.reason


def _told(path: Path, reason: str) -> Checked:
    """The result for a file that is not a readable image, with a better reason if its first bytes reveal its type."""
    with path.open("rb") as file:
        signed = file.read(_SIGNED)
    if signed.startswith(_LFS):
        return Checked(reason="a Git LFS pointer", advice="Git LFS pointers stand for the images: git lfs pull")
    if signed[4:8] == b"ftyp" and signed[8:12] in _HEIF and "HEIF" not in reading.formats():
        return Checked(reason="a HEIC image", advice="to read HEIC images: pip install 'finetune-search[heic]'")
    if signed[:4] in _TIFF or signed[4:8] == b"ftyp":
        return Checked(reason="damaged, or of a kind of TIFF, AVIF or HEIC image, or of film, that is not read")
    return Checked(reason=reason)


def as_they_are(images: Iterable[Found]) -> list[str]:
    """Notes on images that are not read just as they are stored."""
    headers = [image.header for image in images]
    turned = sum(header.turned for header in headers)
    shortened = [header.shortened for header in headers if header.shortened is not None]
    paged = sum(header.paged for header in headers)
    counted = {
        f"images turned upright, as their orientation tag says: {turned}": turned,
        f"images with 16 bits in each colour, of which the upper 8 are read: {len(shortened)}; "
        f"these are at most {max(shortened, default=0)} of 255": shortened,
        f"TIFF images of several pages, of which the first is read: {paged}": paged,
    }
    return [note for note, what in counted.items() if what]


def _left_out(others: Sequence[Path], waste: Sequence[Path]) -> list[str]:
    outside = [path for path in others if path.suffix.lower() in PICTURES]
    rest = Counter(path.suffix.lower() or path.name for path in others if path.suffix.lower() not in PICTURES)
    counted = {
        f"image files left out because they lie outside the class folders: {len(outside)}; expected {LAYOUTS}": outside,
        f"files left out because they are no images: {_counted(rest)}": rest,
        f"folders of thumbnails or waste left out: {_counted(Counter(path.name for path in waste))}": waste,
    }
    return [note for note, what in counted.items() if what]


def _counted(kinds: Counter[str], limit: int = 8) -> str:
    """The counts of the most common kinds as text, and how many other kinds there are."""
    parts = [f"{count} {printable(kind)}" for kind, count in kinds.most_common(limit)]
    more = [f"{len(kinds) - limit} other kinds"] if len(kinds) > limit else []
    return ", ".join([*parts, *more])
