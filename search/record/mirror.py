"""A search in object storage, mirrored by a folder of this machine.

The code that writes a search appends to files in a folder, but objects can only be written whole. So every machine has
a folder that mirrors the objects. The driver uploads changed files every few seconds, and a trial's process does so
before each report. A process that continues a search or a trial downloads its files first.
"""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from search import atomic
from search.errors import CheckpointError, StorageError
from search.record.files import CHECKPOINTS, HISTORY, LOCK, OWNER, PREVIOUS, SEARCH, TRIALS
from search.record.lease import BEAT_EVERY_S, Lease
from search.record.objects import Objects, below, joined

SEND_EVERY_S = 2.0
SETTLED_AFTER_S = 2.0  # longer than any process takes between checking the lock and writing it
RECORD = (SEARCH, PREVIOUS, HISTORY, TRIALS)


def fetch_record(storage: str, name: str, folder: Path, *others: str) -> None:
    """Download the record of a search, from which it is resumed.

    Args:
        others: the beginnings of the names of other files to download.

    Raises:
        StorageError: the objects cannot be read.
    """
    from pyarrow import ArrowException

    try:
        Mirror(joined(storage, name), folder).fetch_record(*others)
    except (OSError, ValueError, ArrowException) as error:
        raise StorageError(f"{joined(storage, name)} cannot be read: {str(error).splitlines()[0]}") from error


def forget(folder: Path) -> None:
    """Empty a folder that mirrored an earlier search of the same name, except its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def empty(uri: str) -> bool:
    """Whether there is no search at a URI; a lock alone does not count."""
    return all(name == LOCK for name in Objects(uri).names())


class Mirror:
    """A folder and the objects it mirrors. As a context it holds the search's lock there, and uploads what changes.

    Args:
        uri: of the search, as for `Objects`.
        folder: of this machine.

    Attributes:
        fault: why nothing can be uploaded any more; `None` if nothing is wrong.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self._objects = Objects(uri)
        self._lease = Lease(uri, _Object(self._objects, LOCK))
        self._sent: dict[str, tuple[int, int]] = {}
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="mirror")
        self.fault: OSError | None = None

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        try:
            if self._lease.held:
                self.send()
                self._objects.remove(LOCK)
        except OSError as lost:
            if kind is None:
                raise StorageError(f"{self.uri} cannot be written: {lost}") from lost

    @property
    def storage(self) -> str:
        """The URI of the storage that contains the search."""
        return below(self.uri)

    def at(self, path: Path) -> str:
        """The URI of a file of the folder, without a query."""
        return joined(self.uri.partition("?")[0], path.relative_to(self.folder).as_posix())

    def fetch_record(self, *others: str) -> None:
        """Download the record, and files whose names begin with `others`; other files of the folder stay."""
        for name in RECORD:
            (self.folder / name).unlink(missing_ok=True)
        for name in self._objects.names():
            if name in RECORD or name.startswith(others):
                self._fetch(name)

    def fetch(self, part: str) -> None:
        """Replace a part of the folder by its objects.

        Raises:
            OSError: the objects cannot be read.
        """
        shutil.rmtree(self.folder / part, ignore_errors=True)
        (self.folder / part).mkdir(parents=True)
        for name in self._objects.names(part):
            self._fetch(name)

    def send(self, *parts: str) -> None:
        """Upload the files that changed since the last upload.

        Args:
            parts: the files and folders to upload; none: the whole folder, except the trials' checkpoints and the lock.

        Raises:
            OSError: the objects cannot be written.
        """
        with self._sending:
            for path in self._files(parts):
                name = path.relative_to(self.folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
                    state = _state(path)
                    if self._sent.get(name) != state:
                        self._objects.write(name, path.read_bytes())
                        self._sent[name] = state

    def send_trial(self, part: str, *others: str) -> None:
        """Upload a trial's checkpoints and other parts, unless another process has taken over the trial.

        Raises:
            CheckpointError: another process has taken over the trial.
            StorageError: the objects cannot be written.
        """
        try:
            name = f"{part}/{OWNER}"
            owner = self.folder / name
            known = owner.exists() and self._sent.get(name) == _state(owner)  # else it was just taken by this process
            if known and self._objects.read(name) != owner.read_bytes():
                raise CheckpointError(f"{part} belongs to another process, which goes on with the trial")
            self.send(part, *others)
        except OSError as error:
            raise StorageError(f"{self.uri} cannot be written: {error}") from error

    def _files(self, parts: tuple[str, ...]) -> Iterator[Path]:
        if parts:
            tops = [self.folder / part for part in parts]
        else:
            tops = [path for path in self.folder.iterdir() if path.name not in (CHECKPOINTS, LOCK)]
        for top in tops:
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file() and path.suffix != atomic.ENDING:
                    yield path

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._objects.read(name))
        self._sent[name] = _state(path)

    def _live(self) -> None:
        """Upload what changes, and renew the lease, until the context ends or an upload fails."""
        beat_at = time.monotonic()
        while not self._over.wait(SEND_EVERY_S):
            try:
                self.send()
                if time.monotonic() - beat_at >= BEAT_EVERY_S:
                    if not self._lease.held:  # this process did not renew it for a long time
                        raise OSError("another process has taken the search")
                    self._lease.beat()
                    beat_at = time.monotonic()
            except OSError as error:
                self.fault = error
                return

    def _take(self) -> None:
        """Take the search's lock.

        If several processes begin at once, the last one to write the lock gets it. So each reads the lock again after
        `SETTLED_AFTER_S`, when all have written.

        Raises:
            RequestError: another process has the lock.
        """
        if self._lease.free:
            self._lease.beat()
            time.sleep(SETTLED_AFTER_S)
        if not self._lease.held:
            raise self._lease.refusal()


class _Object:
    """One object, as the place of a lease."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name

    def read(self) -> bytes:
        try:
            return self._objects.read(self._name)
        except FileNotFoundError:
            return b""

    def write(self, content: bytes) -> None:
        self._objects.write(self._name, content)

    def age(self) -> float:
        return self._objects.age(self._name)


def _state(path: Path) -> tuple[int, int]:
    """The modification time and size of a file, by which a change since its upload is seen."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
