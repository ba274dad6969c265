"""What a tool's run leaves for the benchmark: its trials, when which accuracy was known, its checkpoints' bytes."""

import argparse
import json
import time
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("finetune-search", "keras", "keras-tuner", "numpy", "optuna", "optuna-integration", "ray", "tensorflow")


def arguments(about: str | None) -> tuple[dict[str, Any], Path]:
    """Read the command line `WORKLOAD.json OUT.json`: the workload, and where the results go."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    return json.loads(options.workload.read_text(encoding="utf-8")), options.out.absolute()


def grid(workload: dict[str, Any]) -> list[dict[str, Any]]:
    """The given configurations of a workload `equal`."""
    values = product(workload["unfreeze_depths"], workload["learning_rates"])
    return [{"unfreeze_depth": depth, "learning_rate": rate} for depth, rate in values]


def versions() -> dict[str, str]:
    """The versions of the packages that take part."""
    found = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


class Log:
    """Collects the trials and the accuracies of one process. Times count from the start of the process."""

    def __init__(self) -> None:
        self.started = psutil.Process().create_time()
        self.trials: list[dict[str, Any]] = []
        self.events: list[tuple[float, float]] = []
        self.checkpoint_bytes = 0
        self._seen: dict[Path, tuple[int, int, int]] = {}

    def begin(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """A trial begins; give its row."""
        row = {"configuration": configuration, "epochs": 0, "val_accuracy": None, "seconds": time.monotonic()}
        self.trials.append(row)
        return row

    def epoch(self, val_accuracy: float, row: dict[str, Any] | None = None) -> None:
        """A trial, the last one begun unless `row` says which, has finished an epoch."""
        row = row or self.trials[-1]
        row["epochs"] += 1
        row["val_accuracy"] = max(row["val_accuracy"] or 0.0, val_accuracy)
        if not self.events or val_accuracy > self.events[-1][1]:
            self.events.append((round(time.time() - self.started, 3), val_accuracy))

    def end(self, row: dict[str, Any] | None = None) -> None:
        """A trial, the last one begun unless `row` says which, has ended."""
        row = row or self.trials[-1]
        row["seconds"] = round(time.monotonic() - row["seconds"], 3)

    def look_at(self, checkpoint: Path) -> None:
        """Count a checkpoint's bytes if it was written since it was last looked at."""
        if checkpoint.exists():
            status = checkpoint.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._seen.get(checkpoint) != version:
                self._seen[checkpoint] = version
                self.checkpoint_bytes += status.st_size

    def write(self, path: Path, **more: Any) -> None:
        """Write what was collected."""
        known = {"trials": self.trials, "events": self.events, "checkpoint_bytes": self.checkpoint_bytes}
        path.write_text(json.dumps({**known, "versions": versions(), **more}), encoding="utf-8")
