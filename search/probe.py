"""The head that every trial may start from: a linear probe on the pooled features, trained once per search and kept.

Linear probing first, then fine-tuning (Kumar et al. 2022, https://arxiv.org/abs/2202.10054): a random head would send
random gradients into the pretrained layers and distort them before it has learned to use them.
"""

import hashlib
import json
import math
from pathlib import Path

import keras
import numpy as np

from search import batches, checkpoint, features, model, warm
from search.backbones import Source
from search.cache import Array
from search.errors import CheckpointError
from search.features import Place
from search.space import Objective

EPOCHS = 50
PARAMETERS = {"learning_rate": 1e-2, "warmup_epochs": 0.0, "weight_decay": 0.0, "dropout": 0.0}
BATCH_SIZE = 128
STEPS = 16  # an epoch has at least so many, where there are enough images

_unwritten: dict[Path, list[Array]] = {}


def head(source: Source, place: Place, objective: Objective) -> list[Array]:
    """The probe's kernel (channels, classes) and bias (classes,), from the node's cache, or trained now.

    Another process of the node that needs the same probe waits until it is there. Where the cache cannot be written,
    every process trains its own.
    """
    recipe = [EPOCHS, PARAMETERS, BATCH_SIZE, STEPS, place.seed, objective.metric, place.views]
    path = place.folder / f"head-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]}.npz"
    if path in _unwritten:
        return _unwritten[path]
    with place.locked(path.name):
        try:
            return checkpoint.arrays(path)
        except CheckpointError:
            weights = _trained(source, place, objective)
        try:
            checkpoint.write(path, {}, weights)
        except OSError:
            _unwritten[path] = weights
        return weights


def _trained(source: Source, place: Place, objective: Objective) -> list[Array]:
    start = features.nearest(place, len(place.shapes))
    network = warm.network(source, 0, len(place.dataset.classes), "adam", start)
    size = max(1, min(BATCH_SIZE, len(place.labels["train"]) // STEPS))
    model.reset(network, PARAMETERS, place.seed, None, steps=math.ceil(len(place.labels["train"]) / size))
    watched = {"monitor": objective.metric, "mode": objective.mode}
    steps = [
        keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.3, min_delta=0.0, **watched),
        keras.callbacks.EarlyStopping(patience=6, restore_best_weights=True, **watched),
    ]
    feeder = batches.Feeder(start, place.labels, size, place.seed)
    batches.fit(network.fitted, feeder, 0, EPOCHS, steps)
    return [np.array(network.head.kernel), np.array(network.head.bias)]
