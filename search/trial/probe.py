"""The head that every trial may start from: a linear probe on the pooled features, trained once per search and kept.

Linear probing first, then fine-tuning (Kumar et al. 2022, https://arxiv.org/abs/2202.10054): a random head would send
random gradients into the pretrained layers and distort them before it has learned to use them.
"""

import hashlib
import json
from collections.abc import Mapping

import keras
import numpy as np

from search import features
from search.backbone.backbones import Source
from search.cache import Array
from search.components.heads import HEADS, Head
from search.components.losses import LOSSES
from search.components.optimizers import OPTIMIZERS
from search.components.schedules import SCHEDULES
from search.components.tables import Parts
from search.errors import CheckpointError
from search.features import Place
from search.setting import Value, Values
from search.space.settings import SETTINGS
from search.task.objective import Objective
from search.trial import batches, checkpoint, model
from search.trial.reuse import Pool

EPOCHS = 50
PARAMETERS = {"unfreeze_depth": 0, "learning_rate": 1e-2}  # the others as their defaults are
BATCH_SIZE = 128
DEFAULTS = Values({name: setting.default for name, setting in SETTINGS.items()})
STEPS = 16  # an epoch has at least so many, where there are enough images


def head(
    pool: Pool,
    source: Source,
    place: Place,
    objective: Objective,
    *,
    top: Head = HEADS["linear"],
    values: Values = DEFAULTS,
) -> list[Array]:
    """The probe's weights, those of `Network.top`, from the node's cache, or trained now.

    Another process of the node that needs the same probe waits until it is there. Where the cache cannot be written,
    every process trains its own.

    Args:
        pool: of this process.
        top: the head that it is for; of `values`, its name and its parameters matter.
    """
    shape = {name: values[name] for name in ("head", *top.parameters)}
    recipe = [EPOCHS, PARAMETERS, BATCH_SIZE, STEPS, place.seed, objective.metric, place.views, shape, top.source]
    path = place.folder / f"head-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]}.npz"
    if path in pool.heads:
        return pool.heads[path]
    with place.locked(path.name):
        try:
            return checkpoint.arrays(path)
        except CheckpointError:
            weights = _trained(pool, source, place, objective, top=top, shape=shape)
        try:
            checkpoint.write(path, {}, weights)
        except OSError:
            pool.heads[path] = weights
        return weights


def _trained(
    pool: Pool, source: Source, place: Place, objective: Objective, *, top: Head, shape: Mapping[str, Value]
) -> list[Array]:
    start, target = features.nearest(place, len(place.shapes)), place.dataset.target
    size = max(1, min(BATCH_SIZE, len(place.labels["train"]) // STEPS))
    values = Values({**DEFAULTS, **target.task.defaults, **shape, **PARAMETERS, "batch_size": size})
    parts = Parts(top, LOSSES[values.text("loss")], OPTIMIZERS["adam"], SCHEDULES["constant"])
    network = pool.network(source, parts, values, target, start)
    model.reset(network, parts, values, place.seed, None, labels=place.labels["train"], epochs=EPOCHS)
    watched = {"monitor": objective.metric, "mode": objective.mode}
    steps = [
        keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.3, min_delta=0.0, **watched),
        keras.callbacks.EarlyStopping(patience=6, restore_best_weights=True, **watched),
    ]
    feeder = batches.Feeder(start, place.labels, size, place.seed, objective.metrics)
    batches.fit(network.fitted, feeder, 0, EPOCHS, steps)
    return [np.array(variable) for variable in network.top]
