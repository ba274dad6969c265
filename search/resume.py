"""Going on with a search that was interrupted: what was asked then, and that it is asked again unchanged."""

import argparse
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search import mirror
from search.errors import RequestError, unknown
from search.lock import Lock
from search.record import NAME, Record, read, read_search
from search.request import LOCATED, cache_folder

FREE = {"resume", "storage", "cache", "address", "cpus_per_trial", "gpus_per_trial", "max_concurrent"}
COMPARED = ("space", "settings", "seed")
_DONE = "--resume {}: this search is done"


def options(given: argparse.Namespace, defaults: argparse.Namespace) -> argparse.Namespace:
    """The options of the interrupted search, with those of `given` that only say where and how to run.

    Raises:
        RequestError: no such search, one that is over, one that others can write, or an option that would change what
            was asked.
        StorageError: its record cannot be read.
    """
    away = mirror.remote(given.storage)
    storage = mirror.local(given.storage, cache_folder(given.cache)) if away else Path(given.storage)
    changed = [name for name in vars(given) if name not in FREE and getattr(given, name) != getattr(defaults, name)]
    faults = [
        f"--{name.replace('_', '-')} cannot be given with --resume: a search goes on as it was" for name in changed
    ]
    found, named = Record(storage / given.resume), NAME.fullmatch(given.resume)
    if away and named:
        found.folder.mkdir(parents=True, exist_ok=True)
        with Lock(found.folder):
            mirror.fetch_record(given.storage, given.resume, found.folder)
    if not named or not found.exists:
        known = [path.parent.name for path in storage.glob("*/search.json")]
        which = unknown("search", given.resume, known) if known else f"there is no search '{given.resume}'"
        raise RequestError([*faults, f"--resume: {which} in {given.storage}"])
    faults += _untrusted(found.folder)
    saved = read_search(found.folder)
    if saved["status"] == "done":
        faults.append(_DONE.format(given.resume))
    if faults:
        raise RequestError(faults)
    free = {name: getattr(given, name) for name in FREE}
    located = {name: saved["settings"][name] for name in LOCATED if saved["options"][name] is not None}
    return argparse.Namespace(**{**saved["options"], **located, **free, "name": given.resume})


def record(folder: Path, about: Mapping[str, Any]) -> Record:
    """The record of a search that goes on, if what is asked is what it was asked.

    Args:
        folder: of the search; it is locked.
        about: the request as plain data.

    Raises:
        RequestError: names every difference, or says that the search is done.
        StorageError: the record is gone.
    """
    saved = read_search(folder)
    if saved["status"] == "done":
        raise RequestError([_DONE.format(folder.name)])
    pairs = {name: (saved[name], json.loads(json.dumps(about[name]))) for name in COMPARED}
    pairs["images"] = (saved["data"]["fingerprint"], about["data"]["fingerprint"])
    faults = [f"{name} was {then}; it is {now} now" for name, (then, now) in pairs.items() if then != now]
    if faults:
        raise RequestError(faults, f"{folder.name} cannot go on: what it was asked has changed since; it")
    return read(folder)


def _untrusted(folder: Path) -> list[str]:
    """Who else could have written what the search goes on from: it runs the space file and loads the files it names."""
    status = folder.stat()
    place = "a place where files keep their owner and their mode"
    advice = f"if you trust what is in it, copy it with cp -r to {place}, and go on there with --storage"
    if hasattr(os, "getuid") and status.st_uid not in (os.getuid(), 0):
        return [f"{folder} belongs to user {status.st_uid}, not to you ({os.getuid()}); {advice}"]
    if status.st_mode & stat.S_IWOTH:
        return [f"{folder} can be written by everybody; {advice}, or chmod o-w it, if it lies in such a place"]
    return []
