"""Real searches, as commands: begun, watched, and what they leave."""

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.record import record

PATIENCE_S = 240
ONE_BY_ONE = ("--max-concurrent", "1")  # where one process for trials is enough


def command(folder: Path, *options: str) -> list[str]:
    """The real command, with storage and cache in a folder of the test."""
    where = ["--storage", str(folder / "results"), "--cache", str(folder / "cache")]
    return [sys.executable, "-m", "search.run", *where, *options]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(command(folder, *options), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@contextmanager
def running(folder: Path, *options: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the command while something else is done; `how` is for `Popen`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(folder, *options), **(streams | how)) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(what: Callable[[], Any], process: subprocess.Popen[Any] | None = None) -> Any:
    """Poll until something is there; fail when the process it depends on has ended without it."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        over = process is not None and process.poll() is not None
        if (found := what()) is not None:
            return found
        assert not over, "the process ended first"
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def rows(search: Path) -> list[dict[str, str]]:
    """The record's rows; none while there is no record."""
    path = search / "trials.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def study(search: Path) -> optuna.Study:
    """The study as the journal has it."""
    storage = JournalStorage(JournalFileBackend(str(search / "optuna.journal")))
    return optuna.load_study(study_name=storage.get_all_studies()[0].study_name, storage=storage)


LONG_SPACE = """
from search.space import Budget, Depth, Float, Space

space = Space(
    search={{"unfreeze_depth": Depth(0, 1), "learning_rate": Float(1e-3, 1e-2, log=True)}},
    fixed={{"batch_size": 64, "stop_patience": 1000}},
    budget=Budget(trials={trials}, epochs={epochs}, first_rung={epochs}),
)
"""


def long_space(folder: Path, trials: int = 6, epochs: int = 40) -> str:
    """A space whose trials nothing ends before their last epoch, so that there is time to do something to them."""
    (folder / "long.py").write_text(LONG_SPACE.format(trials=trials, epochs=epochs))
    return str(folder / "long.py")


UNEVEN_SPACE = """
from search.space import Budget, Depth, Float, Int, Space

space = Space(
    search={{
        "unfreeze_depth": Depth(0, 1),
        "learning_rate": Float(1e-3, 1e-2, log=True),
        "stop_patience": Int(1, 1000),
    }},
    fixed={{"batch_size": 64}},
    start=[
        {{"unfreeze_depth": 0, "learning_rate": 1e-2, "stop_patience": 1}},
        {{"unfreeze_depth": 1, "learning_rate": 3e-3, "stop_patience": 1000}},
    ],
    budget=Budget(trials={trials}, epochs={epochs}, first_rung={epochs}),
)
"""


def uneven_space(folder: Path, trials: int = 3, epochs: int = 40) -> str:
    """A space whose first trial ends soon; of the others there is time to do something to one in the middle."""
    (folder / "uneven.py").write_text(UNEVEN_SPACE.format(trials=trials, epochs=epochs))
    return str(folder / "uneven.py")


def in_the_middle(search: Path) -> list[str] | None:
    """The trials of a search that are far from their end, once another has ended."""
    known = record.read(search).rows.values() if (search / "history.jsonl").exists() else []
    begun = [row.trial for row in known if row.state == "running" and 2 < row.epochs <= 16]
    return begun if begun and any(row.state != "running" for row in known) else None


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the trial workers below a search."""
    found = []
    for status in Path("/proc").glob("[0-9]*/environ"):
        pid = int(status.parent.name)
        try:
            name = (status.parent / "cmdline").read_bytes()
            if name.startswith(b"ray::ImplicitFunc") and process.pid in ancestors(pid):
                found.append(pid)
        except (OSError, ValueError):
            continue
    return found


def ancestors(pid: int) -> list[int]:
    """The process ids above one."""
    found = []
    while pid > 1:
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def accuracy_of_the_model(search: Path) -> float:
    """The test accuracy of the exported model, as plain Keras finds it on the images that the split names."""
    code = """
import json, sys
from pathlib import Path
import keras
from search.data import store
best = Path(sys.argv[1])
split = json.loads((best / "split.json").read_text())
found = store.find(split["data"], seed=0, max_bad_files=0)
dataset = store.decode(found, max_bad_files=0, image_size=32, cache=Path(sys.argv[2]))
assert list(dataset.items["test"]) == split["test"]
images, labels = store.load(dataset, "test", 32, Path(sys.argv[2]))
guess = keras.models.load_model(best / "model.keras").predict(images[:], verbose=0).argmax(1)
print(float((guess == labels).mean()))
"""
    arguments = [sys.executable, "-c", code, search / "best", search.parent / "check"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])
