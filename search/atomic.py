"""Atomic writes: a file is complete, or it does not exist."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ENDING = ".tmp"  # of a file that is still being written


@contextlib.contextmanager
def replacing(path: Path, beside: Path | None = None) -> Iterator[IO[bytes]]:
    """A temporary file to write to; it replaces `path` when it is on the disk, and is removed after an error.

    Args:
        beside: the temporary file; `None`: `path` with `ENDING`, which is safe only if no other process writes `path`.

    Raises:
        OSError: the file cannot be written.
    """
    beside = beside or path.with_name(path.name + ENDING)
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
