"""A trial runs whole without Ray: what it reports, trains, saves and logs, and what becomes of the winner."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Toy
from numpy.typing import NDArray
from pool import POOL

from search import features
from search.backbone import backbones
from search.backbone.backbones import Source
from search.data.store import silent
from search.errors import CheckpointError, StorageError
from search.features import Place
from search.request.request import Request
from search.request.resources import Resources
from search.request.workload import Workload
from search.space import Budget, Choice, Float, Int, Objective, Space
from search.space.settings import SETTINGS
from search.task.classification import METRICS
from search.task.metric import of_answers
from search.trial import callbacks, checkpoint, explanation, model, probe, training

REPORTED = {
    *("epoch", "objective", "best_epoch", *METRICS, "last_val_accuracy", "last_val_loss"),
    *("seconds", "ending", "reason", "paused", "note"),
}
DEFAULTS = Space({}, Budget(1, 1))
PARAMETERS = {
    "unfreeze_depth": 2,
    "learning_rate": 3e-3,
    "optimizer": "adam",
    "weight_decay": 1e-3,
    "dropout": 0.3,
    "batch_size": 16,
    "warmup_epochs": 0.0,
    "plateau_patience": 2,
    "plateau_factor": 0.25,
    "stop_patience": 3,
}
FIELDS = {"epochs", "seed", "objective", "backbone", "place", "head_start", "rungs", "deadline"}
SEARCHABLE = [name for name, setting in SETTINGS.items() if setting.searchable]
TOLERANCE = 1e-5
Weights = list[tuple[str, NDArray[Any]]]


@dataclass
class Ran:
    """A trial that was run: what it reported, its network, and copies of its variables, for other trials reuse them.

    Args:
        before: every variable as it was before training; `after`: as it ended.
        trained: those that were marked as trainable.
        suffix: the values of the suffix's variables after each reported epoch.
        orders: in which the training images were read in that epoch.
    """

    configuration: training.Configuration
    reports: list[dict[str, Any]]
    network: model.Network
    backbone: backbones.Backbone
    before: Weights
    after: Weights
    trained: set[str]
    suffix: dict[int, list[NDArray[Any]]]
    orders: dict[int, NDArray[Any]]

    @property
    def now(self) -> Weights:
        """Every variable as it is."""
        return variables(self.network, self.backbone)

    @property
    def changed(self) -> set[str]:
        """The variables that differ from before by a single bit."""
        return different(self.before, self.after)

    def curve(self, part: str, tag: str) -> dict[int, float]:
        """Epoch, from 1 → the scalar that TensorBoard shows."""
        return scalars(self.configuration.tensorboard / part, tag)


def different(first: Weights, second: Weights) -> set[str]:
    """The variables that differ by a single bit."""
    pairs = zip(first, second, strict=True)
    return {path for (path, old), (_, new) in pairs if not np.array_equal(old, new, equal_nan=True)}


def scalars(folder: Path, tag: str) -> dict[int, float]:
    """Epoch, from 1 → the value of one tag, as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(folder)).Reload()
    return {event.step + 1: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}


def variables(network: model.Network, backbone: backbones.Backbone) -> Weights:
    """A copy of every variable of a network and of all of its backbone, random states included."""
    found = {id(variable): variable for variable in [*network.fitted.variables, *backbone.network.variables]}
    return [(variable.path, np.array(variable)) for variable in found.values()]


def best_on_disk(configuration: training.Configuration) -> int | None:
    """The epoch whose weights lie on disk; `None` where none do."""
    if not (configuration.folder / "best.npz").exists():
        return None
    with np.load(configuration.folder / "best.npz") as file:
        return int(json.loads(str(file["facts"]))["epoch"])


def small_backbone(path: Path, image_size: int) -> str:
    """The file of a network that is traced much faster than `tiny`; its weights are random."""
    import keras

    keras.utils.set_random_seed(0)
    x = images = keras.Input((image_size, image_size, 3))
    for _ in range(3):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    keras.Model(images, x).save(path)
    return str(path)


class Trials:
    """Runs trials in a folder of their own; each saves its state after every epoch, into `states/<epoch>.npz` too."""

    def __init__(self, toy: Toy, folder: Path) -> None:
        self._toy, self._folder = toy, folder
        self._described: dict[Source, dict[str, Any]] = {}
        (folder / "trials").mkdir()
        self.small = small_backbone(folder / "small.keras", toy.image_size)

    def place(self, backbone: str) -> Place:
        """Where the features of a backbone lie, or would lie."""
        source = Source(backbone, "own", self._toy.image_size)
        if source not in self._described:
            self._described[source] = backbones.describe(POOL.backbone(source))
        described = self._described[source]
        shapes = tuple(map(tuple, described["shapes"]))
        return Place(self._toy.cache, self._toy.dataset, self._toy.image_size, described["identity"], shapes)

    def keep(self, cut: int) -> None:
        """Compute the features of `tiny` at a cut, for all trials from now on."""
        source, place = Source("tiny", "own", self._toy.image_size), self.place("tiny")
        features.fill(place, [cut], POOL.backbone(source), 1 << 30, silent)

    def configuration(self, name: str, **changes: Any) -> training.Configuration:
        """A configuration that differs from `PARAMETERS`, or in its other fields, by `changes`."""
        fields = {key: changes.pop(key) for key in FIELDS & set(changes)}
        backbone = fields.get("backbone", "tiny")
        parameters = DEFAULTS.parameters({**PARAMETERS, **changes})
        return training.Configuration(
            **{
                "trial": name,
                "parameters": parameters,
                "parts": DEFAULTS.parts(parameters),
                "epochs": 2,
                "seed": 0,
                "objective": Objective(),
                "backbone": backbone,
                "weights": "own",
                "place": self.place(backbone),
                "head_start": False,
                "folder": self._folder / "trials" / name,
                "tensorboard": self._folder / "tensorboard" / name,
                **fields,
            }
        )

    def run(self, name: str, resume: Path | None = None, stop_after: int | None = None, **changes: Any) -> Ran:
        """Train, and look at the network that was trained."""
        configuration = self.configuration(name, **changes)
        if resume:
            configuration.folder.mkdir()
            shutil.copy(resume, configuration.folder / "last.npz")
        built: list[tuple[model.Network, Weights]] = []
        reports: list[dict[str, Any]] = []
        suffix: dict[int, list[NDArray[Any]]] = {}
        orders: dict[int, NDArray[Any]] = {}
        make: Callable[..., tuple[model.Network, features.Start]] = training._network

        def watched(*asked: Any) -> tuple[model.Network, features.Start]:
            network, start = make(*asked)
            built.append((network, variables(network, POOL.backbone(configuration.source, as_trained=True))))
            return network, start

        def report(metrics: dict[str, Any]) -> None:
            network, epoch = built[0][0], metrics["epoch"]
            reports.append(dict(metrics))
            suffix[epoch] = [np.array(variable) for variable in network.weights]
            orders[epoch] = np.array(network.fitted.train._order)
            states = configuration.folder / "states"
            states.mkdir(parents=True, exist_ok=True)
            if (configuration.folder / "last.npz").exists():
                shutil.copy(configuration.folder / "last.npz", states / f"{epoch}.npz")
            if epoch == stop_after:
                raise callbacks.Stopped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "_network", watched)
            patch.setattr(callbacks, "SHARE_OF_TIME", math.inf)
            patch.setattr(callbacks, "SAVE_EVERY_S", 0.0)
            training.train(POOL, configuration, report)
        ((network, before),) = built
        backbone = POOL.backbone(configuration.source, as_trained=True)
        trained = {variable.path for variable in network.fitted.trainable_variables}
        after = variables(network, backbone)
        return Ran(configuration, reports, network, backbone, before, after, trained, suffix, orders)


@pytest.fixture(scope="module")
def trials(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Where this module's trials run."""
    return Trials(toy, tmp_path_factory.mktemp("trials"))


ELSEWHERE = """
import json, sys
sys.modules["search"] = sys.modules["spaces"] = None  # as if they were not installed
try:
    import search
except ImportError:
    pass
else:
    raise SystemExit("search can be imported")
import keras, numpy as np
asked = json.load(open(sys.argv[1]))
network = keras.models.load_model(asked["model"])
_, height, width, _ = network.input_shape
answer = {"input_shape": network.input_shape}
for split, files in asked["files"].items():
    load = lambda path: keras.utils.load_img(path, target_size=(height, width), interpolation="bilinear")
    images = np.stack([keras.utils.img_to_array(load(path)) for path in files])
    answer[split] = network.predict(images, verbose=0).astype(float).tolist()
json.dump(answer, open(sys.argv[2], "w"))
"""


@dataclass(frozen=True)
class Tiny:
    """What is done with the built-in backbone."""

    whole: Ran
    resumed: Ran
    figures: dict[str, Any]
    folder: Path
    elsewhere: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def tiny(trials: Trials, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """All that is done with it, at once, for this process must build it again when it comes back from another one."""
    trials.keep(5)
    whole = trials.run("whole", epochs=20)
    best, folder = whole.reports[-1]["best_epoch"], tmp_path_factory.mktemp("best")
    state = whole.configuration.folder / "states" / f"{best + 1}.npz"
    resumed = trials.run("resumed", resume=state, epochs=whole.configuration.epochs)
    exported = training.export(POOL, whole.configuration, folder, best)
    training.show_tested(whole.configuration, exported, folder)
    training.show(POOL, whole.configuration, best, exported)
    files = {split: [str(toy.folder / item) for item in toy.dataset.items[split]] for split in ("val", "test")}
    (folder / "asked.json").write_text(json.dumps({"model": str(folder / "model.keras"), "files": files}))
    command = [sys.executable, "-I", "-c", ELSEWHERE, "asked.json", "answer.json"]
    with (folder / "errors").open("wb") as errors:
        elsewhere = subprocess.Popen(command, cwd=folder, stderr=errors)  # while other tests run
        yield Tiny(whole, resumed, exported.figures, folder, elsewhere)
        elsewhere.kill()
        elsewhere.wait()


@pytest.fixture(scope="module")
def whole(tiny: Tiny) -> Ran:
    """A trial of the top two blocks, from features that are kept, that ends by its own early stopping."""
    return tiny.whole


ONE = Resources(cpus=1, gpus=0, cpus_per_trial=1, gpus_per_trial=0)
NEVER = SimpleNamespace(asked=lambda: False)
HEAD = {"unfreeze_depth": 0, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def head(trials: Trials) -> Ran:
    """A trial of the head alone, from images, for the lowest loss, that runs all its epochs."""
    return trials.run("head", backbone=trials.small, objective=Objective("val_loss"), **HEAD)


@pytest.fixture(scope="module")
def stopped(trials: Trials) -> Ran:
    """The same with another seed and more epochs, stopped by the scheduler after the first."""
    return trials.run("stopped", backbone=trials.small, seed=1, epochs=5, stop_after=1, **HEAD)


# what it reports


def test_every_epoch_is_reported_with_all_its_fields(whole: Ran) -> None:
    """The record, the scheduler or Optuna would miss what it reads."""
    assert [report["epoch"] for report in whole.reports] == list(range(1, len(whole.reports) + 1))
    for report in whole.reports:
        assert set(report) == REPORTED
        assert all(type(value) in (int, float, str, bool) for value in report.values()), "Ray cannot send it"
        assert 0 <= report["last_val_accuracy"] <= 1
    seconds = [report["seconds"] for report in whole.reports]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


@pytest.mark.parametrize("name", ["whole", "head"])
def test_the_objective_is_that_of_the_best_epoch_so_far(name: str, request: pytest.FixtureRequest) -> None:
    """A good trial would be stopped, or lose, because its last epoch happens to be worse."""
    ran: Ran = request.getfixturevalue(name)
    metric, best = ran.configuration.objective.metric, max if name == "whole" else min
    for count, report in enumerate(ran.reports, start=1):
        values = [earlier[f"last_{metric}"] for earlier in ran.reports[:count]]

        assert report["objective"] == report[metric] == best(values)
        assert report["best_epoch"] == values.index(best(values)) + 1
        for other in ("val_accuracy", "val_loss"):
            assert report[other] == ran.reports[report["best_epoch"] - 1][f"last_{other}"]


def progress(epochs: int, *logs: dict[str, float]) -> list[dict[str, Any]]:
    """What `Progress` makes of the logs of some epochs."""
    import keras

    watching = callbacks.Progress(Objective(), epochs)
    watching.set_model(keras.Sequential([keras.layers.Dense(1)]))
    watching.model.stop_training = False
    found = []
    for epoch, log in enumerate(logs):
        watching.on_epoch_end(epoch, {**dict.fromkeys(METRICS, 0.5), "loss": 0.5, **log})
        found.append(dict(watching.metrics))
    return found


def test_the_objective_never_falls() -> None:
    """Whether or not a real curve falls, the report of an epoch that is worse must keep the best one's figures."""
    curve = [(0.5, 0.9), (0.875, 0.5), (0.75, 0.25), (0.875, 0.125)]
    reports = progress(5, *({"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in curve))

    assert [report["objective"] for report in reports] == [0.5, 0.875, 0.875, 0.875]
    assert [report["best_epoch"] for report in reports] == [1, 2, 2, 2]
    assert [report["val_loss"] for report in reports] == [0.9, 0.5, 0.5, 0.5]
    assert [report["last_val_accuracy"] for report in reports] == [0.5, 0.875, 0.75, 0.875]


@pytest.mark.parametrize("bad", [{"val_loss": math.nan}, {"loss": math.inf}])
def test_a_late_divergence_keeps_the_best_epoch_before_it(bad: dict[str, float]) -> None:
    """The figures of a broken epoch, however good they look, would pass for the trial's best."""
    good = {"val_accuracy": 0.5, "val_loss": 0.75}
    *_, last = progress(5, good, {"val_accuracy": 1.0, "val_loss": 0.25, **bad})

    assert last["ending"] == "diverged"
    assert last["reason"] == f"{next(iter(bad))} is {next(iter(bad.values()))} in epoch 2"
    assert (last["objective"], last["best_epoch"], last["val_loss"]) == (0.5, 1, 0.75)


# how it ends


def test_a_trial_that_gets_no_better_converges(whole: Ran) -> None:
    """Early stopping would come at the wrong epoch, or pass for ASHA's."""
    patience = PARAMETERS["stop_patience"]

    assert [report["ending"] for report in whole.reports] == [""] * (len(whole.reports) - 1) + ["completed"]
    assert [report["reason"] for report in whole.reports] == [""] * (len(whole.reports) - 1) + ["converged"]
    assert whole.reports[-1]["epoch"] == whole.reports[-1]["best_epoch"] + patience < whole.configuration.epochs


def test_patience_begins_after_the_warm_up(trials: Trials) -> None:
    """A rate that first makes a network worse, before it makes it better, would end its trial while it comes back."""
    changes = {**HEAD, "learning_rate": 1e-12, "warmup_epochs": 1.5, "stop_patience": 2}
    ran = trials.run("warm", backbone=trials.small, epochs=9, **changes)

    assert ran.reports[-1]["reason"] == "converged"
    assert (ran.reports[-1]["best_epoch"], ran.reports[-1]["epoch"]) == (1, 2 + 1 + 2)


def test_a_trial_ends_after_all_its_epochs(head: Ran) -> None:
    """A whole trial would pass for one that was cut off."""
    assert [(report["ending"], report["reason"]) for report in head.reports] == [("", ""), ("completed", "all epochs")]


def test_a_rate_far_too_high_diverges(trials: Trials) -> None:
    """One bad configuration would train on with not-a-number, or end the search."""
    far_too_high = {**HEAD, "learning_rate": 1e30}
    (report,) = trials.run("diverged", backbone=trials.small, epochs=3, **far_too_high).reports

    assert (report["ending"], report["reason"]) == ("diverged", "loss is nan in epoch 1")
    assert math.isnan(report["objective"])
    assert report["best_epoch"] == 0


def test_a_stopped_trial_ends_after_its_epoch_with_its_files_closed(stopped: Ran) -> None:
    """A trial that ASHA stops would train on, or leave files that a reused worker holds open for ever."""
    folder = stopped.configuration.folder

    assert [(report["epoch"], report["ending"]) for report in stopped.reports] == [(1, "")]
    assert stopped.curve("validation", "epoch_accuracy") == {1: stopped.reports[0]["last_val_accuracy"]}
    assert (folder / "last.npz").is_file()
    assert (folder / "best.npz").is_file()
    if sys.platform == "linux":
        opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert [path for path in opened if str(stopped.configuration.tensorboard) in path] == []


# what it trains


def test_only_the_unfrozen_blocks_and_the_head_change(whole: Ran) -> None:
    """The frozen part would drift from its pretrained weights, and features could not be shared between trials."""
    suffix = {variable.path for variable in whole.network.suffix.variables}
    paths = [path for path, _ in whole.before]

    assert len(paths) == len(set(paths))
    assert whole.changed <= suffix
    assert {path for path in paths if path.startswith(("stem", "block1", "block4"))}.isdisjoint(suffix)
    assert {path.split("/")[0].split("_")[0] for path in whole.trained} == {"block5", "block6", "probabilities"}
    assert whole.trained <= whole.changed, "some of the unfrozen part is not trained"


def test_batch_normalisation_keeps_its_statistics(whole: Ran) -> None:
    """Statistics of a small data set would replace those of the pretraining, in unfrozen blocks too."""
    statistics = {path for path, _ in whole.before if path.endswith(("moving_mean", "moving_variance"))}
    scales = {path for path in whole.changed if path.endswith(("gamma", "beta"))}

    assert any(path.startswith("block6") for path in statistics)
    assert any(path.startswith("stem") for path in statistics)
    assert whole.changed.isdisjoint(statistics)
    assert len(scales) == len([path for path in statistics if path.startswith(("block5", "block6"))])


def test_depth_0_trains_the_head_alone(head: Ran) -> None:
    """The baseline would not be one."""
    trained = {path for path in head.changed if "seed_generator" not in path}

    assert trained == {"probabilities/kernel", "probabilities/bias"}


def untrained(trials: Trials, **changes: Any) -> tuple[model.Network, Callable[[], Weights]]:
    """A trial's network before its first step, and what gives its variables as they are then."""
    configuration = trials.configuration("untrained", **changes)
    network, _ = training._network(POOL, configuration, None)
    return network, lambda: variables(network, POOL.backbone(configuration.source, as_trained=True))


def test_decay_spares_biases_and_norms(trials: Trials) -> None:
    """Decay would pull batch normalisation towards an output of zero."""
    parameters = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.5, "learning_rate": 0.1}
    network, now = untrained(trials, backbone=trials.small, **parameters)
    before = now()
    weights = network.fitted.trainable_variables
    network.optimizer.apply([weight * 0 for weight in weights], weights)
    after = now()
    shrunk = different(before, after)

    assert shrunk == {weight.path for weight in weights if weight.path.endswith("kernel")}
    for (path, old), (_, new) in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old * (0.95 if path in shrunk else 1), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_rate_rises_over_the_first_steps(trials: Trials, optimizer: str) -> None:
    """A high rate would destroy what the network knows before it has learned anything, or never be reached."""
    parameters = {"optimizer": optimizer, "learning_rate": 0.5, "weight_decay": 0.0, "momentum": 0.0}
    steps = math.ceil(len(trials.place(trials.small).labels["train"]) / PARAMETERS["batch_size"])
    network, _ = untrained(trials, backbone=trials.small, unfreeze_depth=0, **parameters, warmup_epochs=4 / steps)
    weights = network.fitted.trainable_variables
    moved = []
    for _ in range(6):
        before = np.array(weights[0])
        network.optimizer.apply([weight * 0 + 1 for weight in weights], weights)
        moved.append(float((before - np.asarray(weights[0])).mean()))

    np.testing.assert_allclose(moved, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5], rtol=1e-3)


@pytest.mark.parametrize("rate", [0.25, 0.5])
@pytest.mark.parametrize(("optimizer", "momentum"), [("adam", 0.0), ("sgd", 0.5), ("sgd", 0.75)])
def test_parameters_reach_the_optimizer(trials: Trials, optimizer: str, momentum: float, rate: float) -> None:
    """Optuna would search for the best of a parameter that does nothing, or that keeps the last trial's value."""
    parameters = {"optimizer": optimizer, "learning_rate": rate, "weight_decay": 0.0, "momentum": momentum}
    network, _ = untrained(trials, backbone=trials.small, unfreeze_depth=0, **parameters)
    weights = network.fitted.trainable_variables
    before = [np.array(weight) for weight in weights]
    for _ in range(2):
        network.optimizer.apply([weight * 0 + 1 for weight in weights], weights)

    for weight, old in zip(weights, before, strict=True):
        np.testing.assert_allclose(np.asarray(weight) - old, -(2 * rate + momentum * rate), rtol=1e-3)


@pytest.mark.parametrize("name", SEARCHABLE)
def test_a_parameter_that_does_not_apply_has_its_default(trials: Trials, name: str, tmp_path: Path) -> None:
    """Every trial of a space that has the parameter under a condition would fail where the condition does not hold."""
    parent, value, other = ("batch_size", 16, 8) if name == "optimizer" else ("optimizer", "adam", "sgd")
    default = SETTINGS[name].default
    varying = Int(1, 8) if isinstance(default, int) else Choice(["adam", "sgd"]) if name == "optimizer" else Float(0, 1)
    space = Space(
        search={parent: Choice([value, other]), name: varying},
        when={name: (parent, other)},
        fixed={"backbone": trials.small, "head_start": "random"},
        budget=Budget(trials=2, epochs=1),
    )
    work = Workload(trials.place(trials.small), (), 0, {})
    place = trials.place(trials.small)
    asked = Request(space, tmp_path, "own", place.image_size, place.cache, 0, ONE, known=work)
    configuration = asked.configuration("0000", {parent: value})
    configuration.folder.parent.mkdir()
    reports: list[dict[str, Any]] = []
    training.train(POOL, configuration, reports.append)

    assert set(configuration.parameters) == set(SEARCHABLE)
    assert (configuration.parameters[name], configuration.parameters[parent]) == (default, value)
    assert [report["reason"] for report in reports] == ["all epochs"]


def test_what_is_frozen_stays_frozen_after_a_deeper_trial(trials: Trials) -> None:
    """A process would train layers that the trial before had unfrozen, or end with an unknown variable."""
    for depth in (0, 3, 0):
        network, _ = untrained(trials, backbone=trials.small, **{**HEAD, "unfreeze_depth": depth})

    assert [variable.path for variable in network.fitted.trainable_variables] == [
        variable.path for variable in (network.head.kernel, network.head.bias)
    ]


@pytest.mark.parametrize("dropout", [0.0, 0.25, 0.75])
def test_the_dropout_reaches_the_features(trials: Trials, dropout: float) -> None:
    """Every trial would drop as many features as the first, or features in validation too, or shrink what is left."""
    network, _ = untrained(trials, backbone=trials.small, **{**HEAD, "dropout": dropout})
    ones = np.ones((1000, 8), "float32")
    dropped = np.asarray(network.dropout(ones, training=True))

    assert (dropped == 0).mean() == pytest.approx(dropout, abs=0.03)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - dropout), rtol=1e-6)
    np.testing.assert_array_equal(network.dropout(ones, training=False), ones)


# seeds, and what is read


def test_the_same_seed_gives_the_same_numbers_without_the_test_images(
    head: Ran, trials: Trials, toy: Toy, tmp_path: Path
) -> None:
    """A search could not be repeated; or a trial would read the images that only the winner may see."""
    place = replace(head.configuration.place, cache=tmp_path / "cache")
    shutil.copytree(toy.cache / "images", place.cache / "images")
    (held_out,) = place.cache.glob(f"images/{toy.dataset.fingerprint[:32]}-{toy.image_size}-*/test.npy")
    held_out.write_bytes(b"garbage")
    again = trials.run("again", backbone=trials.small, objective=Objective("val_loss"), place=place, **HEAD)

    for report, expected in zip(again.reports, head.reports, strict=True):
        assert report == pytest.approx({**expected, "seconds": report["seconds"]}, abs=TOLERANCE)
    assert held_out.read_bytes() == b"garbage", "the test images were opened, and so decoded again"


def test_another_seed_gives_other_numbers(head: Ran, stopped: Ran) -> None:
    """The seed would not reach the head, the order of images or the dropout."""
    heads = [dict(ran.before)["probabilities/kernel"] for ran in (head, stopped)]

    assert not np.array_equal(*heads)
    assert stopped.reports[0]["val_loss"] != pytest.approx(head.reports[0]["val_loss"], abs=TOLERANCE)


# going on


@pytest.fixture(scope="module")
def resumed(tiny: Tiny) -> Ran:
    """The first trial again, from its state one epoch after its best: plateau and early stopping have begun to wait."""
    return tiny.resumed


def test_a_resumed_trial_goes_on_as_if_nothing_had_happened(whole: Ran, resumed: Ran) -> None:
    """Weights, optimizer, dropout, order of images or the callbacks' patience would begin anew."""
    rest = whole.reports[whole.reports[-1]["best_epoch"] :]  # the state's own epoch is reported again

    assert len({report["last_val_loss"] for report in rest}) > 1, "the curve is flat and shows nothing"
    assert len(resumed.reports) == len(rest)
    for report, expected in zip(resumed.reports, rest, strict=True):
        assert report == pytest.approx({**expected, "seconds": report["seconds"]}, abs=TOLERANCE)


def test_a_resumed_trial_draws_the_noise_and_the_order_it_would_have_drawn(whole: Ran, resumed: Ran) -> None:
    """The curve would look alike, and the weights be those of another trial."""
    first = resumed.reports[1]["epoch"]
    drawn = {path for path in whole.changed if "seed_generator" in path}

    assert drawn
    assert drawn.isdisjoint(different(whole.after, resumed.after))
    for epoch in range(first, whole.reports[-1]["epoch"] + 1):
        np.testing.assert_array_equal(resumed.orders[epoch], whole.orders[epoch])
    assert not np.array_equal(whole.orders[first], whole.orders[first + 1])
    for (path, expected), (_, found) in zip(whole.after, resumed.after, strict=True):
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, err_msg=path)


def test_a_resumed_trial_remembers_its_rate_its_best_and_its_time(whole: Ran, resumed: Ran) -> None:
    """The rate would jump back, a worse epoch overwrite the best weights, or the time before be forgotten."""
    rates = whole.curve("train", "epoch_learning_rate")
    first = resumed.reports[1]["epoch"]
    kept = [checkpoint.arrays(ran.configuration.folder / "best.npz") for ran in (whole, resumed)]

    assert resumed.curve("train", "epoch_learning_rate") == {e: rate for e, rate in rates.items() if e >= first}
    assert best_on_disk(resumed.configuration) == whole.reports[-1]["best_epoch"] < first
    for expected, found in zip(*kept, strict=True):
        np.testing.assert_array_equal(expected, found)
    assert resumed.reports[1]["seconds"] > whole.reports[first - 2]["seconds"]


def test_a_trial_that_was_over_reports_its_end_again(head: Ran) -> None:
    """A trial that was killed between its last state and its last report would run on, or never be seen to end."""
    reports: list[dict[str, Any]] = []
    training.train(POOL, head.configuration, reports.append, head.configuration.folder / "last.npz")

    assert reports == head.reports[-1:]


def test_a_state_holds_only_what_is_trained(whole: Ran) -> None:
    """Every trial would write the whole backbone every few seconds."""
    with np.load(whole.configuration.folder / "last.npz") as file:
        shapes = [file[str(index)].shape for index in range(len(file.files) - 1)]
    suffix = whole.network.weights
    optimizer = [v for v in whole.network.fitted.optimizer.variables if "decay" not in v.name]

    assert shapes == [tuple(v.shape) for v in [*suffix, *optimizer, *suffix]]
    assert {v.path.split("/")[0].split("_")[0] for v in suffix} == {"block5", "block6", "seed", "probabilities"}


def test_a_state_with_more_that_is_set_from_the_parameters_is_read(head: Ran, tmp_path: Path) -> None:
    """An upgrade in the middle of a long search would lose its trials whenever a version sets another scalar."""
    state, _ = checkpoint.restore(head.configuration.folder, head.network)
    before, rate = head.now, np.float32(0.5)
    weights = [np.array(variable) for variable in head.network.state]
    older = [rate, *weights[:5], rate, rate, *weights[5:], rate, *state.best]
    checkpoint.write(tmp_path / "last.npz", asdict(state) | {"best": 1 + len(state.best)}, older)
    for variable in head.network.state:
        variable.assign(np.ones_like(variable))
    found, said = checkpoint.restore(tmp_path, head.network)

    assert (found.epoch, said, different(before, head.now)) == (state.epoch, "", set())
    assert all(np.array_equal(*pair) for pair in zip(found.best, state.best, strict=True))


def truncated(good: bytes) -> bytes:
    """The first half."""
    return good[: len(good) // 2]


def flipped(good: bytes) -> bytes:
    """One bit is wrong in the middle."""
    middle = len(good) // 2
    return good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped, lambda _: b"", lambda _: b"PK\x03\x04 text", lambda _: b"\x93NUMPY\x01\x00 text", None],
    ids=["truncated", "flipped", "empty", "zip", "npy", "missing"],
)
def test_a_damaged_state_is_refused(whole: Ran, damage: Callable[[bytes], bytes] | None, tmp_path: Path) -> None:
    """A trial would go on from wrong weights, or die with an error that does not name the file."""
    if damage:
        for name in ("last.npz", "previous.npz"):
            (tmp_path / name).write_bytes(damage((whole.configuration.folder / "last.npz").read_bytes()))
    before = whole.now

    with pytest.raises(CheckpointError, match=r"last\.npz.*previous\.npz"):
        checkpoint.restore(tmp_path, whole.network)
    assert different(before, whole.now) == set()


@pytest.mark.parametrize("damage", [truncated, flipped, None], ids=["truncated", "flipped", "missing"])
def test_behind_a_damaged_state_lies_the_one_before(
    head: Ran, damage: Callable[[bytes], bytes] | None, tmp_path: Path
) -> None:
    """A file that a crash or a disk spoilt would cost the whole trial."""
    for epoch in (1, 2):
        checkpoint.save(tmp_path, head.network, checkpoint.State(epoch, {}))
    good = (tmp_path / "last.npz").read_bytes()
    (tmp_path / "last.npz").unlink()
    if damage:
        (tmp_path / "last.npz").write_bytes(damage(good))
    state, said = checkpoint.restore(tmp_path, head.network)

    assert state.epoch == 1
    assert str(tmp_path / "last.npz") in said


def test_arrays_that_the_manifest_does_not_name_are_refused(head: Ran, tmp_path: Path) -> None:
    """A file that somebody has put together anew, every part of it in order, would be taken for the trial's own."""
    checkpoint.save(tmp_path, head.network, checkpoint.State(1, {}))
    with np.load(tmp_path / "last.npz") as file:
        contents = dict(file)
    contents["0"] = contents["0"] + 1
    np.savez(tmp_path / "last.npz", **contents)

    with pytest.raises(CheckpointError, match="its arrays are not those of its manifest"):
        checkpoint.restore(tmp_path, head.network)


def test_damage_anywhere_is_refused_or_does_no_harm(head: Ran, tmp_path: Path) -> None:
    """Some damaged state would raise an error that is taken for a bug of ours, or be read as other numbers."""
    good = (head.configuration.folder / "last.npz").read_bytes()
    state = tmp_path / "last.npz"
    restored, _ = checkpoint.restore(head.configuration.folder, head.network)
    expected = head.now
    positions = range(0, len(good), 17)
    refused = 0
    for position in positions:
        state.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            found, _ = checkpoint.restore(tmp_path, head.network)
        except CheckpointError:
            refused += 1
            continue
        assert replace(found, best=()) == replace(restored, best=()), f"byte {position}"
        assert all(np.array_equal(*pair) for pair in zip(found.best, restored.best, strict=True)), f"byte {position}"
    assert different(expected, head.now) == set()

    assert refused > len(positions) / 2


def test_a_trial_never_starts_afresh_in_place_of_its_state(whole: Ran, head: Ran, trials: Trials) -> None:
    """A resumed trial would silently be another one, under the same number."""
    configuration = replace(head.configuration, folder=trials.configuration("foreign").folder)
    configuration.folder.mkdir()
    shutil.copy(whole.configuration.folder / "last.npz", configuration.folder)
    reports: list[dict[str, Any]] = []

    with pytest.raises(CheckpointError, match=r"last\.npz belongs to another network"):
        training.train(POOL, configuration, reports.append)
    assert reports == []
    assert [path.name for path in configuration.folder.iterdir()] == ["last.npz"]


def test_a_state_that_cannot_be_written_leaves_the_old_one(head: Ran, tmp_path: Path) -> None:
    """A full disk would cost a trial all that it had learned."""
    checkpoint.save(tmp_path, head.network, checkpoint.State(1, {}))
    old = (tmp_path / "last.npz").read_bytes()
    (tmp_path / "last.npz.tmp").mkdir()

    with pytest.raises(StorageError, match=r"last\.npz cannot be written: Is a directory"):
        checkpoint.save(tmp_path, head.network, checkpoint.State(2, {}))
    assert (tmp_path / "last.npz").read_bytes() == old


def test_a_process_that_lost_its_trial_writes_nothing_more(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut off from the cluster would write its checkpoints over those of the process that goes on."""
    monkeypatch.setattr(callbacks, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(callbacks, "SHARE_OF_TIME", math.inf)
    configuration = trials.configuration("lost", backbone=trials.small, epochs=4, **HEAD)
    seen: list[bytes] = []

    def report(metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == 2:
            checkpoint.take(configuration.folder, "another")
        seen.append((configuration.folder / "last.npz").read_bytes())

    with pytest.raises(CheckpointError, match="belongs to another process"):
        training.train(POOL, configuration, report)
    assert len(seen) == 2
    assert (configuration.folder / "last.npz").read_bytes() == seen[-1]


def test_a_paused_trial_is_saved_and_goes_on_as_if_nothing_had_happened(trials: Trials) -> None:
    """Ctrl-C would cost the epochs since the last checkpoint, or leave the trial waiting for ever."""
    changes = {"backbone": trials.small, "epochs": 4, **HEAD}
    whole, reports = trials.run("unpaused", **changes).reports, list[dict[str, Any]]()
    configuration = trials.configuration("paused", **changes)
    training.train(POOL, configuration, reports.append, lambda: len(reports) == 1)

    assert [report["paused"] for report in reports] == [False, True]
    training.train(POOL, configuration, reports.append)
    assert [report["epoch"] for report in reports] == [1, 2, 2, 3, 4]
    for report in reports:
        expected = {**whole[report["epoch"] - 1], "seconds": report["seconds"], "paused": report["paused"]}
        assert report == pytest.approx(expected), f"epoch {report['epoch']}"
    assert not any(report["paused"] for report in reports[2:])


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module whose function Ray runs; Ray hands objects on, and no library is told of threads."""
    from search.driver import worker

    monkeypatch.setattr(worker.ray, "get", lambda reference: reference)
    monkeypatch.setattr(worker, "importing_keras", nullcontext)
    return worker


def test_a_worker_goes_on_from_the_state_that_lies_there(
    worker: Any, head: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interruption every trial would start from the beginning, or with other parameters."""
    shutil.copy(head.configuration.folder / "last.npz", tmp_path)
    asked, reported = list[Any](), list[dict[str, Any]]()

    def configuration(*arguments: Any) -> training.Configuration:
        asked.append(arguments)
        return replace(head.configuration, folder=tmp_path)

    request = SimpleNamespace(
        space=DEFAULTS,
        resources=ONE,
        question=None,
        uri="",
        folder=Path(),
        configuration=configuration,
    )
    monkeypatch.setattr(worker.tune, "report", reported.append)
    worker.run_trial({"trial": "0007", "dropout": 0.5}, request, math.inf, NEVER, worker.Process(pool=POOL))

    assert asked == [("0007", {"dropout": 0.5}, math.inf)]
    assert [metrics["epoch"] for metrics in reported] == [head.reports[-1]["epoch"]]


def test_a_worker_reports_what_went_wrong(worker: Any, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would try a configuration again and again whose fault it is, or the cause be lost."""
    configuration = trials.configuration("wrong", backbone=trials.small, **{**HEAD, "learning_rate": "high"})
    request = SimpleNamespace(
        space=DEFAULTS,
        resources=ONE,
        question=None,
        uri="",
        folder=configuration.folder.parent,
        configuration=lambda *chosen: configuration,  # noqa: ARG005
    )
    reported: list[dict[str, Any]] = []
    monkeypatch.setattr(worker.tune, "report", reported.append)
    worker.run_trial({"trial": "wrong"}, request, math.inf, NEVER, worker.Process(pool=POOL))
    (failed,) = reported

    assert re.match(r"\w+: .*high", failed["failure"])
    assert "Traceback" in failed["traceback"]
    assert failed["crowded"]


def test_a_worker_does_not_blame_the_configuration_for_a_lost_storage(
    worker: Any, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial would be recorded as failed when the disk is full or gone, and none run again."""
    configuration = trials.configuration("homeless", backbone=trials.small, **HEAD)
    configuration = replace(configuration, folder=configuration.folder / "gone" / "0000")
    request = SimpleNamespace(
        space=DEFAULTS,
        resources=ONE,
        question=None,
        uri="",
        folder=configuration.folder.parent,
        configuration=lambda *chosen: configuration,  # noqa: ARG005
    )
    monkeypatch.setattr(worker.tune, "report", lambda metrics: None)  # noqa: ARG005
    with pytest.raises(StorageError, match=r"gone cannot be written: it is gone"):
        worker.run_trial({"trial": "homeless"}, request, math.inf, NEVER, worker.Process(pool=POOL))


def test_a_worker_lets_a_trial_end_before_it_ends_itself(
    worker: Any, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that Ray stops would leave its files open, or Ray take it for one that ended by itself."""
    configuration = trials.configuration("ray", backbone=trials.small, epochs=5, rungs=(2, 5), **HEAD)
    request = SimpleNamespace(
        space=DEFAULTS,
        resources=ONE,
        question=None,
        uri="",
        folder=Path(),
        configuration=lambda *chosen: configuration,  # noqa: ARG005
    )
    reported: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any]) -> None:
        reported.append(metrics)
        if metrics["epoch"] == 2:
            sys.exit(0)

    monkeypatch.setattr(worker.tune, "report", report)
    with pytest.raises(SystemExit):
        worker.run_trial({"trial": "ray"}, request, math.inf, NEVER, worker.Process(pool=POOL))

    assert [metrics["epoch"] for metrics in reported] == [1, 2]
    assert list(scalars(configuration.tensorboard / "validation", "epoch_loss")) == [1, 2]
    assert best_on_disk(configuration) == reported[-1]["best_epoch"]


# the best weights on disk


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written because some seconds have passed."""
    monkeypatch.setattr(callbacks, "SAVE_EVERY_S", math.inf)


def watched(trials: Trials, name: str, end: int, **changes: Any) -> tuple[list[int | None], list[int]]:
    """A trial that is stopped at epoch `end`: at each report, the epoch that lies on disk, and that which is best."""
    configuration = trials.configuration(name, backbone=trials.small, epochs=end + 3, **{**HEAD, **changes})
    found: list[int | None] = []
    best: list[int] = []

    def report(metrics: dict[str, Any]) -> None:
        found.append(best_on_disk(configuration))
        best.append(metrics["best_epoch"])
        if metrics["epoch"] == end:
            raise callbacks.Stopped

    training.train(POOL, configuration, report)
    return found, best


@pytest.mark.parametrize("name", ["whole", "head", "stopped"])
def test_the_weights_on_disk_are_those_of_the_best_epoch(name: str, request: pytest.FixtureRequest) -> None:
    """The winner would be exported with the weights of its last epoch, or of another trial in its process."""
    ran: Ran = request.getfixturevalue(name)
    best = ran.reports[-1]["best_epoch"]
    found = checkpoint.arrays(ran.configuration.folder / "best.npz")

    assert best_on_disk(ran.configuration) == best
    assert len(found) == len(ran.suffix[best])
    for expected, values in zip(ran.suffix[best], found, strict=True):
        np.testing.assert_array_equal(expected, values)


def test_the_best_weights_of_one_epoch_differ_from_those_of_the_next(whole: Ran) -> None:
    """The test above would hold whatever was written."""
    best = whole.reports[-1]["best_epoch"]

    for epoch in {1, best + 1, whole.reports[-1]["epoch"]} - {best}:
        assert any(not np.array_equal(*pair) for pair in zip(whole.suffix[best], whole.suffix[epoch], strict=True))


@pytest.mark.usefixtures("seldom")
def test_at_a_rung_the_best_weights_are_there_before_it_is_reported(trials: Trials) -> None:
    """ASHA would stop a trial whose best weights nobody has: were it the best of all, it could not be exported."""
    found, best = watched(trials, "rung", end=2, rungs=(2, 5))

    assert found == [None, best[1]]


@pytest.mark.usefixtures("seldom")
def test_near_the_deadline_the_best_weights_are_there_after_every_epoch(trials: Trials) -> None:
    """When the time is up, the best trial of all would have no weights, or those of an earlier epoch."""
    found, best = watched(trials, "deadline", end=3, deadline=time.time() + 0.001, learning_rate=0.1)
    early, _ = watched(trials, "early", end=3, deadline=time.time() + 3600)

    assert found == best
    assert early == [None] * 3


def test_the_export_refuses_weights_of_another_epoch(head: Ran, tmp_path: Path) -> None:
    """A trial that was cut off would be exported with weights that do not give its figures."""
    with pytest.raises(CheckpointError, match=r"best\.npz does not hold the weights of epoch 99.*previous\.npz"):
        training.export(POOL, head.configuration, tmp_path, 99)
    assert list(tmp_path.iterdir()) == []


def test_the_mean_of_several_trials_is_exported_where_it_is_better(head: Ran, trials: Trials, tmp_path: Path) -> None:
    """The model would be exported with weights that do not give its figures, or be worse than the winner's own.

    The loss of a head is convex in its weights, so the mean with a better one must be better than the first alone.
    """
    longer = {**HEAD, "learning_rate": 3e-2, "epochs": 8, "objective": Objective("val_loss")}
    ran = [trials.run(f"mixed {seed}", backbone=trials.small, seed=seed, **longer) for seed in (3, 4)]
    gone = replace(ran[0].configuration, folder=tmp_path / "gone")
    others = [(gone, 1), *((one.configuration, one.reports[-1]["best_epoch"]) for one in ran)]
    best = head.reports[-1]["best_epoch"]
    (tmp_path / "alone").mkdir()
    (tmp_path / "mixed").mkdir()
    alone = training.export(POOL, head.configuration, tmp_path / "alone", best)
    mixed = training.export(POOL, head.configuration, tmp_path / "mixed", best, others)

    assert "soup" not in alone.figures
    place = head.configuration.place
    before, after = (evaluated(exported.model, place) for exported in (alone, mixed))
    losses = [one.reports[-1]["val_loss"] for one in (head, *ran)]
    assert losses[0] > min(losses[1:]), losses
    assert mixed.figures["soup"]["trials"][0] == head.configuration.trial
    said = mixed.figures["soup"]["alone"]
    assert (said["val_accuracy"], said["test_accuracy"]) == (before[1], alone.figures["test_accuracy"])
    assert after[0] < before[0], "the loss, which is this trial's objective"
    assert mixed.figures["val_accuracy"] == after[1]
    network, _ = training._best(POOL, head.configuration, best)
    assert not np.array_equal(network.head.kernel, mixed.model.layers[-1].kernel)


def evaluated(model: Any, place: Place) -> tuple[float, float]:
    """Loss and accuracy of an exported model on the validation images."""
    read, target = features.images(place, "val", 0), place.dataset.target
    said = explanation.answers(explanation.answering(model), read, place.labels["val"], 32, target)
    figures = said.metrics(METRICS)
    return figures["val_loss"], figures["val_accuracy"]


# the head's start


def test_a_head_start_is_trained_once_and_worth_it(
    trials: Trials, tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial would pay for the probe, or none would gain by it."""
    place = replace(trials.place(trials.small), cache=tmp_path / "cache")
    shutil.copytree(toy.cache / "images", place.cache / "images")
    trained: list[Any] = []
    train = probe._trained
    monkeypatch.setattr(probe, "_trained", lambda *asked, **more: trained.append(asked) or train(*asked, **more))
    first: list[float] = []
    for name, start in (("random", False), ("probe", True), ("probe again", True)):
        changes = {**HEAD, "learning_rate": 1e-5, "objective": Objective("val_loss"), "place": place}
        ran = trials.run(name, backbone=trials.small, epochs=1, head_start=start, **changes)
        first.append(ran.reports[0]["last_val_loss"])
        assert len(trained) == (name != "random")

    assert first[1] < first[0] / 2
    assert first[2] == pytest.approx(first[1], abs=TOLERANCE)


# what TensorBoard shows


def test_scalars_of_every_epoch_lie_where_tensorboard_compares_them(whole: Ran) -> None:
    """Curves would be missing, or lie under names that the HParams page does not ask for."""
    epochs = [report["epoch"] for report in whole.reports]

    for tag in ("epoch_loss", "epoch_accuracy", "epoch_learning_rate"):
        assert list(whole.curve("train", tag)) == epochs
    for name in ("accuracy", "loss"):
        shown = whole.curve("validation", f"epoch_{name}")
        assert list(shown) == epochs
        assert list(shown.values()) == pytest.approx([report[f"last_val_{name}"] for report in whole.reports])


def test_the_rate_falls_when_nothing_gets_better(whole: Ran) -> None:
    """`ReduceLROnPlateau` would do nothing, or its steps could not be seen."""
    best = whole.reports[-1]["best_epoch"]
    rates = list(whole.curve("train", "epoch_learning_rate").values())
    slow = best + PARAMETERS["plateau_patience"]
    falls = [later / earlier for earlier, later in pairwise(rates) if later != earlier]

    assert rates[0] == pytest.approx(PARAMETERS["learning_rate"])
    assert rates[slow] / rates[slow - 1] == pytest.approx(PARAMETERS["plateau_factor"])
    assert falls == pytest.approx([PARAMETERS["plateau_factor"]] * len(falls))


# the winner


@dataclass(frozen=True)
class Exported:
    """What the export says of the winner, and what plain Keras makes of its file and the raw images elsewhere."""

    figures: dict[str, Any]
    probabilities: dict[str, NDArray[np.float64]]
    input_shape: list[int | None]


@pytest.fixture(scope="module")
def exported(tiny: Tiny) -> Exported:
    """The export of the first trial."""
    assert tiny.elsewhere.wait(120) == 0, (tiny.folder / "errors").read_text()
    answer = json.loads((tiny.folder / "answer.json").read_text())
    probabilities = {split: np.array(answer[split]) for split in ("val", "test")}
    return Exported(tiny.figures, probabilities, answer["input_shape"])


def test_plain_keras_gives_the_figures_of_the_export(exported: Exported, toy: Toy) -> None:
    """Who uses the model would not get what `metrics.json` promises."""
    true, guessed = np.array(toy.dataset.labels["test"]), exported.probabilities["test"].argmax(axis=1)
    confusion = [[int(((true == row) & (guessed == column)).sum()) for column in (0, 1)] for row in (0, 1)]
    picked = exported.probabilities["test"][np.arange(len(true)), true]

    assert exported.figures["test_accuracy"] == (true == guessed).mean()
    assert exported.figures["confusion_matrix"] == confusion
    assert exported.figures["test_loss"] == pytest.approx(-np.log(picked).mean(), abs=1e-4)
    assert confusion != np.transpose(confusion).tolist(), "rows and columns cannot be told apart"
    assert np.sum(confusion, axis=1).tolist() == np.bincount(true).tolist()


def test_the_export_is_the_best_epoch_of_the_trial(exported: Exported, whole: Ran, toy: Toy) -> None:
    """The exported model would be that of the last epoch, or lack the preprocessing or the trained blocks."""
    true, best = np.array(toy.dataset.labels["val"]), whole.reports[-1]
    picked = exported.probabilities["val"][np.arange(len(true)), true]

    assert (exported.probabilities["val"].argmax(axis=1) == true).mean() == pytest.approx(best["val_accuracy"])
    assert -np.log(picked).mean() == pytest.approx(best["val_loss"], abs=1e-4)


def test_every_metric_is_that_of_the_epochs_answers(exported: Exported, whole: Ran, toy: Toy) -> None:
    """A metric would be computed from another epoch's answers, or from those of other images."""
    computed = of_answers(np.array(toy.dataset.labels["val"]), exported.probabilities["val"], METRICS)
    assert computed == pytest.approx({name: whole.reports[-1][name] for name in computed}, abs=1e-4)
    of_test = of_answers(np.array(toy.dataset.labels["test"]), exported.probabilities["test"], METRICS)
    told = {name: exported.figures[name.replace("val_", "test_")] for name in of_test}
    assert of_test == pytest.approx(told, abs=1e-4)
    assert len({round(report["last_val_loss"], 4) for report in whole.reports}) > 1, "epochs cannot be told apart"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_the_objective(trials: Trials, metric: str) -> None:
    """A trial would watch, keep or report something else."""
    ran = trials.run(f"for {metric}", backbone=trials.small, objective=Objective(metric), **HEAD)
    values = [report[f"last_{metric}"] for report in ran.reports]
    best = METRICS[metric].rank
    assert ran.reports[-1]["objective"] == ran.reports[-1][metric] == min(values, key=best)


def test_the_exported_model_gives_probabilities_of_raw_images(exported: Exported, toy: Toy) -> None:
    """The output would be logits, or the input other than the contract says."""
    assert exported.input_shape == [None, toy.image_size, toy.image_size, 3]
    for probabilities in exported.probabilities.values():
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
