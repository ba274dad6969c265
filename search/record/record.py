"""The record of a search on disk: `search.json`, the history and `trials.csv`, which has one row per trial.

Reports are made only from the record, and a search is resumed only from it. The history holds what happened to the
trials; `trials.csv` is made from the history.
"""

import csv
import io
import json
import math
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from search import atomic
from search.errors import RequestError, StorageError
from search.record.files import CHECKPOINTS, LOCK, READING, Files
from search.record.history import Event, History
from search.record.mirror import Mirror
from search.record.states import COMPLETED, DIVERGED, RUNNING, STOPPED
from search.setting import Value
from search.task.metric import LOSS, OF_VALIDATION
from search.task.objective import Objective

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
COLUMNS = ("trial", "state", "reason", "epochs", "best_epoch")
NAMED = 3
SHORT = {"unfreeze_depth": "depth", "learning_rate": "lr", "weight_decay": "decay", "batch_size": "batch"}
SEED = "seed"
SECONDS_BETWEEN_WRITES = 1.0
FEW_TRIALS, SECONDS_PER_TRIAL = 100, 1e-3


class Point(NamedTuple):
    """A trial's values after an epoch: the best objective so far, and the validation loss of this epoch."""

    objective: float
    val_loss: float


@dataclass(frozen=True)
class Row:
    """One trial: its state, and the metrics of its best epoch.

    Args:
        figures: metric → its value; without values that are not finite; empty before the first epoch.
        rung: the epoch at which a stopping rule stopped the trial; `None` if none did.
    """

    trial: str
    parameters: Mapping[str, Value]
    state: str = RUNNING
    reason: str = ""
    epochs: int = 0
    best_epoch: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    rung: int | None = None

    @property
    def confirms(self) -> bool:
        """Whether the trial runs a configuration of the search again, with another seed."""
        return SEED in self.parameters

    @property
    def configuration(self) -> tuple[tuple[str, Value], ...]:
        """The parameters without the seed."""
        return tuple(sorted((name, value) for name, value in self.parameters.items() if name != SEED))

    def value(self, metric: str) -> float | None:
        """A metric at the best epoch; `None` if it has no value."""
        return self.figures.get(metric)

    def after(self, metrics: Mapping[str, Any]) -> "Row":
        """The row after one more reported epoch (see `training.train`)."""
        figures = {
            name: value
            for name, value in metrics.items()
            if name.startswith(OF_VALIDATION) and value is not None and math.isfinite(value)
        }
        best = {"best_epoch": metrics["best_epoch"], "figures": figures}
        known: dict[str, Any] = best if metrics["objective"] is not None and math.isfinite(metrics["objective"]) else {}
        row = replace(self, epochs=metrics["epoch"], seconds=metrics["seconds"], **known)
        ending, reason = (metrics["ending"], metrics["reason"]) if "reason" in metrics else _former(metrics["ending"])
        return row.ended(ending, reason) if ending else row

    def ended(self, state: str, reason: str) -> "Row":
        """The row after the trial has ended."""
        return replace(self, state=state, reason=reason)


@dataclass
class Record:
    """The folder of one search, and what is known about its trials.

    Args:
        folder: `<storage>/<name>`.
        rows: trial → its row.
        curves: trial → epoch, from 1 → the trial's values after it; without epochs whose objective is not a number.
        seconds: how long the search had run at its last event, without the time when it was interrupted.
        damaged: how many lines of the history could not be read.
        mirror: of the object storage that holds the search; `None` if the storage is a folder.
        objective: of the search; its metrics are columns of `trials.csv`.
    """

    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    curves: dict[str, dict[int, Point]] = field(default_factory=dict)
    seconds: float = 0.0
    damaged: int = 0
    mirror: Mirror | None = field(default=None, repr=False)
    objective: Objective = field(default_factory=Objective, repr=False)
    _written_at: float = -math.inf
    _changed: bool = False

    def __post_init__(self) -> None:
        self.files = Files(self.folder)
        self.history = History(self.files.history)

    @property
    def home(self) -> str:
        """Where the search is stored, for messages."""
        return self.mirror.uri if self.mirror else str(self.folder)

    def run(self, trial: str, parameters: Mapping[str, Value]) -> Path:
        """The folder of one trial's TensorBoard events."""
        return self.files.tensorboard / run_name(trial, parameters)

    @property
    def exists(self) -> bool:
        """Whether a search has begun in this folder."""
        return self.files.search.exists() or self.files.previous.exists()

    @property
    def vacant(self) -> bool:
        """Whether a new search may begin in this folder: it is missing or empty, or has only a killed search's lock."""
        if not self.folder.is_dir():
            return not self.folder.exists()
        return all(path.name == LOCK for path in self.folder.iterdir())

    @property
    def ended(self) -> list[Row]:
        """The trials that have ended."""
        return [row for row in self.rows.values() if row.state != RUNNING]

    def create(self, **about: Any) -> None:
        """Begin the record of a new search in its folder, which must exist.

        Args:
            about: the fields of `search.json`.

        Raises:
            RequestError: the folder holds a search already.
        """
        if not self.vacant:
            raise RequestError([f"{self.folder} holds a search already; take another --name, or --resume it"])
        write_json(self.files.search, about)
        for folder in (self.files.ray, self.files.tensorboard, self.folder / CHECKPOINTS):
            folder.mkdir()
        self.write_trials()

    def write_search(self, **changes: Any) -> None:
        """Change fields of `search.json`; the version before the change is kept beside it.

        Raises:
            StorageError: there is no `search.json` that can be read.
            OSError: it cannot be written.
        """
        known = read_search(self.folder)
        write_json(self.files.previous, known)
        write_json(self.files.search, {**known, **changes})

    def note(self, event: Event, now: bool = False) -> Row | None:
        """Append an event to the history, and update `trials.csv`, see `follow`.

        Events: `started` with `parameters`; `epoch` with `metrics`, the `process`, and `rung` and `rule` if a rule
        stopped the trial there; `ended` with `state` and `reason`, if they do not follow from the last epoch; `died`
        with `reason`, when the trial's process died and the trial will continue; `alive`, which concerns no trial.

        Args:
            event: JSON, with its `event`, its `trial` and `at`, the seconds that the search has run.
            now: whether the event must be written at once.

        Returns:
            The trial's row; `None` if the event changes none.

        Raises:
            OSError: a file cannot be written.
        """
        row = self._apply(event)
        over = row is not None and row.state != RUNNING
        self.history.append(event, now or over)
        self._changed |= row is not None
        self.follow(now or over)
        return row

    def follow(self, now: bool = False) -> None:
        """Write `trials.csv` if it is older than the history and was not written within `SECONDS_BETWEEN_WRITES`.

        Args:
            now: do not wait for that interval. With more than `FEW_TRIALS` trials, `SECONDS_PER_TRIAL` times their
                number must still pass between two writes.

        Raises:
            OSError: the file cannot be written.
        """
        least = 0.0 if now else SECONDS_BETWEEN_WRITES
        pause = max(least, SECONDS_PER_TRIAL * len(self.rows)) if len(self.rows) > FEW_TRIALS else least
        if self._changed and time.monotonic() - self._written_at >= pause:
            self.write_trials()

    def _apply(self, event: Event) -> Row | None:
        self.seconds = max(self.seconds, event["at"])
        trial = event.get("trial", "")
        row = self.rows.get(trial)
        match event["event"]:
            case "started" if not row or row.state == RUNNING:
                row = row or Row(trial, event["parameters"])
            case "epoch" if row and row.state == RUNNING:
                row = self._after(row, event)
            case "ended" if row and row.state == RUNNING:
                row = row.ended(event["state"], event["reason"])
            case _:
                return None
        self.rows[trial] = row
        return row

    def _after(self, row: Row, event: Event) -> Row:
        metrics = event["metrics"]
        if metrics["objective"] is not None:
            loss = metrics.get(f"last_{LOSS}")
            point = Point(metrics["objective"], math.nan if loss is None else loss)
            self.curves.setdefault(row.trial, {})[metrics["epoch"]] = point
        row = row.after(metrics)
        if not (rung := event.get("rung")):
            return row
        return replace(row.ended(STOPPED, f"by {event.get('rule', 'ASHA')} at epoch {rung}"), rung=rung)

    def write_trials(self) -> None:
        """Write `trials.csv`, in the order of the trials."""
        rows = [self.rows[trial] for trial in sorted(self.rows)]
        parameters = list(dict.fromkeys(name for row in rows for name in row.parameters))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        figures = list(dict.fromkeys((*self.objective.metrics, *(name for row in rows for name in row.figures))))
        writer.writerow([*COLUMNS, *figures, "seconds", *parameters])
        for row in rows:
            told = [getattr(row, name) for name in COLUMNS]
            told += [*(row.figures.get(name) for name in figures), row.seconds]
            writer.writerow([*told, *(row.parameters.get(name) for name in parameters)])
        write_text(self.files.trials, text.getvalue())
        self._changed, self._written_at = False, time.monotonic()


def _former(ending: str) -> tuple[str, str]:
    """The state and the reason, from the history of an older version, which stored both in one text."""
    if ending.startswith("diverged"):
        return DIVERGED, ending.removeprefix("diverged: ")
    return (COMPLETED, ending) if ending else ("", "")


def keep_others_out() -> None:
    """From now on, create files that others cannot write; whether the group can, its umask still decides."""
    os.umask(os.umask(0o077) | stat.S_IWOTH)


def run_name(trial: str, parameters: Mapping[str, Value]) -> str:
    """A readable name of a trial: its number and its first parameters, such as `0003_depth2_lr0.00137_adam`."""
    words = [trial]
    for name, value in list(parameters.items())[:NAMED]:
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        words.append(text if isinstance(value, str) else f"{SHORT.get(name, name)}{text}")
    if SEED in parameters:
        words.append(f"seed{parameters[SEED]}")
    return re.sub(r"[^A-Za-z0-9._-]", "-", "_".join(words))


def read(folder: Path) -> Record:
    """Read the record of a search from its history.

    Raises:
        StorageError: the history is gone or empty, though `trials.csv` has trials.
    """
    record = Record(folder)
    events, record.damaged = record.history.read()
    if not events and record.files.trials.exists() and record.files.trials.read_text("utf-8").count("\n") > 1:
        raise StorageError(
            f"{record.history.path} is gone or empty, and with it what {record.files.trials} was made from"
        )
    for event in events:
        record._apply(event)
    record.rows = dict(sorted(record.rows.items()))
    return record


def read_search(folder: Path) -> dict[str, Any]:
    """The fields of `search.json`, or of its previous version if it cannot be read.

    Raises:
        StorageError: neither can be read.
    """
    faults = []
    for path in (Files(folder).search, Files(folder).previous):
        try:
            return dict(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            faults.append(f"{path}: {error}")
    raise StorageError("\n".join(["the record cannot be read:", *faults]))


def now() -> str:
    """The current time for the record: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_reading(best: Path, greys: Sequence[float], image_size: int) -> None:
    """Write `reading.json` beside the winner's model: how images are read, see `search.data.reading`."""
    write_json(best / READING, {"image_size": image_size, "greys": list(greys)})


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old content or the new content, never a part."""
    with atomic.replacing(path) as file:
        file.write(text.encode())
