"""One process alone writes a search's folder.

The file `lock` names the process that does, and is locked by it (`flock`), so that the system lets go of it when the
process dies, however it dies. Where the folder is shared by machines whose locks do not reach each other, a heartbeat
tells: as long as it goes on, the folder is taken.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from search.errors import RequestError

BEAT_EVERY_S = 10.0
SILENT_AFTER_S = 60.0


class Lock:
    """Held as a context.

    Args:
        folder: of the search; it must be there.

    Raises:
        RequestError: another process writes this folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "lock"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="lock")

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = not self._alive_elsewhere()
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            free = not self._alive_elsewhere()
        if not free:
            holder = self._holder()
            os.close(self._file)
            who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
            raise RequestError([f"{self._folder} is in use by {who}, where its search runs; wait for it, or end it"])
        self._beat()
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
                self._beat()

    def _beat(self) -> None:
        text = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "at": time.time()}).encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))
        os.fsync(self._file)

    def _holder(self) -> dict[str, Any]:
        try:
            return dict(json.loads(os.pread(self._file, 4096, 0)))
        except (ValueError, TypeError):
            return {}

    def _alive_elsewhere(self) -> bool:
        """Whether a process of another machine was heard of lately, by the clock of whoever keeps the files."""
        holder = self._holder()
        if not holder or holder.get("host") == socket.gethostname():
            return False
        with tempfile.NamedTemporaryFile(dir=self._folder) as new:
            return os.fstat(new.fileno()).st_mtime - os.fstat(self._file).st_mtime < SILENT_AFTER_S
