"""The lock of a search's folder: only one process may write it.

The file `lock` names the process that writes the folder. That process locks the file (`flock`), and the system releases
it however the process dies. Between machines that share the folder `flock` may have no effect; there the lease in the
file decides: as long as its owner renews it, the folder is in use.
"""

import contextlib
import fcntl
import os
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from search.record.files import Files
from search.record.lease import BEAT_EVERY_S, Lease


class Lock:
    """The lock as a context manager.

    Args:
        folder: of the search; it must exist.

    Raises:
        RequestError: when the context is entered: another process writes this folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, Files(folder).lock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="lock")

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        self._lease = Lease(str(self._folder), _Inside(self._file, self._folder))
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = self._lease.free
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            free = self._lease.free
        if not free:
            refusal = self._lease.refusal()
            os.close(self._file)
            raise refusal
        self._lease.beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
        os.close(self._file)

    def _live(self) -> None:
        while not self._over.wait(BEAT_EVERY_S):
            with contextlib.suppress(OSError):  # a lost storage is reported by the next write to the record
                self._lease.beat()


class _Inside:
    """The content of the lock's file, which stays open, as the place of a lease."""

    def __init__(self, file: int, folder: Path) -> None:
        self._file, self._folder = file, folder

    def read(self) -> bytes:
        return os.pread(self._file, 4096, 0)

    def write(self, content: bytes) -> None:
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)

    def age(self) -> float:
        with tempfile.NamedTemporaryFile(dir=self._folder) as new:
            return os.fstat(new.fileno()).st_mtime - os.fstat(self._file).st_mtime
