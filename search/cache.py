"""Arrays in a node's cache: written to a temporary file and renamed, opened memory-mapped, evicted above a size limit.

Each array `X.npy` has a stamp `X.json` beside it, which holds the size and the modification time of the array's file
just after it was written. An array that has no stamp, or does not match it, counts as missing and is computed again.
The modification time of the stamp is the time when the array was last used.
"""

import contextlib
import json
import math
import mmap
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from search import atomic, machine

Array = NDArray[Any]

_MAPPED = 64 << 20  # bytes that may be resident before the pages are released
_AROUND = 2 << 20  # bytes that Linux may map around a page that is read: whole folios, since 6.18
_FREE_SHARE = 0.5


class Rows:
    """An array on disk, (n, …), read row by row; its pages are released again, so that memory use stays bounded.

    Args:
        array: memory-mapped and read-only, as `np.load(path, mmap_mode="r")` returns it.
    """

    def __init__(self, array: Any) -> None:
        self._mapping = array._mmap
        self._array: Array = np.asarray(array)
        self._read = 0
        self.shape, self.dtype, self.nbytes = self._array.shape, self._array.dtype, self._array.nbytes

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Any) -> Array:
        """A copy of the rows, given as a slice or as an array of indices."""
        taken: Array = self._array[rows]
        taken = taken.copy() if taken.base is not None else taken
        self._read += taken.nbytes + len(taken) * _AROUND
        if self._read > _MAPPED < self.nbytes:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._read = 0
        return taken


def opened(path: Path, shape: tuple[int, ...], dtype: str) -> Rows | None:
    """Open the array at `path` and mark it as used; `None` if it is missing, or its stamp, shape or dtype differ."""
    try:
        if json.loads(_stamp(path).read_text("utf-8")) != _seen(path):
            return None
        array = np.lib.format.open_memmap(path, mode="r")
        if array.shape != shape or array.dtype != dtype:
            return None
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError):  # the cache may belong to another user and be read-only
        os.utime(_stamp(path))
    return Rows(array)


class Writer:
    """Writes an array row by row to a temporary file, which replaces `path` when the array is complete.

    Used as a context manager; after an error it removes the temporary file. The file is written, not memory-mapped:
    a full disk then raises an `OSError`, whereas under a mapped file it would kill the process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self._path, self._held = path, contextlib.ExitStack()
        self._header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        self._dtype = dtype
        self._left = math.prod(shape)

    def __enter__(self) -> Self:
        self._file: IO[bytes] = self._held.enter_context(atomic.replacing(self._path))
        np.lib.format.write_array_header_1_0(self._file, self._header)
        return self

    def write(self, rows: Array) -> None:
        """Append rows."""
        self._left -= rows.size
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._left:
            error = ValueError(f"{self._path}: {self._left} values are missing")
            self._held.__exit__(type(error), error, None)
            raise error
        if kind is None:
            _stamp(self._path).unlink(missing_ok=True)
        self._held.__exit__(kind, error, at)
        if kind is None:
            _put_stamp(self._path)


def make_room(root: Path, needed: int, limit: int, keep: Collection[Path]) -> None:
    """Remove the least recently used arrays below `root`, except `keep`, until `needed` more bytes fit the limit."""
    stamps = {stamp: stamp.stat() for stamp in root.rglob("*.json") if stamp.with_suffix(".npy").exists()}
    sizes = {stamp: stamp.with_suffix(".npy").stat().st_size for stamp in stamps}
    used = sum(sizes.values())
    for stamp in sorted(stamps, key=lambda stamp: stamps[stamp].st_mtime_ns):
        if used + needed <= limit:
            return
        if stamp.with_suffix(".npy") not in keep:
            stamp.unlink(missing_ok=True)
            stamp.with_suffix(".npy").unlink(missing_ok=True)
            used -= sizes[stamp]


def allowed(root: Path, asked: float) -> int:
    """How many bytes the arrays below `root` may take: `asked` GiB, but at most half of the free disk space.

    The bytes that these arrays already take count as free.
    """
    taken = sum(path.stat().st_size for path in root.rglob("*.npy"))
    return min(int(asked * 2**30), int((machine.free(root) + taken) * _FREE_SHARE))


@contextlib.contextmanager
def writers(paths: Sequence[Path], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> Iterator[list[Writer]]:
    """Several writers at once: after an error none of their arrays is kept."""
    with contextlib.ExitStack() as stack:
        parts = zip(paths, shapes, dtypes, strict=True)
        yield [stack.enter_context(Writer(*part)) for part in parts]


def _stamp(path: Path) -> Path:
    return path.with_suffix(".json")


def _seen(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "written_ns": status.st_mtime_ns}


def _put_stamp(path: Path) -> None:
    with atomic.replacing(_stamp(path)) as file:
        file.write(json.dumps(_seen(path)).encode())
