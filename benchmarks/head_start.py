"""Does it pay to start the head from a linear probe? The built-in digits with `tiny`, three seeds, both ways.

    python -m benchmarks.head_start

For each seed (which also decides the split) it trains unfreeze depths 0, 1, 2, 4 and 7 at two rates, with a random head
and with the probe's, and prints for each depth: the best validation accuracy, the epochs until it is within a point of
the better of the two ways, and the test accuracy of the exported model; means over seeds, the better rate of each way.
"""

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from search import cache, features
from search.backbone import backbones
from search.backbone.backbones import Source
from search.data import store
from search.space import Budget, Objective, Space
from search.trial import training
from search.trial.reuse import Pool

SOURCE = Source("tiny", "own", 32)
DEPTHS = (0, 1, 2, 4, 7)
RATES = (3e-4, 3e-3)
EPOCHS = 16
FIXED = {
    "optimizer": "adam",
    "weight_decay": 1e-4,
    "dropout": 0.1,
    "batch_size": 32,
    "warmup_epochs": 0.0,
    "plateau_patience": 2,
    "plateau_factor": 0.3,
    "stop_patience": EPOCHS,
}
DEFAULTS = Space({}, Budget(1, EPOCHS))


def main() -> None:
    """Train, and print the table."""
    runs = [run for seed in range(3) for run in _of_seed(seed)]
    print("| unfreeze depth | head | validation accuracy | epochs to within a point | test accuracy |")
    print("|---|---|---|---|---|")
    for depth in DEPTHS:
        for head in ("random", "probe"):
            chosen = [
                _better(run for run in runs if (run["depth"], run["head"], run["seed"]) == (depth, head, seed))
                for seed in range(3)
            ]
            goals = [
                max(run["curve"][-1] for run in runs if (run["depth"], run["seed"]) == (depth, seed)) - 0.01
                for seed in range(3)
            ]
            needed = [_epochs(run["curve"], goal) for run, goal in zip(chosen, goals, strict=True)]
            val = statistics.mean(run["curve"][-1] for run in chosen)
            test = [run["test"] for run in chosen]
            tests = f"{statistics.mean(test):.4f} ({', '.join(f'{value:.4f}' for value in test)})"
            print(f"| {depth} | {head} | {val:.4f} | {' '.join(needed)} | {tests} |", flush=True)


def _of_seed(seed: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = store.find("digits", seed=seed, max_bad_files=0)
        dataset = store.decode(found, max_bad_files=0, image_size=SOURCE.image_size, cache=root)
        pool = Pool()
        backbone = pool.backbone(SOURCE)
        about = backbones.describe(backbone)
        shapes = tuple(map(tuple, about["shapes"]))
        place = features.Place(root, dataset, SOURCE.image_size, about["identity"], shapes, seed=seed)
        features.fill(place, range(1, len(shapes) + 1), backbone, cache.allowed(place.root, 50), store.silent)
        asked = training.Configuration(
            "0000",
            DEFAULTS.parameters({}),
            DEFAULTS.parts(DEFAULTS.parameters({})),
            EPOCHS,
            seed,
            Objective(),
            SOURCE.name,
            SOURCE.weights,
            place,
            False,
            root / "t",
            root / "tb",
        )
        return [
            _trained(pool, asked, depth, rate, head)
            for depth in DEPTHS
            for rate in RATES
            for head in ("random", "probe")
        ]


def _trained(pool: Pool, asked: training.Configuration, depth: int, rate: float, head: str) -> dict[str, Any]:
    parameters = DEFAULTS.parameters({**FIXED, "unfreeze_depth": depth, "learning_rate": rate})
    number = f"{depth}-{rate}-{head}"
    root = asked.folder.parent
    configuration = replace(
        asked, parameters=parameters, head_start=head == "probe", folder=root / number, tensorboard=root / "tb" / number
    )
    curve: list[float] = []
    best = [0]

    def report(metrics: dict[str, Any]) -> None:
        curve.append(metrics["val_accuracy"])
        best[0] = metrics["best_epoch"]

    training.train(pool, configuration, report)
    exported = root / f"best-{number}"
    exported.mkdir()
    test = training.export(pool, configuration, exported, best[0]).figures["test_accuracy"]
    return {"seed": asked.seed, "depth": depth, "rate": rate, "head": head, "curve": curve, "test": test}


def _better(runs: Any) -> dict[str, Any]:
    return max(runs, key=lambda run: run["curve"][-1])


def _epochs(curve: list[float], goal: float) -> str:
    """The epoch that first reached the goal; `-` where none did."""
    return next((str(epoch) for epoch, value in enumerate(curve, 1) if value >= goal), "-")


if __name__ == "__main__":
    main()
