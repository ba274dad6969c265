"""What searches find on recorded tables: this project's own, in several variants, and the rivals, each over many seeds.

    python -m benchmarks.quality.compare digits emoji --seeds 30 --workers 2

prints a table for each data set: the regret in points (the best validation accuracy of the recorded curves less that of
the search) after 24 and after 64 trials, the epochs and the virtual seconds that it took, the test accuracy of what the
search would have chosen, and the epochs and seconds until it was half a point below the best. With `--pictures FOLDER`
it draws regret against epochs and seconds too.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.datasets import RECIPES
from benchmarks.quality.ours import VARIANTS, Ours, declared
from benchmarks.quality.replay import Trace, replay
from benchmarks.quality.rivals import MORE, RIVALS
from benchmarks.quality.table import TABLES, load
from benchmarks.table import markdown
from search.machine import cpus
from search.space import Space

TRIALS = (24, 64)
EPOCHS = 16
CLOSE = 0.5
Maker = Callable[[Space, int, Path], Any]


@dataclass(frozen=True)
class Result:
    """One search: its points of regret, its epochs and seconds, and the test accuracy of its winner.

    Args:
        steps: wherever it found something better: the epochs and the seconds until then, and the regret from then on.
    """

    regret: float
    epochs: int
    seconds: float
    test: float
    steps: tuple[tuple[int, float, float], ...]

    def until(self, regret: float, what: int) -> float:
        """The epochs (`what` 0) or seconds (1) until its regret was no more than that; infinite where it never was."""
        return next((step[what] for step in self.steps if step[2] <= regret + 1e-9), math.inf)


def tools() -> Mapping[str, Maker]:
    """Everything that is compared, by name."""
    return {
        **{name: _ours(name) for name in VARIANTS},
        **{name: _rival(make) for name, make in (RIVALS | MORE).items()},
    }


def _ours(name: str) -> Maker:
    return lambda space, seed, folder: Ours(VARIANTS[name](space), seed, folder)


def _rival(make: Callable[[Space, int], Any]) -> Maker:
    return lambda space, seed, folder: make(space, seed)  # noqa: ARG005


def searched(table: str, tool: str, trials: int, seed: int, workers: int) -> Result:
    """One search on a table."""
    known = load(table)
    space = declared("finetune", known.depths[-1], trials=trials, epochs=EPOCHS)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="quality-", dir=memory) as folder:
        made = tools()[tool](space, seed, Path(folder))
        patience = int(str(space.settings["stop_patience"]))
        trace = replay(known, made, epochs=EPOCHS, patience=patience, workers=workers)
    return result(float(known.curves.val[:, :EPOCHS].max()), trace)


def result(best: float, trace: Trace) -> Result:
    """What a search came to; its regret is of what is within its epochs."""
    steps: list[tuple[int, float, float]] = []
    for epochs, at, found in zip(trace.epochs, trace.at, trace.best, strict=True):
        regret = 100 * (best - found)
        if not steps or regret < steps[-1][2]:
            steps.append((epochs, at, regret))
    return Result(steps[-1][2], trace.epochs[-1], trace.at[-1], trace.test[-1], tuple(steps))


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
        *(_reached([found.until(CLOSE, what) for found in results]) for what in (0, 1)),
    ]


def _reached(until: Sequence[float]) -> str:
    """The median, where half of the searches came so far."""
    middle = statistics.median_high(until)
    return f"{middle:.0f}" if math.isfinite(middle) else "never"


def draw(name: str, found: Mapping[str, Sequence[Result]], folder: Path, workers: int) -> None:
    """The mean regret of the longest searches against epochs and seconds."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for what, label, axis in zip((0, 1), ("epochs", f"seconds, trials at a time: {workers}"), axes, strict=True):
        last = max(result.epochs if what == 0 else result.seconds for results in found.values() for result in results)
        first = min(result.steps[0][what] for results in found.values() for result in results)
        grid = np.geomspace(max(first, last / 1000), last, 200)
        for tool, results in found.items():
            mean = np.mean([_at(result, what, grid) for result in results], axis=0)
            end = statistics.median(result.epochs if what == 0 else result.seconds for result in results)
            style = {"linewidth": 2.4} if tool in VARIANTS else {"linewidth": 1.1, "linestyle": "--"}
            axis.plot(grid[grid <= end], mean[grid <= end], label=tool, **style)
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.25)
    axes[0].set(ylabel="regret, points", ylim=(0, None), title=name)
    axes[1].legend(fontsize=7)
    figure.savefig(folder / f"quality-{name}.svg")
    pyplot.close(figure)


def _at(result: Result, what: int, grid: np.ndarray) -> np.ndarray:
    """A search's regret at given epochs or seconds."""
    at, regret = np.array([step[what] for step in result.steps]), np.array([step[2] for step in result.steps])
    return regret[np.clip(np.searchsorted(at, grid, side="right") - 1, 0, None)]


def main() -> None:
    """Read the command line, and print the tables."""
    known = sorted(path.stem for path in TABLES.glob("*.npz"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=known, help=f"(default: all there are: {', '.join(known)})")
    parser.add_argument("--seeds", type=int, default=30, help="searches of each tool (default: 30)")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time (default: 2)")
    parser.add_argument("--tools", nargs="+", choices=tools(), default=list(tools()), help="(default: all)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="where pictures go (default: none are drawn)")
    options = parser.parse_args()
    head = ["tool", "trials", "mean regret", "median", "worst tenth", "epochs", "seconds", "test accuracy"]
    head += [f"epochs to {CLOSE}", f"seconds to {CLOSE}"]
    with ProcessPoolExecutor(cpus(), get_context("spawn")) as pool:
        for name in options.tables:
            table, lines, longest = load(name), [], {}
            if lacking := len(list(RECIPES[name].grid)) - len(table.rates):
                print(f"## {name}: {lacking} configurations are not recorded yet; see benchmarks.quality.record\n")
                continue
            tasks = {
                (tool, trials): [
                    pool.submit(searched, name, tool, trials, seed, options.workers) for seed in range(options.seeds)
                ]
                for tool in options.tools
                for trials in TRIALS
            }
            for (tool, trials), waiting in tasks.items():
                found = [task.result() for task in waiting]
                lines.append([tool, str(trials), *rows(found)])
                longest[tool] = found
            print(f"## {name}: the best is {table.curves.val[:, :EPOCHS].max():.4f}\n")
            print("\n".join(markdown(head, lines)), "\n", flush=True)
            if options.pictures:
                draw(name, longest, options.pictures, options.workers)


if __name__ == "__main__":
    main()
