"""Object storage: its URIs, and the operations on the objects below a URI."""

import contextlib
import hashlib
import uuid
from pathlib import Path


def remote(storage: str) -> bool:
    """Whether a storage is object storage, not a folder."""
    return "://" in storage


def joined(storage: str, *parts: str) -> str:
    """A URI below a storage; the query stays at its end."""
    path, mark, query = storage.partition("?")
    return "/".join([path.rstrip("/"), *parts]) + mark + query


def below(uri: str) -> str:
    """The parent of a URI; the query is kept."""
    path, mark, query = uri.partition("?")
    return path.rpartition("/")[0] + mark + query


def local(storage: str, cache: Path) -> Path:
    """The folder of this machine that mirrors a storage."""
    return cache / "mirrors" / hashlib.sha256(storage.encode()).hexdigest()[:16]


def fault(storage: str) -> str | None:
    """Why objects cannot be written to a storage; `None` when they can."""
    from pyarrow import ArrowException

    try:
        probe = Objects(joined(storage, f".probe-{uuid.uuid4()}"))
        probe.write("probe", b"probe")
        probe.clear()
    except (OSError, ValueError, ArrowException) as error:
        return f"cannot be written: {str(error).splitlines()[0]}"
    return None


class Objects:
    """The objects below a URI.

    Args:
        uri: such as `s3://bucket/results/name`, with `?endpoint_override=…` for other services than S3.

    Raises:
        OSError: from every method: the objects cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self.uri = uri
        self._service, self._root = fs.FileSystem.from_uri(uri)

    def read(self, name: str) -> bytes:
        """An object's content."""
        with self._service.open_input_stream(f"{self._root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        with self._service.open_output_stream(f"{self._root}/{name}") as stream:
            stream.write(content)

    def names(self, part: str = "") -> list[str]:
        """The names of all objects whose path begins with the folder `part`."""
        from pyarrow import fs

        top = f"{self._root}/{part}".rstrip("/")
        found = self._service.get_file_info(fs.FileSelector(top, recursive=True, allow_not_found=True))
        return [info.path.removeprefix(self._root).strip("/") for info in found if info.type == fs.FileType.File]

    def clear(self) -> None:
        """Remove all objects, and the object that represents the folder itself."""
        with contextlib.suppress(FileNotFoundError):
            self._service.delete_dir(self._root)

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._service.delete_file(f"{self._root}/{name}")

    def age(self, name: str) -> float:
        """Seconds since an object was written, by the clock of the storage."""
        probe = f"{name}-{uuid.uuid4()}"
        self.write(probe, b"")
        now, then = self._service.get_file_info([f"{self._root}/{each}" for each in (probe, name)])
        self.remove(probe)
        return float(now.mtime_ns - then.mtime_ns) / 1e9
