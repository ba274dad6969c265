"""How well does a replay foretell real searches? Real trials beside the recorded curves that a replay gives them.

    python -m benchmarks.quality.real digits runs/one runs/two

The runs are finished searches of `finetune` on the table's own data, split and network (for `digits`: `--seed 0`).
"""

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality.ours import Ours, Variant, declared
from benchmarks.quality.replay import replay
from benchmarks.quality.table import TABLES, Plane, Table, curves_at, load
from benchmarks.table import markdown
from search.record import record
from search.space import space

SEEDS = 30
APART = 0.005


class Pair(NamedTuple):
    """A trial's best validation accuracy over the epochs that it really had: when it ran, and as it is replayed."""

    real: float
    replayed: float


def pairs(table: Table, found: record.Record, searched: space.Space) -> Iterator[Pair]:
    """The trials of a search that have shown something."""
    for trial, points in found.curves.items():
        given = searched.parameters(dict(found.rows[trial].configuration))
        plane = Plane(*(given[name] for name in Plane._fields))
        curves, _ = curves_at(table, plane, given["learning_rate"])
        yield Pair(max(point.objective for point in points.values()), float(curves.val[: max(points)].max()))


def order(found: list[Pair]) -> float:
    """Of two trials that are apart by more than `APART` when replayed, how often the better one was really better."""
    right = [
        (one.real > other.real) + 0.5 * (one.real == other.real)
        for one, other in itertools.permutations(found, 2)
        if one.replayed > other.replayed + APART
    ]
    return statistics.fmean(right)


def replayed(table: Table, about: dict[str, Any]) -> list[float]:
    """What searches of the same settings find in a replay, over `SEEDS` seeds."""
    settings, budget = about["settings"], about["space"]["budget"]
    searched = declared("finetune", table.depths[-1], trials=budget["trials"], epochs=budget["epochs"])
    best = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory(prefix="quality-") as folder:
            tool = Ours(Variant(searched, settings["sampler"], settings["stopping"]), seed, Path(folder))
            patience = settings["stop_patience"]
            best.append(replay(table, tool, epochs=budget["epochs"], patience=patience, workers=2).best[-1])
    return best


def main() -> None:
    """Read the command line, and print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(path.stem for path in TABLES.glob("*.npz")))
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    table = load(options.table)
    known = declared("finetune", table.depths[-1])
    trials, lines = [], []
    for run in options.runs:
        found, about = record.read(run), record.read_search(run)
        here = list(pairs(table, found, known))
        best = replayed(table, about)
        low, high = np.quantile(best, [0.05, 0.95])
        real = max(pair.real for pair in here)
        span = f"{low:.4f} to {high:.4f}"
        lines.append([run.name, str(len(here)), f"{real:.4f}", f"{statistics.fmean(best):.4f}", span])
        trials += here
    print("\n".join(markdown(["run", "trials", "really found", "replayed, mean", "nine in ten of these"], lines)), "\n")
    differences = 100 * np.array([pair.real - pair.replayed for pair in trials])
    print(
        f"{len(trials)} trials: the median one has really {np.median(differences):+.2f} points; half are within "
        f"{np.median(np.abs(differences)):.2f} points of the replay, nine in ten within "
        f"{np.quantile(np.abs(differences), 0.9):.2f}; of two that are {100 * APART:.1f} points apart when replayed "
        f"the better one is better in {order(trials):.0%}"
    )


if __name__ == "__main__":
    main()
