"""Going on with a search that was interrupted: what was asked then, and that it is asked again unchanged."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.errors import RequestError, unknown
from search.record import Record
from search.request import LOCATED

FREE = {"resume", "storage", "cache", "address", "cpus_per_trial", "gpus_per_trial", "max_concurrent"}
COMPARED = ("space", "settings", "seed")


def options(given: argparse.Namespace, defaults: argparse.Namespace) -> argparse.Namespace:
    """The options of the interrupted search, with those of `given` that only say where and how to run.

    Raises:
        RequestError: no such search, one that is over, or an option that would change what was asked.
    """
    storage = Path(given.storage)
    changed = [name for name in vars(given) if name not in FREE and getattr(given, name) != getattr(defaults, name)]
    faults = [
        f"--{name.replace('_', '-')} cannot be given with --resume: a search goes on as it was" for name in changed
    ]
    record = Record(storage / given.resume)
    if not record.search.is_file():
        known = [path.parent.name for path in storage.glob("*/search.json")]
        which = unknown("search", given.resume, known) if known else f"there is no search '{given.resume}'"
        raise RequestError([*faults, f"--resume: {which} in {storage}"])
    saved = json.loads(record.search.read_text("utf-8"))
    if saved["status"] == "done":
        faults.append(f"--resume {given.resume}: this search is done")
    if faults:
        raise RequestError(faults)
    free = {name: getattr(given, name) for name in FREE}
    found = {name: saved["settings"][name] for name in LOCATED if saved["options"][name] is not None}
    return argparse.Namespace(**{**saved["options"], **found, **free, "name": given.resume})


def demand_unchanged(about: Mapping[str, Any], record: Record) -> None:
    """Check that a request is the one of the record.

    Args:
        about: the request as plain data.
        record: of the interrupted search.

    Raises:
        RequestError: names every difference.
    """
    saved = json.loads(record.search.read_text("utf-8"))
    pairs = {name: (saved[name], json.loads(json.dumps(about[name]))) for name in COMPARED}
    pairs["images"] = (saved["data"]["fingerprint"], about["data"]["fingerprint"])
    faults = [f"{name} was {then}; it is {now} now" for name, (then, now) in pairs.items() if then != now]
    if faults:
        raise RequestError(faults, f"{record.folder.name} cannot go on: what it was asked has changed since; it")
