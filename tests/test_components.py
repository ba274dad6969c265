"""The tables of components: every row of each of them, and the rows that the docs write from nothing."""

import dataclasses
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Toy
from numpy.typing import NDArray
from pool import POOL
from ray import cloudpickle
from searches import run

from search import features
from search.backbone import backbones
from search.backbone.backbones import Source
from search.component import Component
from search.components import schedules
from search.components.losses import LOSSES, Loss, class_weights
from search.components.scheduled import scheduled
from search.components.schedules import SCHEDULES, Schedule
from search.components.stopping.rule import Curve
from search.components.tables import OWN, TABLES, Parts
from search.data.store import silent
from search.driver import worker
from search.features import Place
from search.record.record import read_search
from search.setting import Setting, Values
from search.space import Budget, Float, Head, Int, Optimizer, Space
from search.space.settings import NAMING, SETTINGS
from search.space.spacefile import faults, load
from search.task.classification import METRICS
from search.task.metric import Metric
from search.task.objective import Objective
from search.task.tasks import TASKS
from search.trial import batches, model, training

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.DOTALL)
IN_A_SPACE, *ROWS = BLOCKS
CLASSES = 3


def documented() -> Iterator[Any]:
    """The rows that the docs write."""
    for block in ROWS:
        names: dict[str, Any] = {}
        exec(block, names)  # noqa: S102 our own docs
        yield names["row"]


WRITTEN = list(documented())
KINDS = {kind: type(next(iter(table.values()))) for kind, table in TABLES.items()}
EVERY = [
    pytest.param(kind, name, component, id=f"{kind}-{name}")
    for kind, table in TABLES.items()
    for name, component in [*table.items(), *(("documented", row) for row in WRITTEN if type(row) is KINDS[kind])]
]


def rows(kind: str) -> list[Any]:
    """The rows of one table, with those of the docs."""
    return [pytest.param(*each.values[1:], id=str(each.id)) for each in EVERY if each.values[0] == kind]


def defaults(component: Component, **changes: Any) -> Values:
    """The values of a trial that has a component."""
    own = {name: setting.default for name, setting in component.parameters.items()}
    searchable = {name: setting.default for name, setting in SETTINGS.items() if setting.searchable}
    return Values({**searchable, **own, **changes})


# every row


def test_the_docs_write_a_row_for_every_table() -> None:
    """Who wants to add a part would have to guess how."""
    assert {type(row) for row in WRITTEN} == {*KINDS.values(), Metric}


@pytest.mark.parametrize(("kind", "name", "component"), EVERY)
def test_a_row_says_what_it_means_and_takes(kind: str, name: str, component: Component) -> None:
    """The user could not choose it, or its own default would be refused."""
    assert component.meaning
    assert callable(getattr(component, "build", None) or getattr(component, "factor", None))
    for parameter, setting in component.parameters.items():
        assert setting.meaning
        assert setting.searchable == (kind in OWN)
        assert setting.fault(parameter, setting.default) is None
        if name != "documented":
            assert SETTINGS[parameter] == setting, "two components would mean different things by one name"


@pytest.mark.parametrize("kind", TABLES)
def test_the_setting_that_names_a_component_offers_all_of_them(kind: str) -> None:
    """A row would be there and could not be chosen."""
    assert SETTINGS[kind].choices == tuple(TABLES[kind])
    assert SETTINGS[kind].default in TABLES[kind]
    assert SETTINGS[kind].searchable == (kind in OWN)


def test_every_part_of_a_trial_has_a_table() -> None:
    """A part would have no setting, or a table no effect."""
    assert {field.name for field in dataclasses.fields(Parts)} == set(OWN)
    assert set(NAMING) == set(TABLES)


# schedules


@pytest.mark.parametrize(("name", "schedule"), rows("schedule"))
def test_a_schedule_gives_a_sound_factor_for_every_step(name: str, schedule: Schedule) -> None:  # noqa: ARG001
    """A trial would stand still, climb, or diverge by a rate that nobody asked for."""
    found = schedules.factors(schedule, defaults(schedule, warmup_epochs=2.0), steps=10, epochs=8)

    assert found.shape == (80, 2)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert found.max() == pytest.approx(1, abs=0.05)
    assert (found[:, 0] <= found[:, 1]).all(), "the warm-up raises the rate"
    np.testing.assert_array_equal(found[20:, 0], found[20:, 1])


def test_the_schedules_are_what_they_are_called() -> None:
    """Cosine would be another curve than everywhere else."""
    plain = defaults(SCHEDULES["cosine"])
    found = {name: schedules.factors(SCHEDULES[name], plain, 10, 10)[:, 0] for name in SCHEDULES}
    steps = np.arange(100)

    np.testing.assert_allclose(found["cosine"], keras.optimizers.schedules.CosineDecay(1.0, 100)(steps), atol=1e-6)
    np.testing.assert_allclose(found["linear"], 1 - steps / 100, atol=1e-6)
    np.testing.assert_array_equal(found["plateau"], np.ones(100))
    assert found["one_cycle"].argmax() == 30
    assert found["one_cycle"][0] == pytest.approx(1 / 25)
    assert found["one_cycle"][-1] < 0.01
    assert [name for name in SCHEDULES if SCHEDULES[name].plateau] == ["plateau"]


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.0), (1, 5.0), (3, 3.0)])
def test_a_warm_up_may_take_the_whole_trial(epochs: int, warmup: float) -> None:
    """A short trial would end in a division by zero, and with it the search."""
    for schedule in SCHEDULES.values():
        assert np.isfinite(schedules.factors(schedule, defaults(schedule, warmup_epochs=warmup), 4, epochs)).all()


# losses


def answers(task: str = "classification") -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels, and outputs for them."""
    numbers = np.random.default_rng(0)
    raw = numbers.normal(size=(20, CLASSES)).astype("float32")
    outputs = np.asarray(keras.activations.get(TASKS[task].activation)(keras.ops.convert_to_tensor(raw)))
    if not TASKS[task].vector:
        return numbers.integers(0, CLASSES, 20), outputs
    return np.asarray(numbers.integers(0, 2, (20, CLASSES)), "float32"), outputs


def computed(loss: Loss, **values: float) -> NDArray[Any]:
    """What a loss gives, with these values of its parameters."""
    variables = {name: keras.Variable(float(str(setting.default))) for name, setting in loss.parameters.items()}
    for name, value in values.items():
        variables[name].assign(value)
    labels, outputs = answers(loss.tasks[0])
    return np.asarray(loss.build(variables)(keras.ops.convert_to_tensor(labels), outputs))


TRAINED = [
    pytest.param(*each.values, task, id=f"{each.id}-{task}") for each in rows("loss") for task in each.values[1].tasks
]


@pytest.mark.parametrize(("name", "loss", "task"), TRAINED)
def test_a_loss_is_one_number_for_each_image_and_less_where_it_is_right(name: str, loss: Loss, task: str) -> None:  # noqa: ARG001
    """Training would go the wrong way, or weigh images by nothing."""
    variables = {name: keras.Variable(float(str(setting.default))) for name, setting in loss.parameters.items()}
    labels, outputs = answers(task)
    found = np.asarray(loss.build(variables)(keras.ops.convert_to_tensor(labels), outputs))
    own = np.asarray(keras.losses.get(TASKS[task].loss)(labels, outputs))

    assert found.shape == (20,)
    assert np.isfinite(found).all()
    assert found[own.argmin()] < found[own.argmax()]


@pytest.mark.parametrize(("name", "loss", "task"), TRAINED)
def test_a_loss_has_a_slope_where_an_answer_is_sure(name: str, loss: Loss, task: str) -> None:  # noqa: ARG001
    """The first image that is wholly right, or wholly wrong, would turn all weights into not-a-number."""
    variables = {name: keras.Variable(float(str(setting.default))) for name, setting in loss.parameters.items()}
    computes, logits = loss.build(variables), tf.constant([[200.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    known = TASKS[task]
    labels = tf.constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] if known.vector else [0, 1], known.label_dtype)

    @tf.function
    def slope() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = tf.reduce_sum(computes(labels, keras.activations.get(known.activation)(logits)))
        return value, tape.gradient(value, logits)

    value, gradient = slope()

    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_the_losses_of_labels_and_numbers_are_kerass_own() -> None:
    """Label smoothing, focal and Huber's loss would be others than those that people know."""
    several, said = answers("multilabel")
    labels, outputs = map(keras.ops.convert_to_tensor, answers("regression"))
    values = {"label_smoothing": 0.2, "focal_gamma": 2.0, "huber_delta": 0.5}
    built = {name: loss.build(values) for name, loss in LOSSES.items()}
    smoothed = keras.losses.BinaryCrossentropy(label_smoothing=0.2, reduction=None)(several, said)
    focal = keras.losses.BinaryFocalCrossentropy(gamma=2.0, reduction=None)(several, said)

    np.testing.assert_allclose(built["cross_entropy"](several, said), smoothed, rtol=1e-5)
    np.testing.assert_allclose(built["focal"](several, said), focal, rtol=1e-4)
    for name, keras_own in {
        "squared_error": keras.losses.MeanSquaredError(reduction=None),
        "absolute_error": keras.losses.MeanAbsoluteError(reduction=None),
        "huber": keras.losses.Huber(0.5, reduction=None),
    }.items():
        np.testing.assert_allclose(built[name](labels, outputs), keras_own(labels, outputs), rtol=1e-5)


def test_the_losses_are_kerass_own() -> None:
    """Label smoothing and focal loss would be others than those that people know."""
    labels, probabilities = answers()
    once = np.eye(CLASSES)[labels]
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.2, reduction=None)(once, probabilities)
    focal = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, reduction=None)(once, probabilities)
    plain = keras.losses.SparseCategoricalCrossentropy(reduction=None)(labels, probabilities)

    np.testing.assert_allclose(computed(LOSSES["cross_entropy"], label_smoothing=0.2), smoothed, rtol=1e-5)
    np.testing.assert_array_equal(computed(LOSSES["cross_entropy"]), plain)
    np.testing.assert_allclose(computed(LOSSES["focal"]), focal, rtol=1e-4)
    np.testing.assert_allclose(computed(LOSSES["focal"], focal_gamma=0), plain, rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_weights_of_classes(exponent: float) -> None:
    """The loss as a whole would shrink or grow with the exponent, and with it the rate that is right."""
    counts = np.array([90, 9, 1, 0])
    weights = class_weights(counts, exponent)

    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(10**exponent)
    assert np.isfinite(weights).all()
    if not exponent:
        np.testing.assert_array_equal(weights, np.ones(4))


# optimizers


@pytest.mark.parametrize(("name", "optimizer"), rows("optimizer"))
def test_an_optimizer_follows_the_schedule(name: str, optimizer: Optimizer) -> None:  # noqa: ARG001
    """Its rate would be its own whatever is asked, or it would not move at all."""

    def places(decay: float) -> tuple[list[float], float]:
        """Where a weight is after each step, and the rate of the third."""
        values = {name: keras.Variable(float(str(setting.default))) for name, setting in optimizer.parameters.items()}
        made, moved = scheduled(optimizer.build(values)), keras.Variable(np.ones((2, 2), "float32"), name="kernel")
        made.build([moved])
        made.learning_rate = 0.01
        made.follow(np.array([[0, 0], [1, 0], [0.5, 0], [0, 1]], "float32"))
        made.decay.assign(decay)

        @tf.function
        def step() -> None:
            made.apply([tf.ones((2, 2))], [moved])

        found = []
        for _ in range(3):
            step()
            found.append(float(np.asarray(moved)[0, 0]))
        rate = made.rate
        step()
        return [*found, float(np.asarray(moved)[0, 0])], rate

    (free, rate), (decayed, _) = places(0.0), places(0.5)

    assert free[0] == 1
    assert free[2] < free[1] < 1
    assert rate == pytest.approx(0.005)
    assert decayed[:3] == free[:3]
    assert free[3] - decayed[3] == pytest.approx(free[2] * 0.5 * 0.01, rel=1e-3), "decay follows the schedule"


# metrics


@pytest.mark.parametrize("metric", [*METRICS.values(), *(row for row in WRITTEN if isinstance(row, Metric))])
def test_a_metric_is_best_where_everything_is_right(metric: Metric) -> None:
    """The objective would reward the wrong trials."""
    labels = np.repeat(np.arange(CLASSES), 5)
    right = np.full((15, CLASSES), 0.01)
    right[np.arange(15), labels] = 0.98
    if metric.of:
        assert metric.better(metric.of(labels, right), metric.of(labels, right[::-1])) or metric.of(labels, right) == 1


# stopping rules; those of the project have more tests of their own


@pytest.mark.parametrize(("name", "rule"), rows("stopping"))
def test_a_rule_decides_within_the_budget(name: str, rule: Any) -> None:  # noqa: ARG001
    """It would never decide, or end trials that are alone."""
    made = rule.build(Budget(8, 16, first_rung=2), Objective())

    assert made.name
    assert all(1 <= rung < 16 for rung in made.rungs)
    assert not any(made.stops(Curve({}), []) for _ in made.rungs[:0])


# samplers


@pytest.mark.parametrize(("name", "sampler"), rows("sampler"))
def test_a_sampler_proposes_by_its_seed(name: str, sampler: Any) -> None:  # noqa: ARG001
    """A search could not be repeated."""
    import optuna

    if sampler.missing():
        pytest.skip("; ".join(sampler.missing()))

    def proposed(seed: int) -> list[float]:
        study = optuna.create_study(sampler=sampler.build(seed))
        return [study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}).params["x"] for _ in range(3)]

    assert proposed(1) == proposed(1) != proposed(2)


# whole trials


@pytest.fixture(scope="module")
def small(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Place]:
    """A small network with three blocks, and where its features lie."""
    path = tmp_path_factory.mktemp("small") / "small.keras"
    keras.utils.set_random_seed(0)
    x = images = keras.Input((toy.image_size, toy.image_size, 3))
    for _ in range(2):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    keras.Model(images, x).save(path)
    source = Source(str(path), "own", toy.image_size)
    described = backbones.describe(POOL.backbone(source))
    shapes = tuple(map(tuple, described["shapes"]))
    place = Place(toy.cache, toy.dataset, toy.image_size, described["identity"], shapes)
    features.fill(place, [len(shapes)], POOL.backbone(source), 1 << 30, silent)
    return source, place


def configured(small: tuple[Source, Place], folder: Path, space: Space, **chosen: Any) -> training.Configuration:
    """A trial of a space, of few epochs."""
    source, place = small
    parameters = space.parameters(chosen)
    (folder / "trials").mkdir(exist_ok=True)
    return training.Configuration(
        trial="0000",
        parameters=parameters,
        parts=space.parts(parameters),
        epochs=3,
        seed=0,
        objective=space.objective,
        backbone=source.name,
        weights=source.weights,
        place=place,
        head_start=True,
        folder=folder / "trials" / "0000",
        tensorboard=folder / "tensorboard",
        rungs=(1, 2, 3),
    )


def of_task(place: Place, task: str) -> Place:
    """The same images, with numbers as labels if the task wants these."""
    numbers = {split: tuple((float(label),) for label in labels) for split, labels in place.dataset.labels.items()}
    if not TASKS[task].scaled:
        return place
    changes: dict[str, Any] = {"labels": numbers, "classes": ("light",), "fingerprint": task}
    return replace(place, dataset=replace(place.dataset, kind=task, **changes))


def trained(configuration: training.Configuration) -> list[dict[str, Any]]:
    """What a trial reports."""
    reports: list[dict[str, Any]] = []
    training.train(POOL, configuration, reports.append)
    return reports


@pytest.mark.parametrize(("kind", "name", "component"), [each for each in EVERY if each.values[0] in OWN])
def test_a_trial_is_trained_by_it_and_its_model_stands_alone(
    small: tuple[Source, Place], tmp_path: Path, kind: str, name: str, component: Any
) -> None:
    """It would fail in the first search that uses it, at the first epoch, the export or a restart."""
    own = {kind: {name: component}} if name == "documented" else {}
    task = component.tasks[0] if kind == "loss" else "classification"
    space = Space({}, Budget(1, 3), {"task": task}, own=own)
    small = small[0], of_task(small[1], task)
    depth = int(kind == "head")
    configuration = configured(small, tmp_path, space, **{kind: name}, unfreeze_depth=depth, learning_rate=1e-3)
    reports = trained(configuration)

    assert [report["epoch"] for report in reports] == [1, 2, 3]
    assert all(math.isfinite(report["last_val_loss"]) for report in reports)
    if kind != "head":  # the others leave nothing in the model
        return
    exported = training.export(POOL, configuration, tmp_path, reports[-1]["best_epoch"])
    training.show_tested(configuration, exported, tmp_path)
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert "custom_objects" not in exported.figures
    assert loaded.output_shape == (None, len(small[1].dataset.classes))
    assert json.loads((tmp_path / "mistakes.json").read_text("utf-8")) is not None


def test_the_validation_loss_is_the_cross_entropy_whatever_the_loss_is(
    small: tuple[Source, Place], tmp_path: Path
) -> None:
    """Trials of different losses would be ranked, and stopped, by numbers that mean different things."""
    for number, chosen in enumerate(
        [{"label_smoothing": 0.5}, {"loss": "focal"}, {"class_weight_exponent": 1.0}, {"schedule": "cosine"}]
    ):
        (folder := tmp_path / str(number)).mkdir()
        configuration = configured(small, folder, Space({}, Budget(1, 3)), unfreeze_depth=0, **chosen)
        for report in trained(configuration):
            assert report["last_val_loss"] == pytest.approx(report["last_val_loss"])
        last = report
        assert last["val_loss"] == pytest.approx(last["val_log_loss"], rel=1e-4)


def test_values_of_a_loss_and_a_schedule_count_and_need_no_new_trace(
    small: tuple[Source, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search would trace a network for every trial; or all trials would be one and the same."""
    built = []
    make = model.build
    monkeypatch.setattr(model, "build", lambda *given, **more: built.append(given) or make(*given, **more))
    curves = []
    changes: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.3},
        {"schedule": "cosine"},
        {"warmup_epochs": 2.0},
        {"weight_decay": 0.9, "learning_rate": 0.1},
    ]
    for number, chosen in enumerate(changes):
        (folder := tmp_path / str(number)).mkdir()
        configured_ = configured(
            small, folder, Space({}, Budget(1, 3)), unfreeze_depth=1, **{"learning_rate": 0.01, **chosen}
        )
        curves.append(tuple(report["last_val_loss"] for report in trained(configured_)))

    assert len(built) <= 2, "one for the probe, one for all trials"
    assert len(set(curves)) == len(curves)


def test_the_weights_of_classes_reach_the_loss(
    small: tuple[Source, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every exponent would give the same trial."""
    curves = []
    for number, weights in enumerate(([1.0, 1.0], [2.0, 0.0])):
        monkeypatch.setattr(model, "class_weights", lambda *_, weights=weights: np.array(weights, "float32"))
        (folder := tmp_path / str(number)).mkdir()
        configuration = configured(small, folder, Space({}, Budget(1, 3)), unfreeze_depth=1, learning_rate=0.01)
        curves.append([report["last_val_loss"] for report in trained(replace(configuration, head_start=False))])

    assert curves[0][-1] < curves[1][-1], "one class alone was learned"


def test_blocks_further_down_move_less(small: tuple[Source, Place], tmp_path: Path) -> None:
    """Layer-wise decay would be a word, or turn the network upside down."""
    space, moved = Space({}, Budget(1, 3)), {}
    for decay in (1.0, 0.1):
        configuration = configured(small, tmp_path, space, unfreeze_depth=2, layer_decay=decay, optimizer="sgd")
        network, start = training._network(POOL, configuration, None)
        before = [np.array(variable) for variable in network.fitted.trainable_variables]
        labels = configuration.place.labels
        batches.fit(network.fitted, batches.Feeder(start, labels, len(labels["train"]), 0, METRICS), 0, 1, [])
        after = network.fitted.trainable_variables
        moved[decay] = {one.path: np.abs(np.array(one) - was).max() for one, was in zip(after, before, strict=True)}
    shares = {path: moved[0.1][path] / moved[1.0][path] for path in moved[1.0]}

    assert shares["probabilities/kernel"] == pytest.approx(1, rel=1e-3)
    kernels = [share for path, share in shares.items() if path.endswith("kernel") and "probabilities" not in path]
    assert len(kernels) == 2
    assert kernels[0] < kernels[1] < 1
    for share in kernels:
        assert math.log10(share) == pytest.approx(round(math.log10(share)), abs=0.01)


def test_features_of_two_images_are_mixed_and_so_are_their_losses(small: tuple[Source, Place], tmp_path: Path) -> None:
    """Images would be mixed and answer for one class; or validation images be mixed as well."""
    configuration = configured(small, tmp_path, Space({}, Budget(1, 3)), mixup=0.4)
    network, _ = training._network(POOL, configuration, None)
    mixup: Any = network.mixup
    x = np.arange(6.0, dtype="float32").reshape(3, 2)
    mixed = np.asarray(mixup(x, training=True))
    share = float(mixup.share)
    labels, answers_ = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], "float32")
    tensors = [keras.ops.convert_to_tensor(one) for one in (labels, answers_, np.ones(3, "float32"))]
    loss = float(network.fitted.compute_loss(None, *tensors, training=True))
    own = -np.log(answers_[np.arange(3), labels])
    other = -np.log(answers_[np.arange(3), labels[::-1]])

    np.testing.assert_allclose(mixed, share * x + (1 - share) * x[::-1], rtol=1e-6)
    np.testing.assert_array_equal(mixup(x, training=False), x)
    assert loss == pytest.approx((share * own + (1 - share) * other).mean(), rel=1e-5)
    assert any(one is mixup.numbers.state for one in network.state), "a trial that goes on would mix otherwise"


def test_a_mixed_trial_is_another_one(small: tuple[Source, Place], tmp_path: Path) -> None:
    """The setting would change nothing; or with 0 everything."""
    curves = []
    for number, share in enumerate((0.0, 1.0, 1.0)):
        (folder := tmp_path / str(number)).mkdir()
        configuration = configured(small, folder, Space({}, Budget(1, 3)), unfreeze_depth=1, mixup=share)
        curves.append([report["last_val_loss"] for report in trained(configuration)])

    assert curves[1] == pytest.approx(curves[2], rel=1e-6)
    assert curves[0] != pytest.approx(curves[1], rel=1e-3)


def test_tensorboard_shows_the_rate_that_was_taken(small: tuple[Source, Place], tmp_path: Path) -> None:
    """The curve of a cosine would be a flat line."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    configuration = configured(small, tmp_path, Space({}, Budget(1, 3)), schedule="linear", learning_rate=0.01)
    trained(configuration)
    events = EventAccumulator(str(configuration.tensorboard / "train")).Reload()
    shown = [float(tensor_util.make_ndarray(each.tensor_proto)) for each in events.Tensors("epoch_learning_rate")]

    assert len(shown) == 3
    assert shown[0] > shown[1] > shown[2]
    assert shown[2] < 0.01 / 3


# a space's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The space file of the docs."""
    path = tmp_path / "own.py"
    path.write_text(IN_A_SPACE)
    return path


def test_a_space_has_components_of_its_own(own: Path) -> None:
    """They could not be chosen, or would be searched by ranges that nobody checks."""
    space = load(str(own))

    assert space.known["head"].choices == ("linear", "hidden", "bottleneck")
    assert space.known["bottleneck_width"].default == 32
    assert space.declaration()["own"] == IN_A_SPACE
    assert space.parts(space.parameters({"head": "bottleneck"})).head.file == str(own)
    assert "bottleneck" not in SETTINGS["head"].choices
    assert space.objective.metrics["val_least_recall"].file == str(own)
    assert space.declaration()["metrics"] == {
        "val_least_recall": {"words": "least validation recall of a class", "mode": "max"}
    }


def test_a_metric_of_a_space_is_told_and_decides(own: Path, small: tuple[Source, Place], tmp_path: Path) -> None:
    """The best epoch would be that of another metric, or the model have no such figure."""
    space = load(str(own))
    configuration = configured(small, tmp_path, space, learning_rate=0.003)
    reports = trained(configuration)
    exported = training.export(POOL, configuration, tmp_path, reports[-1]["best_epoch"])
    now = [report["last_val_least_recall"] for report in reports]

    assert reports[-1]["objective"] == reports[-1]["val_least_recall"] == max(now)
    assert reports[-1]["best_epoch"] == now.index(max(now)) + 1
    assert 0 <= exported.figures["test_least_recall"] <= 1
    assert pickle.dumps(space.objective.of_the_project), "it is sent to a process that has not loaded the space"


def test_an_error_in_a_metric_names_the_file_and_the_line(
    own: Path, small: tuple[Source, Place], tmp_path: Path
) -> None:
    """The user would look for the fault in the project."""
    broken = IN_A_SPACE.replace("    right = ", "    right = no_such = None\n    right['x'] = ")
    own.write_text(broken)
    space = load(str(own))
    with pytest.raises(TypeError) as raised:
        trained(configured(small, tmp_path, space))
    asked: Any = SimpleNamespace(space=space)
    line = broken[: broken.index("    right['x']")].count("\n") + 1

    assert worker._where(raised.value, asked) == f"{own}, line {line}: "


@pytest.mark.parametrize(
    ("metrics", "fault"),
    [
        ({"val_auc": Metric("x", "max", of=lambda *_: 0.0)}, "own['metric']: 'val_auc' is one of the project's"),
        ({"cost": Metric("x", "min", of=lambda *_: 0.0)}, "own['metric']: 'cost' must begin with val_"),
        ({"val_cost": Metric("x", "min")}, "own['metric']['val_cost'] must be a Metric with a function"),
        (
            {"val_cost": Metric("x", "less", of=lambda *_: 0.0)},
            "own['metric']['val_cost']: mode must be 'max' or 'min'",
        ),
    ],
)
def test_a_faulty_metric_of_a_space_is_told(metrics: Any, fault: str) -> None:
    """It would be another one than the user thinks, or end in a traceback after the first epoch."""
    (found,) = faults(Space({"dropout": Float(0, 0.5)}, Budget(1, 1), own={"metric": metrics}))

    assert found.startswith(fault)


@pytest.mark.slow
def test_a_component_of_a_space_travels_to_a_process_that_has_no_such_file(own: Path) -> None:
    """No node of a cluster but the first could run a trial."""
    space = load(str(own))
    pickled = cloudpickle.dumps(space)
    own.unlink()
    code = (
        "import sys; from ray import cloudpickle; space = cloudpickle.loads(sys.stdin.buffer.read());"
        "values = space.parameters({'head': 'bottleneck', 'bottleneck_width': 8});"
        "print([type(one).__name__ for one in space.parts(values).head.build(values)])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True, cwd=ROOT)

    assert done.stdout.decode().strip().splitlines()[-1] == "['Dense', 'LayerNormalization']"


@pytest.mark.parametrize(
    ("own", "fault"),
    [
        ({"heads": {}}, "own: unknown kind of component 'heads'; did you mean 'head'?"),
        ({"stopping": {}}, "own: unknown kind of component 'stopping'"),
        ({"head": {"linear": Head("x", build=lambda values: [])}}, "own['head']: 'linear' is one of the project's"),  # noqa: ARG005
        ({"head": {"mine": LOSSES["focal"]}}, "own['head']['mine'] must be of type Head; got Loss("),
        (
            {"head": {"mine": Head("x", {"dropout": Setting("x", 1, searchable=True)}, build=lambda values: [])}},  # noqa: ARG005
            "own['head']['mine']: 'dropout' means something else already; take another name",
        ),
        ([], "own must be of type Mapping; got []"),
    ],
)
def test_a_faulty_component_of_a_space_is_told(own: Any, fault: str) -> None:
    """It would be another one than the user thinks, or end in a traceback."""
    (found,) = faults(Space({"dropout": Float(0, 0.5)}, Budget(1, 1), own=own))

    assert found.startswith(fault)


def test_a_parameter_of_a_component_that_never_comes_is_told() -> None:
    """Half of a search would be spent on a number that changes nothing."""
    (found,) = faults(Space({"head_width": Int(8, 64), "dropout": Float(0, 0.5)}, Budget(1, 1)))

    assert found == "search: 'head_width' has no effect; it is for head=hidden, which this space never has"
    assert faults(Space({"head_width": Int(8, 64)}, Budget(1, 1), fixed={"head": "hidden"})) == []


BROKEN = IN_A_SPACE.replace("    import keras\n", "    import keras\n\n    values['no such']\n")


def test_an_error_in_a_component_names_the_file_and_the_line(
    own: Path, small: tuple[Source, Place], tmp_path: Path
) -> None:
    """The user would look for the fault in the project."""
    own.write_text(BROKEN)
    space = load(str(own))

    with pytest.raises(KeyError) as raised:
        trained(configured(small, tmp_path, space, head="bottleneck"))
    line = BROKEN[: BROKEN.index("values['no such']")].count("\n") + 1

    asked: Any = SimpleNamespace(space=space)
    assert worker._where(raised.value, asked) == f"{own}, line {line}: "
    assert worker._where(ValueError("elsewhere"), asked) == ""


class Doubled(keras.layers.Layer):  # type: ignore[misc]
    """A layer that plain Keras does not know."""

    def call(self, x: Any) -> Any:
        """Twice as much."""
        return 2 * x


def test_a_model_with_a_layer_of_the_users_says_what_it_needs(small: tuple[Source, Place], tmp_path: Path) -> None:
    """The user would find out when the model is to be used, and the space file is gone."""
    head = Head("twice", build=lambda values: [Doubled()])  # noqa: ARG005
    space = Space({}, Budget(1, 3), own={"head": {"twice": head}})
    configuration = configured(small, tmp_path, space, head="twice")
    reports = trained(configuration)
    exported = training.export(POOL, configuration, tmp_path, reports[-1]["best_epoch"])

    assert exported.figures["custom_objects"] == ["Doubled"]
    with pytest.raises((TypeError, ValueError)):
        keras.models.load_model(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras", custom_objects={"Doubled": Doubled})


def test_trials_with_other_heads_are_shown_beside_the_winner_and_not_mixed_with_it(
    small: tuple[Source, Place], tmp_path: Path
) -> None:
    """Weights that do not fit would be averaged, or the second best trial have no pictures."""
    found = []
    for head in ("linear", "hidden"):
        (folder := tmp_path / head).mkdir()
        configuration = configured(small, folder, Space({}, Budget(1, 3)), head=head, head_width=4)
        found.append((configuration, trained(configuration)[-1]["best_epoch"]))
    (winner, epoch), (other, other_epoch) = found
    exported = training.export(POOL, winner, tmp_path, epoch, [(other, other_epoch)])
    training.show(POOL, winner, epoch, exported)
    training.show(POOL, other, other_epoch, exported)

    assert "soup" not in exported.figures
    assert winner.shape != other.shape
    pictured = [len((one.tensorboard / "best" / "features.tsv").read_text().split("\n")[0].split()) for one, _ in found]
    assert pictured == [8, 4], "what the output layer gets"


@pytest.mark.slow
def test_a_search_over_a_head_of_its_own(own: Path, toy: Toy, tmp_path: Path) -> None:
    """The docs would promise what no search does; or a search would go on with another head than it began with."""
    done = run(tmp_path, "--space", str(own), "--data", str(toy.folder), "--name", "own", "--set", "image_size=32")
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_search(tmp_path / "results" / "own")

    assert found["space"]["own"] == IN_A_SPACE
    trials = (tmp_path / "results" / "own" / "trials.csv").read_text("utf-8").splitlines()
    assert {"bottleneck_width", "val_least_recall"} <= {*trials[0].split(",")}
    assert "least test recall of a class" in done.stdout
    shown = (tmp_path / "results" / "own" / "report.html", ["--storage", str(tmp_path / "results")])
    subprocess.run([sys.executable, "-m", "search.report", "own", *shown[1]], check=True, capture_output=True)
    assert "least validation recall of a class" in shown[0].read_text("utf-8")
    keras.models.load_model(tmp_path / "results" / "own" / "best" / "model.keras")
