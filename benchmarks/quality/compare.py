"""What searches find on recorded tables: this project's own, in several variants, and the rivals, each over many seeds.

    python -m benchmarks.quality.compare digits emoji --seeds 30 --workers 2

prints, for each table, the regret in points (the best validation accuracy of the table less that of the search) after
24 and after 64 trials, the epochs and the virtual seconds that it took, and the test accuracy of what the search would
have chosen. It takes a few minutes for each table.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.datasets import RECIPES
from benchmarks.quality.ours import Ours, Variant, declared
from benchmarks.quality.replay import Trace, replay
from benchmarks.quality.rivals import RIVALS
from benchmarks.quality.table import TABLES, Table, load
from benchmarks.table import markdown
from search.space import Space

TRIALS = (24, 64)
EPOCHS, PATIENCE = 16, 5
MAKERS = {"none": {"stopping": "none"}, "ASHA": {"stopping": "asha"}}
Maker = Callable[[Space, int, Path], Any]


@dataclass(frozen=True)
class Result:
    """One search: points of regret, epochs, seconds, and the test accuracy of its winner."""

    regret: float
    epochs: int
    seconds: float
    test: float


def tools() -> dict[str, Maker]:
    """Everything that is compared, by name."""
    ours = {
        f"this project: {sampler}, {name}": _ours(sampler, **how)
        for name, how in MAKERS.items()
        for sampler in ("tpe", "random")
    }
    rivals = {name: _rival(make) for name, make in RIVALS.items()}
    return {**ours, **rivals}


def _ours(sampler: str, stopping: str) -> Maker:
    return lambda space, seed, folder: Ours(Variant(space, sampler, stopping), seed, folder)


def _rival(make: Callable[[Space, int], Any]) -> Maker:
    return lambda space, seed, folder: make(space, seed)  # noqa: ARG005


def searched(table: Table, make: Maker, trials: int, seed: int, workers: int) -> Trace:
    """One search on a table."""
    space = declared("finetune", table.blocks, trials=trials, epochs=EPOCHS)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="quality-", dir=memory) as folder:
        tool = make(space, seed, Path(folder))
        return replay(table, tool, epochs=EPOCHS, patience=PATIENCE, workers=workers)


def result(table: Table, trace: Trace) -> Result:
    """What a search came to; its regret is of what is within its epochs."""
    best = float(table.curves.val[:, :EPOCHS].max())
    return Result(100 * (best - trace.best[-1]), trace.epochs[-1], trace.at[-1], trace.test[-1])


def rows(results: Sequence[Result]) -> list[str]:
    """A tool's figures over all seeds."""
    regret = sorted(found.regret for found in results)
    worst = regret[-max(1, len(regret) // 10) :]
    return [
        f"{statistics.fmean(regret):.2f}",
        f"{statistics.median(regret):.2f}",
        f"{statistics.fmean(worst):.2f}",
        f"{statistics.median(found.epochs for found in results):.0f}",
        f"{statistics.median(found.seconds for found in results):.0f}",
        f"{statistics.fmean(found.test for found in results):.4f}",
    ]


def main() -> None:
    """Read the command line, and print the tables."""
    known = sorted(path.stem for path in TABLES.glob("*.npz"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=known, help=f"(default: all there are: {', '.join(known)})")
    parser.add_argument("--seeds", type=int, default=30, help="searches of each tool (default: 30)")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time (default: 2)")
    options = parser.parse_args()
    head = ["tool", "trials", "mean regret", "median", "worst tenth", "epochs", "seconds", "test accuracy"]
    for name in options.tables:
        table, lines = load(name), []
        if lacking := len(list(RECIPES[name].grid)) - len(table.rates):
            print(f"## {name}: {lacking} configurations are not recorded yet; see benchmarks.quality.record\n")
            continue
        for tool, make in tools().items():
            for trials in TRIALS:
                found = [
                    result(table, searched(table, make, trials, seed, options.workers)) for seed in range(options.seeds)
                ]
                lines.append([tool, str(trials), *rows(found)])
        print(f"## {name}: the best is {table.curves.val[:, :EPOCHS].max():.4f}\n")
        print("\n".join(markdown(head, lines)), "\n", flush=True)


if __name__ == "__main__":
    main()
