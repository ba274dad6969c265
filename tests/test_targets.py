"""A trial of every kind of target runs whole: it is trained, exported, tested and shown."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Toy
from pool import POOL
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from search import features
from search.backbone import backbones
from search.backbone.backbones import Source
from search.data.store import Dataset
from search.features import Place
from search.space import Budget, Space
from search.task.tasks import TASKS
from search.trial import training

pytestmark = pytest.mark.slow

NUMBERS = ("brightness", "year")
DEEP = {"unfreeze_depth": 1, "mixup": 0.2, "head": "hidden", "head_width": 4}


def with_labels(dataset: Dataset, kind: str) -> Dataset:
    """The dark and the light images, with labels of a kind that can be learned from them."""
    made = {
        "classification": lambda light, row: light,  # noqa: ARG005
        "multilabel": lambda light, row: tuple([light] + [2] * (row % 3 == 0)),
        "regression": lambda light, row: (1e6 * (1 + light) + row, 2000.0 + light),
    }
    names = {"classification": ("dark", "light"), "multilabel": ("dark", "light", "third"), "regression": NUMBERS}
    labels = {
        split: tuple(made[kind](label, row) for row, label in enumerate(known))
        for split, known in dataset.labels.items()
    }
    return replace(dataset, kind=kind, classes=names[kind], labels=labels, fingerprint=f"{dataset.fingerprint}{kind}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A small network of one's own."""
    path = tmp_path_factory.mktemp("small") / "small.keras"
    keras.utils.set_random_seed(0)
    given = keras.Input((16, 16, 3))
    values = keras.layers.Rescaling(1 / 255)(given)
    values = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="one")(values)
    keras.Model(given, keras.layers.Conv2D(8, 1, activation="relu", name="two")(values)).save(path)
    return Source(str(path), "own", 16, "float32")


def configured(toy: Toy, source: Source, kind: str, folder: Path, **chosen: Any) -> training.Configuration:
    """A trial."""
    space = Space({}, Budget(1, 4), {"task": kind, "learning_rate": 1e-2, "batch_size": 8, **chosen})
    parameters = space.parameters({})
    described = backbones.describe(POOL.backbone(source))
    shapes = tuple(map(tuple, described["shapes"]))
    place = Place(toy.cache, with_labels(toy.dataset, kind), toy.image_size, described["identity"], shapes)
    folder.mkdir()
    return training.Configuration(
        trial="0000",
        parameters=parameters,
        parts=space.parts(parameters),
        epochs=4,
        seed=0,
        objective=space.objective,
        backbone=source.name,
        weights=source.weights,
        place=place,
        head_start=True,
        folder=folder / "0000",
        tensorboard=folder / "tensorboard",
    )


@dataclass(frozen=True)
class Ran:
    """A trial that has run, and its model."""

    kind: str
    configuration: training.Configuration
    last: dict[str, Any]
    exported: training.Exported
    folder: Path


@pytest.fixture(
    scope="module",
    params=[(kind, chosen) for kind in TASKS for chosen in ({}, DEEP)],
    ids=lambda given: f"{given[0]}{'-deep' * bool(given[1])}",
)
def ran(request: pytest.FixtureRequest, toy: Toy, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A trial of every kind, of the head alone and of a block with a hidden layer and mixup."""
    kind, chosen = request.param
    folder, reports = tmp_path_factory.mktemp(kind), list[dict[str, Any]]()
    configuration = configured(toy, source, kind, folder / "trial", **chosen)
    training.train(POOL, configuration, reports.append)
    best = reports[-1]["best_epoch"]
    exported = training.export(POOL, configuration, folder, best, [(configuration, 1)], calibrated=bool(chosen))
    training.show_tested(configuration, exported, folder)
    training.show(POOL, configuration, best, exported)
    return Ran(kind, configuration, reports[-1], exported, folder)


def test_a_trial_of_every_task_runs_whole(ran: Ran) -> None:
    """A search of that kind would fail at its first epoch, or the model say something else than the trial did."""
    place, task, figures = ran.configuration.place, TASKS[ran.kind], ran.exported.figures
    images = features.images(place, "val", 0)(slice(None))
    said = keras.models.load_model(ran.folder / "model.keras").predict(images, verbose=0)
    found = place.dataset.target.metrics(place.labels["val"], said, task.metrics)
    told = {name: figures.get(name, ran.last[name]) for name in task.metrics}  # of the mean, where one was taken
    kept = [name for name in told if "loss" not in name] if "temperature" in figures else list(told)

    assert {name: told[name] for name in kept} == pytest.approx({n: found[n] for n in kept}, rel=1e-3, abs=1e-5)
    assert all(math.isfinite(ran.last[f"last_{name}"]) for name in ran.configuration.objective.leading)
    assert ran.last[task.objective] > 0.3, "the images can be told apart"
    assert {name.replace("val_", "test_") for name in task.metrics} <= set(figures)
    assert json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize("ran", [("regression", DEEP), ("classification", {})], indirect=True)
def test_nothing_else_is_calibrated(ran: Ran) -> None:
    """Numbers would be scaled as if they were probabilities, or a model that nobody wanted to be."""
    assert "temperature" not in ran.exported.figures


@pytest.mark.parametrize("ran", [("classification", DEEP), ("multilabel", DEEP)], indirect=True)
def test_probabilities_are_calibrated_where_that_is_asked_for(ran: Ran) -> None:
    """They would be told as they are, or the exported file not have the temperature that its figures have."""
    place, task = ran.configuration.place, TASKS[ran.kind]
    images = features.images(place, "val", 0)(slice(None))
    said = keras.models.load_model(ran.folder / "model.keras").predict(images, verbose=0)

    assert task.sharpness is not None
    if not task.wrong(place.labels["val"], said).any():
        assert ran.exported.figures["temperature"] == 1, "nothing says how sure it may be"
        return
    assert task.sharpness(place.labels["val"], said) == pytest.approx(1, rel=0.05), "no other temperature fits better"


def test_its_worst_mistakes_are_shown(ran: Ran) -> None:
    """Nobody would see where it fails."""
    mistakes = json.loads((ran.folder / "mistakes.json").read_text("utf-8"))
    read = EventAccumulator(str(ran.configuration.tensorboard / "best"))
    read.Reload()

    assert mistakes
    assert all(("confidence" in one) == TASKS[ran.kind].sure for one in mistakes)
    assert (ran.folder / "mistakes" / mistakes[0]["picture"]).exists()
    assert any(tag.startswith("worst mistakes, test images") for tag in read.Tags()["tensors"])


@pytest.mark.parametrize("ran", [("regression", {}), ("regression", DEEP)], indirect=True)
def test_numbers_come_out_in_their_own_units(ran: Ran) -> None:
    """A price of a million would be told as one, with an error of one."""
    images = features.images(ran.configuration.place, "test", 0)(slice(None))
    said, true = ran.exported.model.predict(images, verbose=0), ran.configuration.place.labels["test"]
    numbers = ran.exported.figures["numbers"]

    assert ran.last["val_mae"] > 1e3, "millions are told apart by thousands"
    assert ran.last["val_loss"] < 1, "the loss is scaled"
    assert np.abs(said - true).mean() == pytest.approx(ran.exported.figures["test_mae"], rel=1e-3)
    assert said[:, 1] == pytest.approx(true[:, 1], abs=3)
    assert [one["name"] for one in numbers] == [*NUMBERS]


@pytest.mark.parametrize("ran", [("multilabel", {}), ("multilabel", DEEP)], indirect=True)
def test_every_label_gets_a_threshold_from_the_validation_images(ran: Ran) -> None:
    """A rare label would never be given."""
    labels = ran.exported.figures["labels"]

    assert [one["label"] for one in labels] == ["dark", "light", "third"]
    assert all(0 < one["threshold"] < 1 for one in labels)
    assert [one["images"] for one in labels] == [*ran.configuration.place.labels["test"].sum(axis=0).astype(int)]
