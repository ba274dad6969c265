"""What becomes of plain Ray Tune and Optuna searches when the faults of docs/faults.md happen to them.

    python -m benchmarks.faults [FAULT …]

Each search is begun as its tool's documentation shows, in an empty folder; once a trial has ended the fault is caused;
when the search has ended it is resumed as the documentation shows. The exit status of both, how many of the six trials
were trained to the end, and how many epochs were computed twice is printed as a table for docs/faults.md.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.plain.curve import EPOCHS, TRIALS

TOOLS = {"Ray Tune": "ray_tune", "Optuna": "optuna_study"}
PATIENCE_S = 180


@dataclass
class Search:
    """A search of another tool in a folder of its own."""

    tool: str
    folder: Path
    environment: dict[str, str]
    other: subprocess.Popen[bytes] | None = None

    def begin(self, *options: str) -> subprocess.Popen[bytes]:
        """Begin it, or go on with it."""
        command = [sys.executable, "-m", f"benchmarks.plain.{TOOLS[self.tool]}", str(self.folder), *options]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, and so in what is begun
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **self.environment})

    @property
    def epochs(self) -> list[list[str]]:
        """Process, parameter and number of every epoch that was computed."""
        with contextlib.suppress(FileNotFoundError):
            return [line.split() for line in (self.folder / "epochs").read_text().splitlines()]
        return []

    def reach_the_middle(self, process: subprocess.Popen[bytes]) -> None:
        """Return once a trial has ended and another has begun."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and process.poll() is None:
            epochs = self.epochs
            if any(int(epoch) == EPOCHS for *_, epoch in epochs) and int(epochs[-1][2]) in (3, 4, 5):
                return
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """The processes that compute, the latest first."""
        return [int(pid) for pid, *_ in reversed(self.epochs)]

    def ended(self) -> str:
        """What it says at its end."""
        path = self.folder / "end.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        path.unlink(missing_ok=True)
        return ", ".join(f"{name} {count}" for name, count in found.items()) or "nothing"


def finish(process: subprocess.Popen[bytes]) -> str:
    """The exit status of a process; it is ended when it takes too long."""
    try:
        return str(process.wait(PATIENCE_S))
    except subprocess.TimeoutExpired:
        end(process)
        return f"none in {PATIENCE_S} s"


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


def interrupted(sent: signal.Signals, times: int = 1) -> Callable[[Search, subprocess.Popen[bytes]], None]:
    """A signal, once or more often."""

    def cause(_search: Search, process: subprocess.Popen[bytes]) -> None:
        for _ in range(times):
            process.send_signal(sent)
            time.sleep(0.2)

    return cause


def worker_killed(search: Search, _process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of a trial's process; Optuna's trials run in the driver."""
    os.kill(search.workers()[0], signal.SIGKILL)


def worker_killed_often(search: Search, process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of whatever process takes the same trial, five times."""
    _, x, _ = search.epochs[-1]
    killed: set[int] = set()
    until = time.monotonic() + PATIENCE_S / 3
    while len(killed) < 5 and time.monotonic() < until and process.poll() is None:
        for pid in {int(pid) for pid, found, _ in search.epochs if found == x} - killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.05)


def memory_full(search: Search, process: subprocess.Popen[bytes]) -> None:
    """The memory fills up until Ray's monitor has ended a process and says so."""
    held, until = [], time.monotonic() + PATIENCE_S / 3
    while process.poll() is None and time.monotonic() < until:
        if "OutOfMemoryError" in (search.folder / "said").read_text(errors="replace"):
            return
        held.append(np.ones(256 << 20, np.uint8))


def node_lost(sent: signal.Signals) -> Callable[[Search, subprocess.Popen[bytes]], None]:
    """A signal to all processes of a node; where it stops them they go on after a while."""

    def cause(search: Search, _process: subprocess.Popen[bytes]) -> None:
        raylet = psutil.Process(int((search.folder / "raylet").read_text()))
        family = [raylet, *raylet.children(recursive=True)]
        for one in family:
            one.send_signal(sent)
        time.sleep(10)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)

    return cause


def images_damaged(search: Search, _process: subprocess.Popen[bytes]) -> None:
    """An image is no image any more."""
    (search.folder / "images" / "dark" / "1.png").write_bytes(b"no image any more")


def begun_twice(*options: str) -> Callable[[Search, subprocess.Popen[bytes]], None]:
    """The same search once more at the same time."""

    def cause(search: Search, _process: subprocess.Popen[bytes]) -> None:
        search.other = search.begin(*options)

    return cause


def nothing(_search: Search, _process: subprocess.Popen[bytes]) -> None:
    """The fault is in the trials, or was there before."""


def disk_full(search: Search, _process: subprocess.Popen[bytes]) -> None:
    """The disk of the storage fills up."""
    with contextlib.suppress(OSError), (search.folder / "storage" / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def storage_gone(search: Search, _process: subprocess.Popen[bytes]) -> None:
    """The storage is moved away."""
    (search.folder / "storage").rename(search.folder / "elsewhere")


def frozen(search: Search, on: bool) -> None:
    """Make every folder of the storage immutable, or end that."""
    folders = [path for path in ((search.folder / "storage"), *(search.folder / "storage").rglob("*")) if path.is_dir()]
    subprocess.run(["chattr", "+i" if on else "-i", *folders], check=False)  # noqa: S607


def mend(search: Search, fault: str) -> None:
    """Undo what was done to the storage; do to its files what is done before a resume."""
    storage = search.folder / "storage"
    if fault in DISKS:
        (storage / "ballast").unlink()
    if fault == "open to everybody":
        for path in [storage, *storage.rglob("*")]:
            path.chmod(0o777)
    if fault == "storage gone":
        shutil.rmtree(storage, ignore_errors=True)
        (search.folder / "elsewhere").rename(storage)
    if fault == "storage read-only":
        frozen(search, on=False)
    if fault == "snapshot truncated":
        for path in [*storage.glob("search/experiment_state-*.json"), *storage.glob("study.db")]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if fault == "checkpoint truncated":
        for path in storage.glob("search/*/checkpoint_*/state.json"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def prepare(search: Search, fault: str) -> None:
    """Do what is there before the search begins."""
    storage = search.folder / "storage"
    storage.mkdir()
    if fault in DISKS:
        disk = ["mount", "-t", "tmpfs", "-o", "size=50m", "none", str(storage)]
        subprocess.run(disk, check=True)
    if fault == "too little space":
        with (storage / "ballast").open("wb") as file:
            file.write(bytes(49 << 20))
    if fault == "image damaged":
        for name, grey in (("dark", 40), ("light", 200)):
            (search.folder / "images" / name).mkdir(parents=True)
            for index in range(20):
                Image.new("L", (32, 32), grey).save(search.folder / "images" / name / f"{index}.png")
        search.environment["IMAGES"] = str(search.folder / "images")
    if fault == "host out of memory":
        memory = psutil.virtual_memory()
        limit = 1 - (memory.available - (4 << 30)) / memory.total
        search.environment["RAY_memory_usage_threshold"] = f"{limit:.4f}"


FAULTS: dict[str, Callable[[Search, subprocess.Popen[bytes]], None]] = {
    "driver killed": interrupted(signal.SIGKILL),
    "worker killed": worker_killed,
    "worker killed often": worker_killed_often,
    "host out of memory": memory_full,
    "node lost": node_lost(signal.SIGKILL),
    "node cut off": node_lost(signal.SIGSTOP),
    "disk full": disk_full,
    "too little space": nothing,
    "storage read-only": lambda search, _process: frozen(search, on=True),
    "storage gone": storage_gone,
    "not a number": nothing,
    "error in some": nothing,
    "error in all": nothing,
    "image damaged": images_damaged,
    "checkpoint truncated": interrupted(signal.SIGKILL),
    "snapshot truncated": interrupted(signal.SIGKILL),
    "same name twice": begun_twice(),
    "resumed while it runs": begun_twice("resume"),
    "Ctrl-C once": interrupted(signal.SIGINT),
    "Ctrl-C twice": interrupted(signal.SIGINT, 2),
    "SIGTERM": interrupted(signal.SIGTERM),
    "SIGTERM during start-up": interrupted(signal.SIGTERM),
    "time budget": nothing,
    "open to everybody": interrupted(signal.SIGKILL),
}
DISKS = ("disk full", "too little space")
ENVIRONMENTS = {
    "not a number": {"FAULT": "nan"},
    "error in some": {"FAULT": "error"},
    "error in all": {"FAULT": "errors"},
    "node lost": {"NODES": "3"},
    "node cut off": {"NODES": "3"},
    "time budget": {"BUDGET_S": "12"},
}
IN_THE_DRIVER = ("worker killed often", "host out of memory", "node lost", "node cut off")


def run(tool: str, fault: str) -> str:
    """Cause a fault; give the row of the table."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        search = Search(tool, Path(made), dict(ENVIRONMENTS.get(fault, {})))
        prepare(search, fault)
        process = search.begin()
        if fault == "SIGTERM during start-up":
            time.sleep(3)
        elif FAULTS[fault] is not nothing:
            search.reach_the_middle(process)
        FAULTS[fault](search, process)
        first = finish(process) + (f", the other {finish(search.other)}" if search.other else "")
        said = search.ended()
        mend(search, fault)
        process = search.begin("resume")
        resumed = finish(process)
        then = search.ended()
        computed = [(x, epoch) for _, x, epoch in search.epochs]
        twice = len(computed) - len(set(computed))
        whole = len({x for x, epoch in computed if int(epoch) == EPOCHS})
        print((search.folder / "said").read_text(errors="replace")[-1500:], file=sys.stderr)
        if fault in DISKS:
            subprocess.run(["umount", "--lazy", str(search.folder / "storage")], check=True)  # noqa: S607
        row = [fault, tool, first, said, resumed, then, f"{whole} of {TRIALS}", str(twice)]
        return "| " + " | ".join(row) + " |"


def main() -> None:
    """Cause the faults that are named, or all of them."""
    print("| fault | tool | exit status | said | resumed | said | trained to the end | epochs twice |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for fault in sys.argv[1:] or FAULTS:
        for tool in TOOLS:
            if tool == "Ray Tune" or fault not in IN_THE_DRIVER:  # Optuna's trials run in the driver
                print(run(tool, fault), flush=True)


if __name__ == "__main__":
    main()
