"""Which trial and epoch should win? The test accuracy of what each way to choose would export.

    python -m benchmarks.quality.winners digits-few --seeds 100

Searches are replayed on recorded tables (random configurations, the default stopping rule); each way then chooses one
epoch of one trial by what the validation images say.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.compare import EPOCHS
from benchmarks.quality.ours import VARIANTS, Ours, declared
from benchmarks.quality.replay import Trial, replay
from benchmarks.quality.table import TABLES, load
from benchmarks.table import markdown

Values = NDArray[np.float64]


def _smoothed(values: Values) -> Values:
    """The mean of an epoch, the one before and the one after, as far as they are there."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


# accuracies and losses of a trial's epochs → what is to be largest
WAYS: Mapping[str, Callable[[Values, Values], Values]] = {
    "best accuracy, the earliest": lambda accuracy, loss: accuracy,  # noqa: ARG005
    "best accuracy, of equals the least loss": lambda accuracy, loss: accuracy - 1e-6 * np.minimum(loss, 100),
    "least loss": lambda accuracy, loss: -loss,  # noqa: ARG005
    "best smoothed accuracy": lambda accuracy, loss: _smoothed(accuracy) + 1e-6 * accuracy,  # noqa: ARG005
    "accuracy less a tenth of the loss": lambda accuracy, loss: accuracy - 0.1 * loss,
}


def chosen(trials: Mapping[str, Trial], way: Callable[[Values, Values], Values]) -> float:
    """The test accuracy of the epoch that a way chooses."""
    found = []
    for trial in trials.values():
        known = slice(0, trial.epochs)
        loss = np.where(np.isfinite(trial.curves.loss[known]), trial.curves.loss[known], 1e6)
        values = way(trial.curves.val[known], loss)
        best = int(values.argmax())
        found.append((float(values[best]), float(trial.curves.test[best])))
    return max(found, key=lambda one: one[0])[1]


def main() -> None:
    """Read the command line, and print a table."""
    known = sorted(path.stem for path in TABLES.glob("*.npz"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=known, help=f"(default: all there are: {', '.join(known)})")
    parser.add_argument("--seeds", type=int, default=100, help="searches (default: 100)")
    options = parser.parse_args()
    columns = []
    for name in options.tables:
        table = load(name)
        space = declared("finetune", table.depths[-1], trials=24, epochs=EPOCHS)
        patience = int(str(space.settings["stop_patience"]))
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory(prefix="quality-") as folder:
                tool = Ours(VARIANTS["the trend, random"](space), seed, Path(folder))
                trials = replay(table, tool, epochs=EPOCHS, patience=patience, workers=2).trials
            for way, choose in WAYS.items():
                found[way].append(chosen(trials, choose))
        columns.append(found)
    rows = [[way, *(f"{statistics.fmean(found[way]):.4f}" for found in columns)] for way in WAYS]
    print("\n".join(markdown(["the winner is the epoch of", *options.tables], rows)))


if __name__ == "__main__":
    main()
