"""This project's run of a workload: `python -m search.run` as a user gives it, with all its defaults.

    python -m benchmarks.ours WORKLOAD.json OUT.json

A space file says what the workload says; the cache begins empty. The command is watched from outside: its time, the
time to the first epoch in `trials.csv`, the versions of the files among its checkpoints, looked at 20 times a second.
After a workload `equal`, a second search goes over the same data with other learning rates and the same cache.
"""

import csv
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.rivals.log import Log, arguments, grid

SPACE = """from search.space import Budget, Depth, Float, Space

space = Space(
    search={{"unfreeze_depth": Depth({low}, {high}), "learning_rate": Float(1e-5, 1e-1, log=True)}},
    fixed={fixed},
    start={start},
    budget=Budget({budget}),
)
"""
FIXED = ("batch_size", "plateau_patience", "plateau_factor", "stop_patience")
SECONDS_BETWEEN_LOOKS = 0.05


class Watcher(threading.Thread):
    """Looks at a search's folder while it runs.

    Attributes:
        first_epoch_s: seconds from `started` until `trials.csv` held a finished epoch.
        written: bytes of all versions of all checkpoints; a version counts once it is the same at two looks.
    """

    def __init__(self, folder: Path, started: float) -> None:
        super().__init__(daemon=True)
        self.first_epoch_s: float | None = None
        self.written = 0
        self._folder, self._began = folder, started
        self._over = threading.Event()
        self._before: set[tuple[int, int, int]] = set()
        self._counted: set[tuple[int, int, int]] = set()

    def run(self) -> None:
        """Look until `finish`."""
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def finish(self) -> None:
        """Look for the last time."""
        self._over.set()
        self.join()
        self._look()
        self._look()

    def _look(self) -> None:
        if self.first_epoch_s is None and any(int(row["epochs"]) for row in rows(self._folder)):
            self.first_epoch_s = time.monotonic() - self._began
        now = set()
        for path in self._folder.glob("trials/*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # renamed in between
                continue
            now.add((status.st_ino, status.st_mtime_ns, status.st_size))
        stable = (now & self._before) - self._counted
        self.written += sum(size for _, _, size in stable)
        self._counted |= stable
        self._before = now


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a search's `trials.csv`; none while there is no such file."""
    try:
        with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def write_space(path: Path, workload: dict[str, Any], start: list[dict[str, Any]], trials: int) -> None:
    """Write the space file."""
    depths, keys = workload["unfreeze_depths"], ("epochs", "first_rung", "reduction_factor")
    path.write_text(
        SPACE.format(
            low=depths[0],
            high=depths[-1],
            fixed={**{name: workload[name] for name in FIXED}, "stopping": "asha"},  # as the rivals
            start=start,
            budget=", ".join([f"trials={trials}", *(f"{key}={workload[key]}" for key in keys)]),
        ),
        encoding="utf-8",
    )


def search(name: str, workload: dict[str, Any]) -> dict[str, Any]:
    """Run one search with the space `<name>.py`; give its times, and the bytes of its checkpoints."""
    command = [sys.executable, "-m", "search.run", "--space", f"{name}.py", "--name", name]
    command += ["--storage", "storage", "--cache", "cache", "--set", f"image_size={workload['image_size']}"]
    command += ["--data", workload["data"], "--backbone", workload["backbone"], "--weights", workload["weights"]]
    started = time.monotonic()
    watcher = Watcher(Path("storage", name), started)
    watcher.start()
    subprocess.run(command, check=True)
    wall = time.monotonic() - started
    watcher.finish()
    return {"wall_s": wall, "first_epoch_s": watcher.first_epoch_s, "checkpoint_bytes": watcher.written}


def accuracies(folder: Path) -> list[tuple[float, float]]:
    """When each epoch's validation accuracy was logged for TensorBoard, in order."""
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util import tensor_util

    found = []
    for trial in sorted((folder / "tensorboard").glob("*/validation")):
        logged = EventAccumulator(str(trial), size_guidance={TENSORS: 0})
        logged.Reload()
        events = logged.Tensors("epoch_accuracy")
        found += [(event.wall_time, float(tensor_util.make_ndarray(event.tensor_proto))) for event in events]
    return sorted(found)


def main() -> None:
    """Run the workload."""
    workload, out = arguments(__doc__)
    equal = workload["kind"] == "equal"
    write_space(Path("bench.py"), workload, grid(workload) if equal else [], workload["trials"])
    log, started = Log(), time.time()
    more = search("bench", workload)
    if equal:
        start = [{"unfreeze_depth": depth, "learning_rate": 1.5e-3} for depth in workload["unfreeze_depths"]]
        write_space(Path("second.py"), workload, start, len(start))
        more["second"] = {**search("second", workload), "trials": len(start)}
    folder = Path("storage", "bench")
    for row in rows(folder):
        names = {"unfreeze_depth": int, "learning_rate": float}
        configuration = {name: kind(row[name]) for name, kind in names.items()}
        numbers = {"epochs": int(row["epochs"]), "val_accuracy": float(row["val_accuracy"] or 0)}
        log.trials.append({"configuration": configuration, **numbers, "seconds": float(row["seconds"])})
    best = 0.0
    for at, accuracy in accuracies(folder):
        if accuracy > best:
            best = accuracy
            log.events.append((round(at - started, 3), accuracy))
    log.write(out, **more)


if __name__ == "__main__":
    main()
