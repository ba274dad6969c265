"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ENDING = ".tmp"  # of what is being written


@contextlib.contextmanager
def replacing(path: Path, beside: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its place once all of it is on the disk; none is left after an error.

    Args:
        beside: where it is written meanwhile; `None`: `path` with `ENDING`, if no other process writes it.

    Raises:
        OSError: it cannot be written.
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
