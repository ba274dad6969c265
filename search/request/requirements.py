"""What is checked on a node of a cluster before a trial runs there: the question, the check and the answer."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from search import machine
from search.data import store
from search.data.settings import DataSettings
from search.errors import SearchError
from search.record.objects import Objects, below

MARK = "mark"


@dataclass(frozen=True)
class Question:
    """What a node of a cluster must fulfil.

    Args:
        mark: a file in the storage that holds its own name.
        uri: of the folder that holds the mark, in object storage; empty if the storage is a folder.
        source: of the images; `seed`, `max_bad_files`, `settings`, `fingerprint` are those of this machine's dataset.
        files: path → SHA-256 in hex of the files of backbone and weights.
        cache: the node's cache.
        bytes: that images and features take in the cache.
        gpus: whether trials need GPUs.
        versions: of Python and packages on this machine.
        fit: the ids of the nodes that passed the check.
    """

    mark: Path
    uri: str
    source: str
    seed: int
    max_bad_files: float
    settings: DataSettings
    fingerprint: str
    files: Mapping[str, str]
    cache: Path
    bytes: int
    gpus: bool
    versions: Mapping[str, str]
    fit: frozenset[str] = frozenset()


def differences(here: Mapping[str, str]) -> list[str]:
    """The packages whose version on this node differs from that of the driver's machine.

    Args:
        here: the versions on the driver's machine. In the messages, "here" is that machine and "there" this node.
    """
    there = machine.versions()
    return [
        f"{package} is {there.get(package) or 'not installed'} there, {version} here; install the same on both"
        for package, version in here.items()
        if there.get(package) != version
    ]


class Answer(NamedTuple):
    """What a node answers.

    Args:
        faults: what is wrong on the node.
        stored: whether the node has found the storage, and written its own mark there.
    """

    faults: list[str]
    stored: bool


def look(question: Question, node: str, gpus: float) -> Answer:
    """Check this node.

    Args:
        node: its id.
        gpus: how many GPUs it has according to Ray.
    """
    missing = stored(question, node)
    faults = [*missing, *_data(question), *_files(question.files), *_cache(question)]
    if question.gpus and gpus != (seen := tensorflow_gpus()):
        faults.append(
            f"Ray has {gpus:g} GPUs there, TensorFlow sees {seen}; check the driver, and tensorflow[and-cuda]"
        )
    return Answer(faults + differences(question.versions), not missing)


def stored(question: Question, node: str) -> list[str]:
    """Check the storage from this node; return its faults."""
    return _objects(question.uri, node) if question.uri else _storage(question.mark, node)


def tensorflow_gpus() -> int:
    """How many GPUs TensorFlow sees here, in a new process, because Ray hides them from a task that reserved none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    program = "import tensorflow; print('\\n', len(tensorflow.config.list_physical_devices('GPU')))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _storage(mark: Path, node: str) -> list[str]:
    try:
        if mark.read_text("utf-8") != mark.name:
            return [f"storage {mark.parent.parent} holds something else there"]
        mark.with_name(node).write_text(node, "utf-8")
    except FileNotFoundError:
        return [f"storage {mark.parent.parent} is not the shared folder there; mount it at the same path"]
    except OSError as error:
        return [f"storage {mark.parent.parent} cannot be written there: {error.strerror}"]
    return []


def _objects(uri: str, node: str) -> list[str]:
    storage = below(uri)
    try:
        objects = Objects(uri)
        if objects.read(MARK) != MARK.encode():
            return [f"storage {storage} holds something else there"]
        objects.write(node, b"")
    except (OSError, ValueError) as error:
        return [f"storage {storage} cannot be used there: {str(error).splitlines()[0]}"]
    return []


def _data(question: Question) -> list[str]:
    if wrong := store.faults(question.source):
        return [f"data {fault}" for fault in wrong]
    try:
        found = store.find(
            question.source, seed=question.seed, max_bad_files=question.max_bad_files, settings=question.settings
        )
    except (SearchError, OSError) as error:
        return [f"data {error}"]
    if found.fingerprint != question.fingerprint:
        return [f"data {question.source}: other images there than here; share the folder, or copy it once more"]
    return []


def _files(files: Mapping[str, str]) -> list[str]:
    faults = []
    for name, expected in files.items():
        try:
            if digest(Path(name)) != expected:
                faults.append(f"{name} is another file there than here")
        except OSError as error:
            faults.append(f"{name} cannot be read there: {error.strerror}")
    return faults


def _cache(question: Question) -> list[str]:
    if fault := machine.unwritable(question.cache):
        return [f"cache {question.cache}: {fault}"]
    free = machine.free(question.cache)
    if free < question.bytes:
        wanted, has = question.bytes >> 20, free >> 20
        return [f"cache {question.cache} needs {wanted:,} MiB for images and features, and has {has:,} MiB free"]
    return []
