"""Resuming an interrupted search: reads what was requested then, and checks that the request is still the same."""

import argparse
import difflib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.errors import RequestError, unknown
from search.record import mirror
from search.record.files import searches
from search.record.lock import Lock
from search.record.objects import local, remote
from search.record.record import NAME, Record, read, read_search
from search.request.request import LOCATED, cache_folder
from search.setting import Value
from search.space.settings import SETTINGS

FREE = {"resume", "storage", "cache", "address", "cpus_per_trial", "gpus_per_trial", "max_concurrent"}
MOVABLE = (*LOCATED, "space")  # these may have moved; their content must be the same
_DONE = "--resume {}: this search is done"


def options(given: argparse.Namespace, defaults: argparse.Namespace) -> argparse.Namespace:
    """The options of the interrupted search, with those of `given` that only say where and how to run.

    Raises:
        RequestError: there is no such search, it is done, others can write its folder, an option would change what was
            requested, or a file or folder that it needs is no longer where it was.
        StorageError: its record cannot be read.
    """
    away = remote(given.storage)
    storage = local(given.storage, cache_folder(given.cache)) if away else Path(given.storage)
    told = {name: value for name, value in vars(given).items() if name not in FREE and value != getattr(defaults, name)}
    faults = [
        f"--{name.replace('_', '-')} cannot be given with --resume: a search goes on as it was"
        for name in told
        if name not in MOVABLE
    ]
    found, named = Record(storage / given.resume), NAME.fullmatch(given.resume)
    if away and named:
        found.folder.mkdir(parents=True, exist_ok=True)
        with Lock(found.folder):
            mirror.fetch_record(given.storage, given.resume, found.folder)
    if not named or not found.exists:
        known = searches(storage)
        which = unknown("search", given.resume, known) if known else f"there is no search '{given.resume}'"
        raise RequestError([*faults, f"--resume: {which} in {given.storage}"])
    if untrusted := _untrusted(found.folder):
        raise RequestError([*faults, *untrusted])  # so its content is not read
    saved = read_search(found.folder)
    if saved["status"] == "done":
        faults.append(_DONE.format(given.resume))
    places = {name: saved["settings"][name] for name in LOCATED} | {"space": saved["options"]["space"]}
    faults += [
        f"--resume {given.resume}: {places[name]}, its {name}, is not there any more; say where it is now with --{name}"
        for name in MOVABLE
        if name not in told and _gone(name, str(places[name]))
    ]
    if faults:
        raise RequestError(faults)
    free = {name: getattr(given, name) for name in FREE}
    located = {name: places[name] for name in LOCATED if saved["options"][name] is not None}
    others = [assignment for assignment in saved["options"]["set"] if not assignment.startswith("stopping=")]
    kept = {"set": [*others, f"stopping={_rule(saved)}"]}
    return argparse.Namespace(**{**saved["options"], **kept, **located, **told, **free, "name": given.resume})


def _defaults(saved: Mapping[str, Any]) -> dict[str, Value]:
    """The default of every setting, for those that a record lacks because an older version began the search."""
    return {name: setting.default for name, setting in SETTINGS.items()} | {"stopping": _rule(saved)}


def _rule(saved: Mapping[str, Any]) -> str:
    """The stopping rule that a search began with; ASHA if the record names none, as versions then had only ASHA."""
    return str(saved["settings"].get("stopping", "asha"))


def _gone(name: str, place: str) -> bool:
    """Whether a file or folder is no longer where it was; what has only a name, not a path, is part of the project."""
    is_path = place.endswith(".py") if name == "space" else Path(place).is_absolute()
    return is_path and not Path(place).exists()


def record(folder: Path, about: Mapping[str, Any]) -> Record:
    """The record of a search that is resumed, if the request is what it was.

    Args:
        folder: of the search; this process holds its lock.
        about: the request as plain data.

    Raises:
        RequestError: names every difference, or says that the search is done.
        StorageError: the record is gone.
    """
    saved = read_search(folder)
    if saved["status"] == "done":
        raise RequestError([_DONE.format(folder.name)])
    if faults := _differences(saved, json.loads(json.dumps(about))):
        raise RequestError(faults, f"--resume {folder.name}")
    return read(folder)


def changes(options: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `search.json` that say where files and folders are, with their present places."""
    return {"options": dict(options), "settings": about["settings"], "files": about["files"]}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between the request then and now; data, backbone and weights are compared by content if known."""
    pairs = {"seed": (then["seed"], now["seed"])}
    for part in ("space", "settings"):
        before = {**(_defaults(then) if part == "settings" else {}), **then[part]}
        names = [name for name in {**then[part], **now[part]} if name not in LOCATED]
        pairs |= {f"{part}: {name}": (before.get(name), now[part].get(name)) for name in names}
    texts = pairs.pop("space: own", ("", ""))
    faults = [
        f"{what} was {before!r}, and is {after!r} now" for what, (before, after) in pairs.items() if before != after
    ]
    if texts[0] != texts[1]:
        was, is_now = ((text or "").splitlines() for text in texts)
        lines = difflib.unified_diff(was, is_now, "then", "now", lineterm="")
        faults.append("\n    ".join(["the space file has components of its own, and is another one now:", *lines]))
    for name in ("backbone", "weights"):
        before, after = then["settings"][name], now["settings"][name]
        known, found = then.get("files", {}).get(name), now["files"].get(name)
        if (known != found) if known else (before != after):
            sure = "is not" if known or not found else "is not known to be"
            faults.append(f"{name}: {after} {sure} what {before} was when the search began")
    if then["data"]["fingerprint"] != now["data"]["fingerprint"]:
        before, after = then["settings"]["data"], now["settings"]["data"]
        faults.append(f"data: the images of {after} are not those of {before} when the search began")
    return faults


def _untrusted(folder: Path) -> list[str]:
    """Faults if others could have written the folder: a search runs its space file and loads the files it names."""
    status = folder.stat()
    place = "a place where files keep their owner and their mode"
    advice = f"if you trust what is in it, copy it with cp -r to {place}, and go on there with --storage"
    if hasattr(os, "getuid") and status.st_uid not in (os.getuid(), 0):
        return [f"{folder} belongs to user {status.st_uid}, not to you ({os.getuid()}); {advice}"]
    if status.st_mode & stat.S_IWOTH:
        return [f"{folder} can be written by everybody; {advice}, or chmod o-w it, if it lies in such a place"]
    return []
