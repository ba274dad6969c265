"""What writing for TensorBoard and the report's pictures costs a search: with it and without it, in turn.

    python -m benchmarks.logging_cost --rounds 5

Both are `python -m search.run` with the same configurations, on the built-in digits and the tiny backbone, where epochs
are shortest and logging weighs most. Without: every process replaces what writes by nothing, by way of
`sitecustomize`. With: the same way, the calls are timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WRITERS = {
    "search.internals.of_keras": ("LiveTensorBoard", ("on_train_begin", "on_epoch_end", "on_train_end")),
    "search.trial.tensorboard": ("Directory", ("declare", "start", "best", "end")),
    "search.trial.training": ("", ("show_winner", "show")),
}
HOOK = """
import atexit, functools, importlib.util, json, os, sys, time
WRITERS, ON, OUT = {writers!r}, {on!r}, {out!r}

def wrapped(function):
    @functools.wraps(function)
    def call(*given, **named):
        if not ON:
            return None
        began = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            with open(f"{{OUT}}/{{os.getpid()}}", "a") as file:
                file.write(json.dumps([function.__qualname__, time.perf_counter() - began]) + "\\n")
    return call

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in WRITERS:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module
        def after(module):
            execute(module)
            owner, names = WRITERS[name]
            there = getattr(module, owner) if owner else module
            for one in names:
                setattr(there, one, wrapped(getattr(there, one)))
        spec.loader.exec_module = after
        return spec

sys.meta_path.insert(0, Finder())
"""
SPACE = """
from search.space import Budget, Depth, Float, Space

points = [(depth, rate) for rate in (3e-4, 1e-3, 3e-3, 1e-2) for depth in range(4)]
space = Space(
    search={"unfreeze_depth": Depth(0, 3), "learning_rate": Float(1e-5, 1e-1, log=True)},
    fixed={"stop_patience": 1000},
    start=[{"unfreeze_depth": depth, "learning_rate": rate} for depth, rate in points],
    budget=Budget(trials=16, epochs=16, first_rung=16),
)
"""


def run(folder: Path, name: str, on: bool) -> tuple[float, dict[str, float]]:
    """Run the search; give its seconds, and those inside each writer."""
    hook, out = folder / f"{name}-hook", folder / f"{name}-calls"
    hook.mkdir()
    out.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK.format(writers=WRITERS, on=on, out=str(out)))
    (folder / "space.py").write_text(SPACE)
    where = ["--storage", folder / "results", "--cache", folder / "cache", "--name", name]
    command = [sys.executable, "-m", "search.run", "--space", folder / "space.py", *where]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hook), str(Path.cwd())])}
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall = time.monotonic() - began
    inside: dict[str, float] = {}
    for path in out.iterdir():
        for line in path.read_text().splitlines():
            what, seconds = json.loads(line)
            inside[what] = inside.get(what, 0.0) + seconds
    return wall, inside


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    options = parser.parse_args()
    walls: dict[bool, list[float]] = {True: [], False: []}
    inside: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        run(folder, "first", True)  # fills the cache
        for turn in range(options.rounds):
            for on in (True, False) if turn % 2 else (False, True):
                wall, calls = run(folder, f"{turn}-{on}", on)
                walls[on].append(wall)
                inside += [calls] * on
    medians = {on: statistics.median(found) for on, found in walls.items()}
    print(f"with    {medians[True]:.1f} s {sorted(round(wall, 1) for wall in walls[True])}")
    print(f"without {medians[False]:.1f} s {sorted(round(wall, 1) for wall in walls[False])}")
    print(f"ratio   {medians[True] / medians[False]:.3f}")
    for what in sorted({what for calls in inside for what in calls}):
        seconds = statistics.median(calls.get(what, 0.0) for calls in inside)
        print(f"{what}: {seconds:.2f} s in all processes, {seconds / medians[True]:.1%} of the wall time")


if __name__ == "__main__":
    main()
