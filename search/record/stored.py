"""Searches in a storage, opened for reading."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from search.errors import RequestError, unknown
from search.record import files, mirror
from search.record.objects import joined, local, remote
from search.record.record import NAME, Record, read


def opened(given: str, names: Sequence[str], *others: str) -> list[Record]:
    """Read the records of searches. One in object storage is fetched to a temporary folder of this machine.

    Args:
        given: the storage: a folder, or a URI.
        others: the beginnings of the names of other files that are fetched.

    Raises:
        RequestError: names every search that is not there.
        StorageError: a record cannot be read.
    """
    away = remote(given)
    storage = local(given, Path(tempfile.mkdtemp(prefix="finetune-search-"))) if away else Path(given)
    for name in names:
        if away and NAME.fullmatch(name):
            (storage / name).mkdir(parents=True, exist_ok=True)
            mirror.fetch_record(given, name, storage / name, *others)
    known = files.searches(storage)
    missing = [name for name in names if name not in known]
    if missing and not known:
        there = "" if away or storage.is_dir() else ": there is no such folder"
        raise RequestError(
            [f"no search '{name}' in {given}{there}; say where it is with --storage" for name in missing]
        )
    if missing:
        raise RequestError([f"{unknown('search', name, known)} in {given}" for name in missing])
    return [read(storage / name) for name in dict.fromkeys(names)]


def uri(given: str, name: str) -> str:
    """The URI of a search in object storage; empty if the storage is a folder."""
    return joined(given, name) if remote(given) else ""
