"""One configuration from start to end: data, network, callbacks, fit; and the winner's export.

Knows nothing of Ray: a test runs a whole trial by calling `train`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search import data
from search.settings import Value
from search.space import Objective

if TYPE_CHECKING:
    from search.model import Network


@dataclass(frozen=True)
class Configuration:
    """Everything that one trial needs.

    Args:
        trial: its number as four digits or more, `0007`.
        parameters: every searchable setting that applies, chosen or fixed.
        epochs: at most so many.
        folder: for its checkpoints.
        tensorboard: for its events; `train` and `validation` go below it.
        cache: where the decoded images lie on this node.
    """

    trial: str
    parameters: Mapping[str, Value]
    epochs: int
    seed: int
    objective: Objective
    backbone: str
    weights: str
    image_size: int
    dataset: data.Dataset
    folder: Path
    tensorboard: Path
    cache: Path

    def number(self, name: str) -> Any:
        """A parameter's value, for arithmetic."""
        return self.parameters[name]


def train(
    configuration: Configuration,
    report: Callable[[dict[str, float | int | str]], None],
    resume: Path | None = None,
) -> None:
    """Train one configuration, reporting after every epoch.

    A report holds `epoch` (from 1) with its `last_val_accuracy` and `last_val_loss`, `objective` (the best so far),
    `best_epoch` with its `val_accuracy` and `val_loss`, `seconds`, and `ending`: empty
    while it goes on, else `all epochs`, `converged` or `diverged: …`.

    Args:
        configuration: what to train.
        report: called with the metrics; raises `callbacks.Stopped` to end the trial after this epoch.
        resume: a state written by an earlier run of the same trial, to go on from; its epoch is reported again.

    Raises:
        CheckpointError: `resume` cannot be read. It is never taken for a fresh start.
    """
    import keras

    from search import callbacks

    # Where the weights start: 1. this trial's own saved state, if any  2. the pretrained backbone and a new head
    keras.utils.clear_session()
    network = _network(configuration)
    steps, saving = callbacks.build(
        network=network,
        parameters=configuration.parameters,
        objective=configuration.objective,
        epochs=configuration.epochs,
        folder=configuration.folder,
        tensorboard=configuration.tensorboard,
        report=report,
    )
    epoch = 0
    if resume:
        done = saving.restore(resume)
        epoch = int(done["epoch"])
        try:
            report(done)  # again: whoever was interrupted may not have heard it
        except callbacks.Stopped:
            return
        if done["ending"]:
            return
    _fit(configuration, network, steps, epoch)


def _fit(configuration: Configuration, network: "Network", steps: list[Any], epoch: int) -> None:
    """Train from `epoch` on, counted from 0."""
    from search import features

    batch_size = configuration.number("batch_size")
    train_split, val_split = (
        data.load(configuration.dataset, split, configuration.image_size, configuration.cache)
        for split in ("train", "val")
    )
    validation = features.Batches(*val_split, batch_size)
    # Metrics make their variables when they are first used; made in training, they would have its step traced twice.
    network.whole.evaluate(validation, steps=1, verbose=0)
    network.whole.fit(
        features.Batches(*train_split, batch_size, configuration.seed, epoch),
        validation_data=validation,
        initial_epoch=epoch,
        epochs=configuration.epochs,
        callbacks=steps,
        shuffle=False,
        verbose=0,
    )


def export(configuration: Configuration, folder: Path) -> dict[str, Any]:
    """Write the winner's model and evaluate it once on the test split.

    Returns:
        `test_accuracy`, `test_loss` and `confusion_matrix` (rows: true class, columns: predicted), of the file as
        plain Keras loads it.
    """
    from search import features, model

    network = _network(configuration)
    network.suffix.load_weights(configuration.folder / "best.weights.h5")
    exported = model.export(network, folder / "model.keras")
    images, labels = data.load(configuration.dataset, "test", configuration.image_size, configuration.cache)
    batches = features.Batches(images, labels, configuration.number("batch_size"))
    probabilities = exported.predict(batches, verbose=0)
    classes = len(configuration.dataset.classes)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    picked = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)
    return {
        "test_accuracy": float(np.trace(confusion) / len(labels)),
        "test_loss": float(-np.log(picked).mean()),
        "confusion_matrix": confusion.tolist(),
    }


def _network(configuration: Configuration) -> "Network":
    import keras

    from search import backbones, model

    keras.utils.set_random_seed(configuration.seed)
    backbone = backbones.load(configuration.backbone, configuration.weights, configuration.image_size)
    network = model.build(
        backbone,
        configuration.number("unfreeze_depth"),
        len(configuration.dataset.classes),
        configuration.number("dropout"),
    )
    model.compile_for_training(network, configuration.parameters)
    return network
