"""The search's own record on disk: every file's name, atomic writes, one row per trial.

The record is the truth about a search. Reports read it, and nothing else.
"""

import csv
import io
import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from search.settings import SETTINGS, Value

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
COLUMNS = ("trial", "state", "reason", "epochs", "best_epoch", "val_accuracy", "val_loss", "seconds")
RUNNING, COMPLETED, STOPPED, DIVERGED, FAILED = "running", "completed", "stopped", "diverged", "failed"
SECONDS_BETWEEN_WRITES = 1.0


@dataclass(frozen=True)
class Row:
    """One trial: how it stands, and the figures of its best epoch (`None`: none yet)."""

    trial: str
    parameters: Mapping[str, Value]
    state: str = RUNNING
    reason: str = ""
    epochs: int = 0
    best_epoch: int | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None
    seconds: float = 0.0

    def running(self) -> "Row":
        """The row of a trial that starts or goes on."""
        return replace(self, state=RUNNING, reason="")

    def after(self, metrics: Mapping[str, Any]) -> "Row":
        """The row after an epoch was reported (see `trial.train`)."""
        best = {name: metrics[name] for name in ("best_epoch", "val_accuracy", "val_loss")}
        known = best if math.isfinite(metrics["objective"]) else {}
        return replace(self, epochs=metrics["epoch"], seconds=metrics["seconds"], **known)

    def ended(self, ending: str, stopped: str) -> "Row":
        """The row of a trial that is over: by its own `ending`, or because it was `stopped`."""
        if ending.startswith("diverged"):
            return replace(self, state=DIVERGED, reason=ending.removeprefix("diverged: "))
        if ending:
            return replace(self, state=COMPLETED, reason=ending)
        return replace(self, state=STOPPED, reason=stopped)

    def failed(self, cause: str) -> "Row":
        """The row of a trial that raised an error."""
        return replace(self, state=FAILED, reason=cause)


@dataclass
class Record:
    """The folder of one search, and the rows of its trials.

    Args:
        folder: `<storage>/<name>`.
    """

    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    _written_at: float = -math.inf

    @property
    def search(self) -> Path:
        """What was asked, and how it stands."""
        return self.folder / "search.json"

    @property
    def trials(self) -> Path:
        """One row per trial."""
        return self.folder / "trials.csv"

    @property
    def tensorboard(self) -> Path:
        """The shared directory."""
        return self.folder / "tensorboard"

    @property
    def journal(self) -> Path:
        """The study, for optuna-dashboard."""
        return self.folder / "optuna.journal"

    @property
    def best(self) -> Path:
        """The winner: model, metrics, split."""
        return self.folder / "best"

    @property
    def report(self) -> Path:
        """The pictures."""
        return self.folder / "report.html"

    @property
    def ray(self) -> Path:
        """Ray's own files and the logs."""
        return self.folder / "ray"

    def checkpoints(self, trial: str) -> Path:
        """The folder of one trial's checkpoints."""
        return self.folder / "trials" / trial

    def write_search(self, **changes: Any) -> None:
        """Change fields of `search.json`."""
        known = json.loads(self.search.read_text("utf-8")) if self.search.exists() else {}
        write_json(self.search, {**known, **changes})

    def update(self, row: Row, now: bool = False) -> None:
        """Put a trial's row into the record; the file follows within `SECONDS_BETWEEN_WRITES`, or at once."""
        self.rows[row.trial] = row
        if now or time.monotonic() - self._written_at >= SECONDS_BETWEEN_WRITES:
            self.write_trials()

    def write_trials(self) -> None:
        """Write `trials.csv`, in the order of the trials."""
        rows = [self.rows[trial] for trial in sorted(self.rows)]
        parameters = list(dict.fromkeys(name for row in rows for name in row.parameters))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *parameters])
        for row in rows:
            plain = asdict(row)
            writer.writerow([*(plain[name] for name in COLUMNS), *(row.parameters.get(name) for name in parameters)])
        write_text(self.trials, text.getvalue())
        self._written_at = time.monotonic()


def read(folder: Path) -> Record:
    """Read a search's rows back from `trials.csv`."""
    record = Record(folder)
    if record.trials.exists():
        with record.trials.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                record.rows[line["trial"]] = _row(line)
    return record


def _row(line: Mapping[str, str]) -> Row:
    return Row(
        trial=line["trial"],
        parameters={name: SETTINGS[name].read(text) for name, text in line.items() if name in SETTINGS and text},
        state=line["state"],
        reason=line["reason"],
        epochs=int(line["epochs"]),
        best_epoch=int(line["best_epoch"]) if line["best_epoch"] else None,
        val_accuracy=float(line["val_accuracy"]) if line["val_accuracy"] else None,
        val_loss=float(line["val_loss"]) if line["val_loss"] else None,
        seconds=float(line["seconds"]),
    )


def ranked(rows: Iterable[Row], metric: str) -> list[Row]:
    """The trials that can win, best first: by `metric` at their best epoch, then by the other metric, then by number.

    A trial that diverged or failed cannot win, nor can one that has not ended.
    """

    def key(row: Row) -> tuple[float, float, str]:
        accuracy, loss = -(row.val_accuracy or 0.0), math.inf if row.val_loss is None else row.val_loss
        return (loss, accuracy, row.trial) if metric == "val_loss" else (accuracy, loss, row.trial)

    return sorted((row for row in rows if row.state in (COMPLETED, STOPPED) and row.best_epoch), key=key)


def now() -> str:
    """The time, for the record: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people and programs, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, sync it, rename it: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
