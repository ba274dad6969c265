"""The history: what happened to every trial, event by event. A search is resumed from it.

The file is append-only, one event of JSON per line, so that earlier events are never rewritten. A line that a crash or
a full disk cut short is skipped when the file is read.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]
SECONDS_BETWEEN_SYNCS = 1.0


class History:
    """A file of events.

    Args:
        path: of the file; it is created with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._whole = True
        self._synced_at = 0.0

    def read(self) -> tuple[list[Event], int]:
        """The events, and the number of damaged lines."""
        events, damaged = [], 0
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_bytes().splitlines():
                try:
                    event = json.loads(line)
                    events.append({"event": event["event"], **event})
                except (ValueError, TypeError, KeyError):
                    damaged += bool(line.strip())
        return events, damaged

    def append(self, event: Mapping[str, Any], now: bool = False) -> None:
        """Append an event.

        It is synced to the disk at once if `now`, or if the last sync was `SECONDS_BETWEEN_SYNCS` ago; else with a
        later event.

        Raises:
            OSError: it could not be written, or the file was removed.
        """
        file = self._opened()
        if not os.fstat(file).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        line = json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        line = line if self._whole else b"\n" + line
        try:
            self._whole = False
            self._whole = os.write(file, line) == len(line)
            if not self._whole:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if now or time.monotonic() - self._synced_at >= SECONDS_BETWEEN_SYNCS:
                os.fsync(file)
                self._synced_at = time.monotonic()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._file).st_size
            self._whole = not size or os.pread(self._file, 1, size - 1) == b"\n"
        return self._file
