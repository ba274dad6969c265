"""One process alone writes a search's folder.

The file `lock` names the process that does, and is locked by it (`flock`), so that the system lets go of it when the
process dies, however it dies. Where the folder is shared by machines whose locks do not reach each other, the lease in
it tells: as long as its owner beats, the folder is taken.
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
    """Held as a context.

    Args:
        folder: of the search; it must be there.

    Raises:
        RequestError: another process writes this folder.
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
            with contextlib.suppress(OSError):  # whoever records something says that the storage is lost
                self._lease.beat()


class _Inside:
    """The inside of the lock's file, which stays open."""

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
