"""Record a table of learning curves, with the project itself.

    python -m benchmarks.quality.record digits --work FOLDER

Every configuration of the table's grid is trained to its last epoch, by trials of the project without early stopping;
for the benchmark alone, the network is evaluated on the test images after every epoch too. What is recorded stays in
the work folder, so that the command goes on where it was interrupted; at the end it writes `tables/NAME.npz`.
"""

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.datasets import RECIPES
from benchmarks.quality.table import EPOCHS, FIXED, Curves, Plane, Table, save
from search.machine import cpus
from search.process import importing_keras
from search.space import Objective

CHUNK = 128


def main() -> None:
    """Read the command line, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=RECIPES)
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="(default: build/quality)")
    parser.add_argument("--processes", type=int, default=cpus(), help="at a time (default: one for each CPU)")
    options = parser.parse_args()
    work = options.work.absolute()
    recipe = RECIPES[options.table]
    planes = [(plane, [rate for _, rate in same]) for plane, same in groupby(recipe.grid, key=lambda one: one[0])]
    planes.sort(key=lambda one: -one[0].unfreeze_depth)
    began = time.monotonic()
    with ProcessPoolExecutor(options.processes, get_context("spawn"), max_tasks_per_child=4) as pool:
        pool.submit(_prepared, options.table, work).result()
        tasks = [pool.submit(_record, options.table, work, plane, rates) for plane, rates in planes]
        for count, task in enumerate(as_completed(tasks), start=1):
            print(f"{count}/{len(tasks)} {task.result()} {time.monotonic() - began:.0f} s", flush=True)
    _save(options.table, work)


def _prepared(name: str, work: Path) -> tuple[Any, Any]:
    """Where the features of the data set lie, at every cut of the grid, and what the network is made from."""
    with importing_keras(1):
        from search import backbones, cache, data, features, warm

    recipe = RECIPES[name]
    source, found = recipe.source(work), recipe.find(work)
    dataset = data.decode(found, max_bad_files=0, image_size=source.image_size, cache=work)
    backbone = warm.backbone(source)
    about = backbones.describe(backbone)
    shapes = tuple(map(tuple, about["shapes"]))
    place = features.Place(work, dataset, source.image_size, about["identity"], shapes, seed=recipe.seed)
    wanted = [cut for depth in recipe.grid.depths if (cut := len(shapes) - depth)]
    features.fill(place, wanted, backbone, cache.allowed(place.root, 50), data.silent)
    return place, source


def _record(name: str, work: Path, plane: Plane, rates: Sequence[float]) -> Plane:
    """Record the configurations of a plane that are not recorded yet."""
    place, source = _prepared(name, work)
    folder = work / "curves" / name
    folder.mkdir(parents=True, exist_ok=True)
    test = _test_features(place, source, plane.unfreeze_depth)
    for rate in rates:
        if not (path := folder / f"{_key(plane, rate)}.json").exists():
            curve = _trained(place, source, plane, rate, test)
            path.with_suffix(".new").write_text(json.dumps(curve))
            path.with_suffix(".new").rename(path)
    return plane


def _key(plane: Plane, rate: float) -> str:
    return "-".join([*map(str, plane), f"{rate:.3g}"])


def _test_features(place: Any, source: Any, depth: int) -> Any:
    """What lies at a depth's cut for the test images."""
    from search import backbones, features, warm

    read, backbone = features.images(place, "test", 0), warm.backbone(source)
    images = read(np.arange(len(place.labels["test"])))
    cut = len(place.shapes) - depth
    if not cut:
        return images
    network = backbones.prefix(backbone, [cut])
    found = [network.predict_on_batch(images[first : first + CHUNK]) for first in range(0, len(images), CHUNK)]
    return np.concatenate([np.asarray(each[0] if isinstance(each, list) else each) for each in found])


def _trained(place: Any, source: Any, plane: Plane, rate: float, test: Any) -> dict[str, Any]:
    """One configuration's curves: how many are right, the loss, the seconds that its epochs take of one CPU."""
    from search import features, trial, warm

    scratch = place.cache / "trials" / f"{place.dataset.fingerprint[:8]}-{_key(plane, rate)}"
    shutil.rmtree(scratch, ignore_errors=True)
    parameters = {**FIXED, **plane._asdict(), "learning_rate": rate, "stop_patience": EPOCHS + 1}
    configuration = trial.Configuration(
        "0000", parameters, EPOCHS, place.seed, Objective(), source.name, source.weights, place, True,
        folder=scratch / "trial", tensorboard=scratch / "events",
    )  # fmt: skip
    start = features.nearest(place, len(place.shapes) - plane.unfreeze_depth)
    network = warm.network(source, plane.unfreeze_depth, len(place.dataset.classes), plane.optimizer, start)
    assert start.cut == len(place.shapes) - plane.unfreeze_depth, "the features of this cut are not kept"  # noqa: S101
    labels, counts = place.labels["test"], {split: len(place.labels[split]) for split in ("val", "test")}
    curve: dict[str, list[float]] = {"val": [], "loss": [], "test": [], "seconds": []}
    before = time.process_time()

    def report(metrics: Any) -> None:
        nonlocal before
        curve["seconds"].append(round(time.process_time() - before, 4))
        curve["val"].append(round(metrics["last_val_accuracy"] * counts["val"]))
        curve["loss"].append(metrics["last_val_loss"])
        right = 0
        for first in range(0, len(labels), CHUNK):
            answer = np.asarray(network.fitted.predict_on_batch(test[first : first + CHUNK]))
            right += int((answer.argmax(1) == labels[first : first + CHUNK]).sum())
        curve["test"].append(right)
        before = time.process_time()

    trial.train(configuration, report)
    shutil.rmtree(scratch, ignore_errors=True)
    return {**curve, "images": counts, "blocks": len(place.shapes)}


def _save(name: str, work: Path) -> None:
    grid = list(RECIPES[name].grid)
    found = [json.loads((work / "curves" / name / f"{_key(*one)}.json").read_text()) for one in grid]
    images, blocks = found[0]["images"], found[0]["blocks"]
    missing = [EPOCHS - len(curve["val"]) for curve in found]
    right = {
        split: np.array([curve[split] + [0] * left for curve, left in zip(found, missing, strict=True)]) / images[split]
        for split in ("val", "test")
    }
    loss = np.array([curve["loss"] + [np.nan] * left for curve, left in zip(found, missing, strict=True)], float)
    right["val"][~np.isfinite(loss)] = 0
    right["test"][~np.isfinite(loss)] = 0
    import keras
    import tensorflow as tf

    about = {"epochs": EPOCHS, "fixed": FIXED, "versions": {"keras": keras.__version__, "tensorflow": tf.__version__}}
    save(
        Table(
            name, about, [plane for plane, _ in grid], np.array([rate for _, rate in grid]),
            Curves(right["val"], loss, right["test"]),
            np.array([statistics.median(curve["seconds"][1:] or curve["seconds"]) for curve in found]), blocks,
        ),
        images,
    )  # fmt: skip


if __name__ == "__main__":
    main()
