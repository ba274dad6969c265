"""One configuration from start to end: features, network, callbacks, fit; and the winner's export.

Knows nothing of Ray: a test runs a whole trial by calling `train`.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import features
from search.backbone.backbones import Source
from search.components.tables import Parts
from search.features import Place
from search.record.files import MODEL, RUN_BEST, RUN_TRAIN, RUN_VALIDATION
from search.setting import Values
from search.task.metric import LOSS
from search.task.objective import Objective

if TYPE_CHECKING:
    import keras

    from search.trial.explanation import Answers
    from search.trial.model import Network
    from search.trial.reuse import Pool

LATENCY_CALLS = 11


@dataclass(frozen=True)
class Configuration:
    """Everything that one trial needs.

    Args:
        trial: its number as four digits or more, `0007`.
        parameters: every searchable setting, chosen, fixed or its default.
        parts: what the trial is put together from.
        epochs: at most so many.
        backbone: its name or file, and `weights` where its weights come from.
        place: the images, and where their features lie.
        head_start: whether the head starts from a linear probe.
        folder: for its checkpoints.
        tensorboard: for its events; `train` and `validation` go below it.
        rungs: the epochs after which it may be stopped.
        deadline: when it may be too, in seconds since 1970.
    """

    trial: str
    parameters: Values
    parts: Parts
    epochs: int
    seed: int
    objective: Objective
    backbone: str
    weights: str
    place: Place
    head_start: bool
    folder: Path
    tensorboard: Path
    rungs: tuple[int, ...] = ()
    deadline: float = math.inf

    @property
    def shape(self) -> Hashable:
        """Of the network: the weights of two trials with the same one can change places."""
        return self.parts.shape(self.parameters)

    @property
    def source(self) -> Source:
        """What the backbone is made from."""
        return Source(self.backbone, self.weights, self.place.image_size, self.place.precision)


def train(
    pool: "Pool",
    configuration: Configuration,
    report: Callable[[dict[str, float | int | str]], None],
    pausing: Callable[[], bool] = lambda: False,
) -> None:
    """Train one configuration, reporting after every epoch.

    A report holds `epoch` (from 1) with its `last_val_loss` and the other leading metrics likewise, `objective` (the
    best so far), `best_epoch` with all its metrics, `seconds`, `ending`: empty while it goes on,
    else the state that it ends in, with its `reason`, `paused`: whether it ends here to go on later, and `note`: what
    the user should know.

    Where a state of the trial was saved, it goes on from there, and that epoch is reported again.

    Args:
        pool: what this process keeps from trial to trial.
        configuration: what to train.
        report: called with the metrics; raises `callbacks.Stopped` to end the trial after this epoch.
        pausing: asked after every epoch; whether the trial is to be saved and to end, unfinished.

    Raises:
        CheckpointError: no saved state can be read. That is never taken for a fresh start.
        StorageError: its files cannot be written.
    """
    from search.trial import batches, callbacks, checkpoint, probe
    from search.trial.tensorboard import Events

    # Where the weights start: 1. this trial's own saved state, if any
    #                          2. the pretrained backbone, and the probe's head or a new one
    head, saved = None, checkpoint.saved(configuration.folder)
    if configuration.head_start and not saved:
        head = probe.head(
            pool,
            configuration.source,
            configuration.place,
            configuration.objective.of_the_project,
            top=configuration.parts.head,
            values=configuration.parameters,
        )
    network, start = _network(pool, configuration, head)
    steps, saving = callbacks.build(
        network=network,
        parameters=configuration.parameters,
        plateau=configuration.parts.schedule.plateau,
        objective=configuration.objective,
        epochs=configuration.epochs,
        folder=configuration.folder,
        tensorboard=configuration.tensorboard,
        report=report,
        pausing=pausing,
        rungs=configuration.rungs,
        deadline=configuration.deadline,
    )
    epoch = 0
    if saved:
        done = saving.restore()
        epoch = int(done["epoch"])
        for part in (RUN_TRAIN, RUN_VALIDATION):
            with Events(configuration.tensorboard / part) as events:
                events.forget(epoch)
        try:
            report(done)  # again: whoever was interrupted may not have heard it
        except callbacks.Stopped:
            return
        if done["ending"]:
            return
    labels, metrics = configuration.place.labels, configuration.objective.metrics
    feeder = batches.Feeder(start, labels, configuration.parameters.whole("batch_size"), configuration.seed, metrics)
    batches.fit(network.fitted, feeder, epoch, configuration.epochs, steps)


@dataclass(frozen=True)
class Exported:
    """The winner, exported.

    Args:
        figures: `test_loss` and so on for all metrics, and what else the task tells, of the file as plain Keras loads
            it; `model_bytes`, and `latency_ms`: what one image takes, on `latency_on`; `temperature`, where it was
            calibrated; `custom_objects`: the classes of a head of the space's own that Keras needs to load it, where
            there are any. Where it is the mean of several trials, also its `val_loss` and so on, and `soup`: their
            `trials`, and what the best has `alone`.
        model: as plain Keras loads it.
        answering: the same, giving more; see `explanation.answering`.
        tested: what it says of the test images.
        shape: of the network, see `Configuration.shape`.
    """

    figures: dict[str, Any]
    model: "keras.Model"
    answering: "keras.Model"
    tested: "Answers"
    shape: Hashable


def export(
    pool: "Pool",
    configuration: Configuration,
    folder: Path,
    epoch: int,
    others: Sequence[tuple[Configuration, int]] = (),
    *,
    calibrated: bool = False,
) -> Exported:
    """Write the winner's model, `model.keras`, and evaluate it once on the test split.

    Args:
        pool: of this process, as of `train`.
        epoch: the trial's best one, whose weights are meant.
        others: trials with their best epochs whose weights are averaged with the winner's where that makes the
            objective better; the better ones first. One whose weights are not there, or which has another head, is
            left out.
        calibrated: whether the probabilities are scaled by a temperature.

    Raises:
        CheckpointError: the weights are gone, damaged, or not those of the best epoch.
    """
    import keras

    from search import machine
    from search.trial import explanation

    path = folder / MODEL
    _, whole = _best(pool, configuration, epoch)
    whole.save(path)
    custom = {type(layer).__name__: type(layer) for layer in whole.layers if not _of_keras(layer)}
    model = keras.models.load_model(path, custom_objects=custom)
    answering, size = explanation.answering(model), configuration.parameters.whole("batch_size")

    def asked(split: str) -> "Answers":
        place = configuration.place
        read = features.images(place, split, 0)
        return explanation.answers(answering, read, place.labels[split], size, place.dataset.target)

    task, tested = configuration.objective.task, asked("test")
    about = _mixed(pool, configuration, others, model, lambda: asked("val")) if others else {}
    if about:
        about["soup"]["alone"] |= _of_test(tested, configuration.objective)
    if calibrated and task.sharpness:
        about["temperature"] = _calibrate(model, asked("val"), task.sharpness)
    if about:
        model.save(path)
        tested = asked("test")
    first = features.images(configuration.place, "test", 0)(slice(0, 1))
    figures = {
        **_of_test(tested, configuration.objective),
        **task.figures(configuration.place.dataset.classes, tested.said, lambda: asked("val").said),
        "model_bytes": path.stat().st_size,
        "latency_ms": _latency_ms(lambda: answering.predict_on_batch(first)),
        "latency_on": "GPU" if machine.gpu_memory() else "CPU",
        **({"custom_objects": sorted(custom)} if custom else {}),
        **about,
    }
    return Exported(figures, model, answering, tested, configuration.shape)


def _calibrate(model: "keras.Model", answers: "Answers", sharpness: Callable[[Any, Any], float]) -> float:
    """Scale what the output layer gives before its activation; return the temperature.

    It is 1 where all answers are right: nothing then says how sure the model may be.
    """
    from search.trial import explanation

    factor = sharpness(*answers.said) if answers.wrong.any() else 1.0
    head = explanation.output_layer(model)
    head.set_weights([weights * factor for weights in head.get_weights()])
    return 1 / factor


def _of_keras(layer: Any) -> bool:
    """Whether plain Keras knows the layer's class."""
    return type(layer).__module__.partition(".")[0] == "keras"


def _of_test(tested: "Answers", objective: Objective) -> dict[str, float]:
    """All metrics of the test images, by names that say so."""
    known = tested.metrics(objective.metrics)
    return {name.replace("val_", "test_"): value for name, value in known.items() if math.isfinite(value)}


def _mixed(
    pool: "Pool",
    configuration: Configuration,
    others: Sequence[tuple[Configuration, int]],
    model: "keras.Model",
    judged: Callable[[], "Answers"],
) -> dict[str, Any]:
    """Give a model the mean of its own weights and of those of other trials that make it better; say which these are.

    Args:
        model: with the weights of `configuration`.
        judged: what the model says of the validation images.
    """
    from search.errors import CheckpointError
    from search.trial import soup

    objective = configuration.objective

    def judge(weights: Sequence[Any]) -> soup.Judged:
        model.set_weights(weights)
        figures = judged().metrics(objective.metrics)
        return soup.Judged(-objective.rank(figures[objective.metric]), figures[LOSS], figures)

    def candidates() -> Iterator[tuple[str, list[Any]]]:
        for other, epoch in others:
            if other.shape != configuration.shape:
                continue
            with contextlib.suppress(CheckpointError):
                yield other.trial, _best(pool, other, epoch)[1].get_weights()

    alone, mixed = soup.greedy((configuration.trial, model.get_weights()), candidates(), judge)
    model.set_weights(mixed.weights)
    if mixed is alone:
        return {}
    return {**mixed.worth.figures, "soup": {"trials": list(mixed.names), "alone": dict(alone.worth.figures)}}


def show_tested(configuration: Configuration, exported: Exported, folder: Path) -> None:
    """Write what the exported model makes of the test images: into the winner's run `best`, and into its folder.

    It must come before `show`, which gives the model other weights.
    """
    from search.trial import explanation

    place, run = configuration.place, configuration.tensorboard / RUN_BEST
    explanation.write_tested(place, exported.model, exported.tested, folder=folder, run=run)


def show(pool: "Pool", configuration: Configuration, epoch: int, exported: Exported) -> None:
    """Write what shows how one of the best trials works, into its run `best`; see `explanation`.

    Args:
        pool: of this process, as of `train`.
        epoch: as of `export`.
        exported: the winner; its model gets this trial's weights, unless this one has another head.

    Raises:
        CheckpointError: as of `export`.
    """
    import keras

    from search.trial import explanation

    network, whole = _best(pool, configuration, epoch)
    same = configuration.shape == exported.shape  # then the functions are traced already
    alone = exported.model if same else keras.models.clone_model(whole)
    alone.set_weights(whole.get_weights())
    answering = exported.answering if same else explanation.answering(alone)
    place, run = configuration.place, configuration.tensorboard / RUN_BEST
    labels, read = place.labels["val"][: explanation.PROJECTED], features.images(place, "val", 0)
    size = configuration.parameters.whole("batch_size")
    shown = explanation.answers(answering, read, labels, size, place.dataset.target)
    explanation.write(place, alone, network, shown, run)


def _best(pool: "Pool", configuration: Configuration, epoch: int) -> "tuple[Network, keras.Model]":
    """The trial's network with the weights of its best epoch, and the whole one that shares them."""
    from search.trial import checkpoint, model

    network, _ = _network(pool, configuration, None)
    checkpoint.restore_best(configuration.folder, network, epoch)
    return network, model.whole(pool.backbone(configuration.source, as_trained=True), network)


def _latency_ms(call: Callable[[], object]) -> float:
    """The median of some calls."""
    seconds = []
    for _ in range(LATENCY_CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return round(1000 * statistics.median(seconds), 3)


def _network(pool: "Pool", configuration: Configuration, head: list[Any] | None) -> "tuple[Network, features.Start]":
    """The trial's network, as new, and what it starts from."""
    from search.trial import model

    values, parts, place = configuration.parameters, configuration.parts, configuration.place
    start = features.nearest(place, len(place.shapes) - values.whole("unfreeze_depth"))
    target = place.dataset.target
    network = pool.network(configuration.source, parts, values, target, start)
    labels = place.labels["train"]
    model.reset(network, parts, values, configuration.seed, head, labels=labels, epochs=configuration.epochs)
    return network, start
