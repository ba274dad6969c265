"""Record a table of learning curves, with the project itself.

    python -m benchmarks.quality.record digits

Every configuration of the table's grid is trained to its last epoch, by trials of the project without early stopping;
for the benchmark alone, the network is evaluated on the test images after every epoch too. The table grows by a plane
at a time, and the command goes on where it was interrupted: only what `tables/NAME.npz` lacks is trained.
"""

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import argparse
import shutil
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.datasets import RECIPES
from benchmarks.quality.table import EPOCHS, FIXED, TABLES, Curves, Plane, Table, load, save
from search.machine import cpus
from search.process import importing_keras
from search.space import Budget, Objective, Space

CHUNK = 128
Curve = dict[str, Any]


def main() -> None:
    """Read the command line, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=RECIPES)
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="(default: build/quality)")
    parser.add_argument("--processes", type=int, default=cpus(), help="at a time (default: one for each CPU)")
    options = parser.parse_args()
    work, grid = options.work.absolute(), RECIPES[options.table].grid
    found = _known(options.table)
    missing: dict[Plane, list[float]] = {}
    for plane, rate in grid:
        if (plane, rate) not in found:
            missing.setdefault(plane, []).append(rate)
    began = time.monotonic()
    with get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        pool.apply(_filled, (options.table, work))
        deepest = sorted(missing, key=lambda plane: -plane.unfreeze_depth)
        tasks = [(options.table, work, plane, missing[plane]) for plane in deepest]
        for count, curves in enumerate(pool.imap_unordered(_record, tasks), start=1):
            found |= curves
            _save(options.table, {one: found[one] for one in grid if one in found})
            print(f"{count} of {len(tasks)} planes, {time.monotonic() - began:.0f} s", flush=True)


def _filled(name: str, work: Path) -> None:
    """Compute the features, at every cut of the grid."""
    _prepared(name, work)


def _prepared(name: str, work: Path) -> tuple[Any, Any, Any]:
    """Where the features of the data set lie, at every cut of the grid, what the network is made from, and its pool."""
    with importing_keras(1):
        from search import cache, features
        from search.backbone import backbones
        from search.data import store
        from search.trial.reuse import Pool

    pool, recipe = Pool(), RECIPES[name]
    source, found = recipe.source(work), recipe.find(work)
    dataset = store.decode(found, max_bad_files=0, image_size=source.image_size, cache=work)
    backbone = pool.backbone(source)
    about = backbones.describe(backbone)
    shapes = tuple(map(tuple, about["shapes"]))
    place = features.Place(work, dataset, source.image_size, about["identity"], shapes, seed=recipe.seed)
    wanted = [cut for depth in recipe.grid.depths if (cut := len(shapes) - depth)]
    features.fill(place, wanted, backbone, cache.allowed(place.root, 50), store.silent)
    return place, source, pool


def _record(task: tuple[str, Path, Plane, Sequence[float]]) -> dict[tuple[Plane, float], Curve]:
    """Train the configurations of a plane."""
    name, work, plane, rates = task
    place, source, pool = _prepared(name, work)
    test = _test_features(place, pool.backbone(source), plane.unfreeze_depth)
    return {(plane, rate): _trained(pool, place, source, plane, rate=rate, test=test) for rate in rates}


def _test_features(place: Any, backbone: Any, depth: int) -> Any:
    """What lies at a depth's cut for the test images."""
    from search import features
    from search.backbone import backbones

    read = features.images(place, "test", 0)
    images = read(np.arange(len(place.labels["test"])))
    cut = len(place.shapes) - depth
    if not cut:
        return images
    network = backbones.prefix(backbone, [cut])
    found = [network.predict_on_batch(images[first : first + CHUNK]) for first in range(0, len(images), CHUNK)]
    return np.concatenate([np.asarray(each[0] if isinstance(each, list) else each) for each in found])


def _trained(pool: Any, place: Any, source: Any, plane: Plane, *, rate: float, test: Any) -> Curve:
    """One configuration's curves: how many are right, the loss, the seconds that its epochs take of one CPU."""
    from search import features
    from search.trial import training

    scratch = place.cache / "trials" / str(uuid.uuid4())
    asked = Space({}, Budget(1, EPOCHS))
    parameters = asked.parameters({**FIXED, **plane._asdict(), "learning_rate": rate, "stop_patience": EPOCHS + 1})
    parts, target = asked.parts(parameters), place.dataset.target
    configuration = training.Configuration(
        "0000", parameters, parts, EPOCHS, place.seed, Objective(), source.name, source.weights, place, True,
        folder=scratch / "trial", tensorboard=scratch / "events",
    )  # fmt: skip
    start = features.nearest(place, len(place.shapes) - plane.unfreeze_depth)
    network = pool.network(source, parts, parameters, target, start)
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

    training.train(pool, configuration, report)
    shutil.rmtree(scratch, ignore_errors=True)
    return {**curve, "images": counts, "blocks": len(place.shapes)}


def _known(name: str) -> dict[tuple[Plane, float], Curve]:
    """What the table holds already."""
    if not (TABLES / f"{name}.npz").exists():
        return {}
    table = load(name)
    images, curves = table.about["images"], table.curves
    return {
        (plane, float(rate)): {
            "val": np.rint(curves.val[row] * images["val"]).astype(int).tolist(),
            "test": np.rint(curves.test[row] * images["test"]).astype(int).tolist(),
            "loss": curves.loss[row].tolist(),
            "seconds": [float(table.seconds[row])],
            "images": images,
            "blocks": table.blocks,
        }
        for row, (plane, rate) in enumerate(zip(table.planes, table.rates, strict=True))
    }


def _save(name: str, found: Mapping[tuple[Plane, float], Curve]) -> None:
    """Write the table; after a divergence nothing is right."""
    first = next(iter(found.values()))
    images, blocks = first["images"], first["blocks"]
    columns = {
        key: np.array([curve[key] + [end] * (EPOCHS - len(curve[key])) for curve in found.values()], float)
        for key, end in (("val", 0), ("test", 0), ("loss", np.nan))
    }
    gone = ~np.isfinite(columns["loss"])
    right = {split: np.where(gone, 0, columns[split]) / images[split] for split in ("val", "test")}
    planes, rates = zip(*found, strict=True)
    versions = {package: metadata.version(package) for package in ("keras", "tensorflow")}
    save(
        Table(
            name=name,
            about={"epochs": EPOCHS, "fixed": FIXED, "versions": versions},
            planes=planes,
            rates=np.array(rates),
            curves=Curves(right["val"], columns["loss"], right["test"]),
            seconds=np.array([statistics.median(curve["seconds"][1:] or curve["seconds"]) for curve in found.values()]),
            blocks=blocks,
        ),
        images,
    )


if __name__ == "__main__":
    main()
