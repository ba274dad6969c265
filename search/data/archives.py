"""Unpacks archives of images, once, into the node's cache."""

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from search import machine
from search.data import folders
from search.data.cached import locked
from search.data.folders import printable
from search.data.listed import tables_in_sight
from search.data.scan import Progress, silent
from search.errors import DataError, StorageError

Step = Callable[[], None]

_STEP = "unpacking the archive, MiB"
_SPARE = 64 << 20  # bytes that stay free on the disk
_BLOCK = 512  # bytes, of tar
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


class _UnsafeError(ValueError):
    """A member of an archive that would be written outside its folder, or is no file."""


def folder(archive: Path, cache: Path, progress: Progress = silent) -> Path:
    """The folder of what is in an archive; it is unpacked if it is not yet.

    If all lies in one folder in the archive, it is that folder.

    Args:
        archive: a file that ends in one of `KINDS`.
        cache: a folder of this node; archives are unpacked into `archives/` in it, by path, size and time of change.
        progress: called for every file, with how many MiB of the archive are unpacked.

    Raises:
        DataError: the archive cannot be read, is damaged, or is not safe to unpack.
        StorageError: the cache cannot be written, or has too little room.
    """
    try:
        status = archive.stat()
    except OSError as error:
        raise DataError([f"cannot be read: {error.strerror}"], subject=str(archive)) from error
    named = hashlib.sha256(os.fsencode(archive.resolve())).hexdigest()[:16]
    home = cache / "archives" / f"{named}-{status.st_size}-{status.st_mtime_ns}"
    if not home.is_dir():
        with locked(home):
            if not home.is_dir():
                _unpack(archive, home, progress)
    return _inner(home)


def faults(archive: Path) -> list[str]:
    """What is wrong with an archive that can be seen without unpacking it.

    Raises:
        OSError: it cannot be read.
    """
    if kind(archive.name) != ".zip" and not hasattr(tarfile, "data_filter"):
        return [
            f"{archive}: this Python cannot unpack it safely; take 3.11.4 or later, or unpack it and give the folder"
        ]
    with archive.open("rb") as file:
        if kind(archive.name) == ".zip":
            known = zipfile.is_zipfile(file)
        else:
            known = file.read(2) == _GZIP if kind(archive.name) != ".tar" else tarfile.is_tarfile(file)
    return [] if known else [f"{archive}: no {kind(archive.name)} archive, or one that is cut off; fetch it again"]


def kind(name: str) -> str:
    """The ending of an archive's name, a key of `KINDS`; "" if it is none."""
    return next((ending for ending in KINDS if name.lower().endswith(ending)), "")


def _inner(home: Path) -> Path:
    """Descend while a folder has nothing in it but one folder, in which there is more than the images of one class."""
    while len(inside := [path for path in home.iterdir() if not folders.left_out(path.name)]) == 1:
        (only,) = inside
        if not only.is_dir() or folders.split_of(only.name) or not (folders.subfolders(only) or tables_in_sight(only)):
            break
        home = only
    return home


def _unpack(archive: Path, home: Path, progress: Progress) -> None:
    """Unpack into a temporary folder, then rename it.

    Raises:
        DataError: the archive cannot be read, is damaged, or is not safe to unpack.
        OSError: the cache cannot be written.
    """
    making = home.with_name(f"{home.name}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        with _opened(archive) as file:
            total = 1 + (archive.stat().st_size >> 20)
            KINDS[kind(archive.name)](file, making, lambda: progress(_STEP, min(file.tell() >> 20, total - 1), total))
            progress(_STEP, total, total)
        making.replace(home)
        for older in home.parent.glob(f"{home.name.partition('-')[0]}-*"):
            if older != home and older.is_dir():
                shutil.rmtree(older, ignore_errors=True)
    except _UnsafeError as error:
        raise DataError([f"not unpacked, because it is not safe: {error}"], subject=str(archive)) from error
    except (ValueError, EOFError, RuntimeError, NotImplementedError, zlib.error, *_DAMAGED) as error:
        said = printable(str(error) or type(error).__name__)
        raise DataError([f"damaged: {said}; fetch it again"], str(archive)) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[IO[bytes]]:
    try:
        file = archive.open("rb")
    except OSError as error:
        raise DataError([f"cannot be read: {error.strerror}"], subject=str(archive)) from error
    with file:
        yield file


def _unzip(file: IO[bytes], making: Path, step: Step) -> None:
    with zipfile.ZipFile(file) as packed:
        members = packed.infolist()
        for member in members:
            _demand_inside(member.filename)
        _demand_room(sum(member.file_size for member in members), making)
        for member in members:
            packed.extract(member, making)  # its checksum is compared
            step()


def _untar(file: IO[bytes] | gzip.GzipFile, making: Path, step: Step) -> None:
    """Unpack with the `data` filter of PEP 706: nothing but files, folders, and links that stay inside.

    Raises:
        ValueError, tarfile.TarError: it is damaged, cut off, or not safe.
    """

    def safe(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        _demand_room(member.size, making)
        step()
        return tarfile.data_filter(member, path)

    with tarfile.open(fileobj=file, mode="r:") as packed:
        try:
            packed.extractall(making, filter=safe)  # noqa: S202 filtered
        except tarfile.FilterError as error:
            raise _UnsafeError(str(error)) from error
        file.seek(packed.offset)  # tarfile takes a damaged header, or the end of the file, for the end of the archive
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise ValueError("its end is missing")
        while file.read(_CHUNK):  # at its end gzip compares the checksum
            pass


def _untar_gzip(file: IO[bytes], making: Path, step: Step) -> None:
    with gzip.open(file) as unzipped:
        _untar(unzipped, making, step)


def _demand_inside(name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise _UnsafeError(f"'{printable(name)}' would be written outside its folder")


def _demand_room(size: int, making: Path) -> None:
    """Check that the disk has room for so many bytes.

    Raises:
        StorageError: it has not.
    """
    free = machine.free(making)
    if size + _SPARE > free:
        wanted = f"{size + _SPARE >> 20:,} MiB for what is in the archive, and has {free >> 20:,} MiB free"
        raise StorageError(f"the cache {making.parent} needs {wanted}; choose another with --cache")


_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile)

KINDS: Mapping[str, Callable[[IO[bytes], Path, Step], None]] = {
    ".zip": _unzip,
    ".tar": _untar,
    ".tar.gz": _untar_gzip,
    ".tgz": _untar_gzip,
}
