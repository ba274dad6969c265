"""A trial runs whole without Ray: what it reports, trains, saves and logs, and what becomes of the winner."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Toy
from numpy.typing import NDArray

from search import callbacks, checkpoint, model, trial
from search.errors import CheckpointError
from search.space import Objective

REPORTED = {
    *("epoch", "objective", "best_epoch", "val_accuracy", "val_loss", "last_val_accuracy", "last_val_loss"),
    *("seconds", "ending"),
}
PARAMETERS = {
    "unfreeze_depth": 2,
    "learning_rate": 3e-3,
    "optimizer": "adam",
    "weight_decay": 1e-3,
    "dropout": 0.3,
    "batch_size": 16,
    "plateau_patience": 2,
    "plateau_factor": 0.25,
    "stop_patience": 3,
}
TOLERANCE = 1e-5
Weights = list[tuple[str, NDArray[Any]]]


@dataclass
class Ran:
    """A trial that was run: what it reported, its network, and all variables of that before and after."""

    configuration: trial.Configuration
    reports: list[dict[str, Any]]
    network: model.Network
    before: Weights
    after: Weights

    @property
    def changed(self) -> set[str]:
        """The variables that differ from before by a single bit."""
        pairs = zip(self.before, self.after, strict=True)
        return {path for (path, old), (_, new) in pairs if not np.array_equal(old, new, equal_nan=True)}

    def curve(self, part: str, tag: str) -> dict[int, float]:
        """Epoch, from 1 → the scalar that TensorBoard shows."""
        return scalars(self.configuration.tensorboard / part, tag)


def scalars(folder: Path, tag: str) -> dict[int, float]:
    """Epoch, from 1 → the value of one tag, as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(folder)).Reload()
    return {event.step + 1: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}


def variables(network: model.Network) -> Weights:
    """A copy of every variable, random states included."""
    return [(variable.path, np.asarray(variable).copy()) for variable in network.whole.variables]


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
        self.small = small_backbone(folder / "small.keras", toy.image_size)

    def configuration(self, name: str, **changes: Any) -> trial.Configuration:
        """A configuration that differs from `PARAMETERS`, or in its other fields, by `changes`."""
        fields = {
            key: changes.pop(key) for key in ("epochs", "seed", "objective", "cache", "backbone") if key in changes
        }
        return trial.Configuration(
            **{
                "trial": name,
                "parameters": {**PARAMETERS, **changes},
                "epochs": 2,
                "seed": 0,
                "objective": Objective(),
                "backbone": "tiny",
                "weights": "own",
                "image_size": self._toy.image_size,
                "dataset": self._toy.dataset,
                "folder": self._folder / "trials" / name,
                "tensorboard": self._folder / "tensorboard" / name,
                "cache": self._toy.cache,
                **fields,
            }
        )

    def run(self, name: str, resume: Path | None = None, stop_after: int | None = None, **changes: Any) -> Ran:
        """Train, and look at the network that was trained."""
        configuration = self.configuration(name, **changes)
        built: list[tuple[model.Network, Weights]] = []
        reports: list[dict[str, Any]] = []
        build: Callable[[trial.Configuration], model.Network] = trial._network

        def watched(asked: trial.Configuration) -> model.Network:
            network = build(asked)
            built.append((network, variables(network)))
            return network

        def report(metrics: dict[str, Any]) -> None:
            reports.append(dict(metrics))
            states = configuration.folder / "states"
            states.mkdir(parents=True, exist_ok=True)
            if (configuration.folder / "last.npz").exists():
                shutil.copy(configuration.folder / "last.npz", states / f"{metrics['epoch']}.npz")
            if metrics["epoch"] == stop_after:
                raise callbacks.Stopped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trial, "_network", watched)
            patch.setattr(callbacks, "SHARE_OF_TIME", math.inf)
            trial.train(configuration, report, resume)
        ((network, before),) = built
        return Ran(configuration, reports, network, before, variables(network))


@pytest.fixture(scope="module")
def trials(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Where this module's trials run."""
    return Trials(toy, tmp_path_factory.mktemp("trials"))


@pytest.fixture(scope="module")
def whole(trials: Trials) -> Ran:
    """A trial of the top two blocks that ends by its own early stopping."""
    return trials.run("whole", epochs=20)


HEAD = {"unfreeze_depth": 0, "optimizer": "sgd", "momentum": 0.5, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def head(trials: Trials) -> Ran:
    """A trial of the head alone, for the lowest loss, that runs all its epochs."""
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
        assert all(type(value) in (int, float, str) for value in report.values()), "Ray cannot send it"
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
        watching.on_epoch_end(epoch, {"loss": 0.5, **log})
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

    assert last["ending"] == f"diverged: {next(iter(bad))} is {next(iter(bad.values()))} in epoch 2"
    assert (last["objective"], last["best_epoch"], last["val_loss"]) == (0.5, 1, 0.75)


# how it ends


def test_a_trial_that_gets_no_better_converges(whole: Ran) -> None:
    """Early stopping would come at the wrong epoch, or pass for ASHA's."""
    patience = PARAMETERS["stop_patience"]

    assert [report["ending"] for report in whole.reports] == [""] * (len(whole.reports) - 1) + ["converged"]
    assert whole.reports[-1]["epoch"] == whole.reports[-1]["best_epoch"] + patience < whole.configuration.epochs


def test_a_trial_ends_after_all_its_epochs(head: Ran) -> None:
    """A whole trial would pass for one that was cut off."""
    assert [report["ending"] for report in head.reports] == ["", "all epochs"]


def test_a_rate_far_too_high_diverges(trials: Trials) -> None:
    """One bad configuration would train on with not-a-number, or end the search."""
    far_too_high = {"unfreeze_depth": 3, "optimizer": "sgd", "momentum": 0.9, "learning_rate": 100.0}
    (report,) = trials.run("diverged", backbone=trials.small, epochs=3, **far_too_high).reports

    assert report["ending"] == "diverged: loss is nan in epoch 1"
    assert math.isnan(report["objective"])
    assert report["best_epoch"] == 0


def test_a_stopped_trial_ends_after_its_epoch_with_its_files_closed(stopped: Ran) -> None:
    """A trial that ASHA stops would train on, or leave files that a reused worker holds open for ever."""
    folder = stopped.configuration.folder

    assert [(report["epoch"], report["ending"]) for report in stopped.reports] == [(1, "")]
    assert stopped.curve("validation", "epoch_accuracy") == {1: stopped.reports[0]["last_val_accuracy"]}
    assert (folder / "last.npz").is_file()
    assert (folder / "best.weights.h5").is_file()
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
    trained = {variable.path for variable in whole.network.whole.trainable_variables}
    assert {path.split("/")[0].split("_")[0] for path in trained} == {"block5", "block6", "probabilities"}
    assert trained <= whole.changed, "some of the unfrozen part is not trained"


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


def test_decay_spares_biases_and_norms(trials: Trials) -> None:
    """Decay would pull batch normalisation towards an output of zero."""
    network = trial._network(trials.configuration("decay", optimizer="sgd", momentum=0.0, weight_decay=0.5))
    network.whole.optimizer.learning_rate = 0.1
    before = variables(network)
    weights = network.whole.trainable_variables
    network.whole.optimizer.apply([weight * 0 for weight in weights], weights)
    shrunk = {path for (path, old), (_, new) in zip(before, variables(network), strict=True) if not (old == new).all()}

    assert shrunk == {weight.path for weight in weights if weight.path.endswith("kernel")}
    for (path, old), (_, new) in zip(before, variables(network), strict=True):
        np.testing.assert_allclose(new, old * (0.95 if path in shrunk else 1), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_parameters_reach_the_optimizer(head: Ran, optimizer: str) -> None:
    """Optuna would search for the best of a parameter that does nothing."""
    parameters = {"optimizer": optimizer, "learning_rate": 0.25, "weight_decay": 0.0}
    model.compile_for_training(head.network, parameters | ({"momentum": 0.5} if optimizer == "sgd" else {}))
    weights = head.network.whole.trainable_variables
    before = [np.asarray(weight).copy() for weight in weights]
    for _ in range(2):
        head.network.whole.optimizer.apply([weight * 0 + 1 for weight in weights], weights)
    momentum = 0.5 * 0.25 if optimizer == "sgd" else 0.0

    for weight, old in zip(weights, before, strict=True):
        np.testing.assert_allclose(np.asarray(weight) - old, -(2 * 0.25 + momentum), rtol=1e-3)


# seeds, and what is read


def test_the_same_seed_gives_the_same_numbers_without_the_test_images(
    head: Ran, trials: Trials, toy: Toy, tmp_path: Path
) -> None:
    """A search could not be repeated; or a trial would read the images that only the winner may see."""
    cache = tmp_path / "cache"
    shutil.copytree(toy.cache, cache)
    (held_out,) = cache.glob("images/*/test.npy")
    held_out.write_bytes(b"garbage")
    again = trials.run("again", backbone=trials.small, objective=Objective("val_loss"), cache=cache, **HEAD)

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
def resumed(whole: Ran, trials: Trials) -> Ran:
    """The first trial again, from its state one epoch after its best: plateau and early stopping have begun to wait."""
    state = whole.configuration.folder / "states" / f"{whole.reports[-1]['best_epoch'] + 1}.npz"
    return trials.run("resumed", resume=state, epochs=whole.configuration.epochs)


def test_a_resumed_trial_goes_on_as_if_nothing_had_happened(whole: Ran, resumed: Ran) -> None:
    """Weights, optimizer, dropout, order of images or the callbacks' patience would begin anew."""
    rest = whole.reports[whole.reports[-1]["best_epoch"] :]  # the state's own epoch is reported again

    assert len({report["last_val_loss"] for report in rest}) > 1, "the curve is flat and shows nothing"
    assert len(resumed.reports) == len(rest)
    for report, expected in zip(resumed.reports, rest, strict=True):
        assert report == pytest.approx({**expected, "seconds": report["seconds"]}, abs=TOLERANCE)


def test_a_resumed_trial_remembers_its_rate_its_best_and_its_time(whole: Ran, resumed: Ran) -> None:
    """The rate would jump back, a worse epoch overwrite the best weights, or the time before be forgotten."""
    rates = whole.curve("train", "epoch_learning_rate")
    first = resumed.reports[1]["epoch"]

    assert resumed.curve("train", "epoch_learning_rate") == {e: rate for e, rate in rates.items() if e >= first}
    assert not (resumed.configuration.folder / "best.weights.h5").exists(), "no epoch was better"
    assert resumed.reports[1]["seconds"] > whole.reports[first - 2]["seconds"]


def test_a_trial_that_was_over_reports_its_end_again(head: Ran) -> None:
    """A trial that was killed between its last state and its last report would run on, or never be seen to end."""
    reports: list[dict[str, Any]] = []
    trial.train(head.configuration, reports.append, head.configuration.folder / "last.npz")

    assert reports == head.reports[-1:]


def test_a_state_holds_only_what_is_trained(whole: Ran) -> None:
    """Every trial would write the whole backbone after every few epochs."""
    with np.load(whole.configuration.folder / "last.npz") as file:
        shapes = [file[str(index)].shape for index in range(len(file.files) - 1)]
    optimizer = whole.network.whole.optimizer.variables

    assert len(shapes) == len(whole.network.suffix.variables) + len(optimizer) < len(whole.before) + len(optimizer)


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
    state = tmp_path / "last.npz"
    if damage:
        state.write_bytes(damage((whole.configuration.folder / "last.npz").read_bytes()))
    before = variables(whole.network)

    with pytest.raises(CheckpointError, match=r"last\.npz"):
        checkpoint.restore(state, whole.network)
    for (_, old), (_, new) in zip(before, variables(whole.network), strict=True):
        np.testing.assert_array_equal(old, new)


def test_damage_anywhere_is_refused_or_does_no_harm(head: Ran, tmp_path: Path) -> None:
    """Some damaged state would raise an error that is taken for a bug of ours, or be read as other numbers."""
    good = (head.configuration.folder / "last.npz").read_bytes()
    state = tmp_path / "last.npz"
    restored = checkpoint.restore(head.configuration.folder / "last.npz", head.network)
    expected = variables(head.network)
    positions = range(0, len(good), 11)
    refused = 0
    for position in positions:
        state.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            assert checkpoint.restore(state, head.network) == restored, f"byte {position}"
        except CheckpointError:
            refused += 1
    for (_, old), (_, new) in zip(expected, variables(head.network), strict=True):
        np.testing.assert_array_equal(old, new)

    assert refused > len(positions) / 2


def test_a_trial_never_starts_afresh_in_place_of_its_state(whole: Ran, head: Ran, trials: Trials) -> None:
    """A resumed trial would silently be another one, under the same number."""
    foreign = whole.configuration.folder / "last.npz"
    configuration = replace(head.configuration, folder=trials.configuration("foreign").folder)
    reports: list[dict[str, Any]] = []

    with pytest.raises(CheckpointError, match=r"last\.npz belongs to another network"):
        trial.train(configuration, reports.append, foreign)
    assert reports == []
    assert not configuration.folder.exists()


def test_a_state_that_cannot_be_written_leaves_the_old_one(head: Ran, tmp_path: Path) -> None:
    """A full disk would cost a trial all that it had learned."""
    state = tmp_path / "last.npz"
    checkpoint.save(state, head.network, checkpoint.State(1, {}))
    old = state.read_bytes()
    state.with_name("last.npz.tmp").mkdir()

    with pytest.raises(OSError, match="last"):
        checkpoint.save(state, head.network, checkpoint.State(2, {}))
    assert state.read_bytes() == old


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
class Exported:
    """What the export says of the winner, and what plain Keras makes of its file and the raw images elsewhere."""

    figures: dict[str, Any]
    probabilities: dict[str, NDArray[np.float64]]
    input_shape: list[int | None]


@pytest.fixture(scope="module")
def exported(whole: Ran, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The export of the first trial."""
    folder = tmp_path_factory.mktemp("best")
    figures = trial.export(whole.configuration, folder)
    files = {split: [str(toy.folder / item) for item in toy.dataset.items[split]] for split in ("val", "test")}
    (folder / "asked.json").write_text(json.dumps({"model": str(folder / "model.keras"), "files": files}))
    command = [sys.executable, "-I", "-c", ELSEWHERE, "asked.json", "answer.json"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    answer = json.loads((folder / "answer.json").read_text())
    return Exported(figures, {split: np.array(answer[split]) for split in files}, answer["input_shape"])


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


def test_the_exported_model_gives_probabilities_of_raw_images(exported: Exported, toy: Toy) -> None:
    """The output would be logits, or the input other than the contract says."""
    assert exported.input_shape == [None, toy.image_size, toy.image_size, 3]
    for probabilities in exported.probabilities.values():
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
