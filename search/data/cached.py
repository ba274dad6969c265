"""A folder of the node's cache that one process makes while the others wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from search.errors import StorageError


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """A context for one process of the node at a time; the others wait, and then find what it has made.

    Args:
        home: the folder that is made, in a folder of the cache.

    Raises:
        StorageError: the cache cannot be written.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{home}.lock"):
            yield
    except OSError as error:
        raise StorageError(
            f"the cache {home.parent} cannot be written: {error}; choose another with --cache"
        ) from error
