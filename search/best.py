"""The model that a finished search ended with: what is known of it, and the model itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.data.reading import Greys
from search.errors import RequestError, StorageError, cause
from search.record import files, stored
from search.record.record import Record, read_search
from search.report.conclusion import again, needs
from search.task.task import Task
from search.task.tasks import TASKS

if TYPE_CHECKING:
    import keras

PARTS = tuple(f"{files.BEST}/{name}" for name in (files.MODEL, files.METRICS, files.READING, files.SPLIT))


@dataclass(frozen=True)
class Best:
    """What a search's `best/` says of its model.

    Args:
        record: of the search.
        uri: of the search in object storage, of which `record` is a copy; empty if the storage is a folder.
        about: `search.json`.
        metrics: `metrics.json`.
        image_size: side in pixels of the images that the model takes.
        greys: the range by which images with more than 8 bits of grey are scaled.
    """

    record: Record
    uri: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]
    image_size: int
    greys: Greys

    @property
    def classes(self) -> list[str]:
        """The names of the model's outputs, in their order: classes, labels or numbers."""
        return list(self.metrics["classes"])

    @property
    def task(self) -> Task:
        """What the model predicts."""
        return TASKS[self.metrics.get("task", "classification")]

    @property
    def thresholds(self) -> list[float]:
        """Of each label the probability above which an image has it; empty where images have one class or numbers."""
        return [label["threshold"] for label in self.metrics.get("labels", [])]

    @property
    def model(self) -> Path:
        """The model's file."""
        return self.record.files.model


def find(storage: str, name: str) -> Best:
    """Find the model of a search.

    Args:
        storage: a folder, or the URI of object storage, from which the model is fetched.
        name: of the search.

    Raises:
        RequestError: there is no such search, it has no model, or plain Keras cannot load its model.
        StorageError: a file cannot be read.
    """
    (record,) = stored.opened(storage, [name], *PARTS)
    about, uri = read_search(record.folder), stored.uri(storage, name)
    best = record.files.best
    missing = [part for part in (files.MODEL, files.METRICS, files.READING) if not (best / part).exists()]
    if missing:
        raise RequestError([_no_model(record, str(about.get("status")), missing)])
    metrics, reading = _json(best / files.METRICS), _json(best / files.READING)
    if said := needs(metrics):
        raise RequestError(
            [f"{record.files.model} cannot be loaded without your own code{said}; then predict or export with Keras"]
        )
    try:
        return Best(record, uri, about, metrics, int(reading["image_size"]), Greys(*map(float, reading["greys"])))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{best / files.READING} is not what a search writes: {cause(error)}") from error


def load(best: Best) -> "keras.Model":
    """Load the model; call it in `importing_keras`, or after it.

    Raises:
        StorageError: the file is damaged, or of a newer Keras.
    """
    import keras

    try:
        return keras.models.load_model(best.model, compile=False)
    except Exception as error:
        made = best.about.get("versions", {}).get("keras", "unknown")
        raise StorageError(
            f"{best.model} cannot be loaded: {cause(error)}; it was written by Keras {made}, and this is "
            f"{keras.__version__}. If the file is damaged, take a copy, or run the search again"
        ) from error


def _no_model(record: Record, status: str, missing: list[str]) -> str:
    if files.MODEL not in missing:
        return f"{record.files.best} lacks {' and '.join(missing)}, which a search writes beside its model"
    name = f"the search {record.folder.name}"
    if status == "done":
        return f"{name} is done, but {record.files.model} is gone: bring it back, or run the search again"
    said = "running, or was killed" if status == "running" else status
    return f"{name} has no model yet: it is {said}; to go on with it: {again(record)}"


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{path} cannot be read: {cause(error)}") from error
