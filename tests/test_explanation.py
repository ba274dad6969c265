"""What is shown of the winner: its surest mistakes, where it looked, its features; as TensorBoard reads them."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from search.task.classification import METRICS, confusion
from search.task.task import Target
from search.task.tasks import TASKS
from search.trial import explanation, pictures, tensorboard
from search.trial.explanation import Answers

TARGET = Target(TASKS["classification"], 2)
SIZE = 8
CLASSES = ["dark", "light"]


def answers(probabilities: list[float], labels: list[int]) -> Answers:
    """Two classes; `probabilities` are those of the second."""
    second = np.array(probabilities)
    return Answers(np.zeros((len(labels), 3)), np.stack([1 - second, second], axis=1), np.array(labels), TARGET)


MIXED = answers([0.9, 0.2, 0.6, 0.99, 0.3], [1, 0, 0, 0, 1])


def test_rows_of_the_confusion_are_true_classes() -> None:
    """Who reads it would mistake one kind of error for the other."""
    assert confusion(*MIXED.said).tolist() == [[1, 2], [1, 1]]


def test_the_surest_mistakes_come_first() -> None:
    """The least interesting ones would be shown."""
    assert MIXED.mistakes(10) == [3, 4, 2]
    assert MIXED.mistakes(1) == [3]
    assert answers([0.1], [0]).mistakes(10) == []


def test_the_loss_is_the_cross_entropy() -> None:
    """`test_loss` would be another quantity; a probability of 0 would make it infinite."""
    assert MIXED.metrics(METRICS)["val_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.4, 0.01, 0.3])))
    assert np.isfinite(answers([0.0], [1]).metrics(METRICS)["val_loss"])


def size(path: Path) -> tuple[int, int]:
    """Of a picture."""
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def model() -> Any:
    """A network that finds light places, made as the exported ones are."""
    images = keras.Input((SIZE, SIZE, 3))
    light = keras.layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False)(images)
    pooled = keras.layers.GlobalAveragePooling2D()(light)
    dropped = keras.layers.Dropout(0.1, name="dropout")(pooled)
    dense = keras.layers.Dense(2, activation="softmax")
    made = keras.Model(images, dense(dropped))
    dense.set_weights([np.array([[-0.01, 0.01]]), np.array([2.0, -2.0])])
    return made


@pytest.fixture
def pixels() -> Any:
    """Dark images; the second one is light at one place."""
    made = np.zeros((2, SIZE, SIZE, 3), "uint8")
    made[1, 2, 5] = 255
    return made


def test_what_spoke_for_a_class_is_where_it_is(model: Any, pixels: Any) -> None:
    """The picture would show a place that the network did not look at."""
    spoke = explanation.activation(model, pixels, np.array([1, 1]))

    assert spoke is not None
    assert spoke.shape == (2, SIZE, SIZE)
    assert np.unravel_index(spoke[1].argmax(), (SIZE, SIZE)) == (2, 5)
    assert spoke[1].sum() == pytest.approx(spoke[1].max()) == pytest.approx(1.0)
    assert not spoke[0].any()


def test_a_network_without_a_map_has_nothing_to_show() -> None:
    """An own network that gives a vector could not be exported."""
    images = keras.Input((SIZE, SIZE, 3))
    vector = keras.layers.Dropout(0.1, name="dropout")(keras.layers.Flatten()(images))
    flat = keras.Model(images, keras.layers.Dense(2)(vector))

    assert explanation.activation(flat, np.zeros((1, SIZE, SIZE, 3)), np.array([0])) is None
    assert explanation.beside(np.zeros((SIZE, SIZE, 3)), None).size == (explanation.PICTURE, explanation.PICTURE)


def test_features_are_what_the_last_layer_gets(model: Any, pixels: Any) -> None:
    """The projector would show something else, or the figures be those of another model."""
    found = explanation.answers(
        explanation.answering(model), pixels.__getitem__, np.array([0, 1]), batch_size=1, target=TARGET
    )

    assert found.features == pytest.approx(pixels.sum(axis=3).mean(axis=(1, 2))[:, None])
    assert found.outputs == pytest.approx(np.asarray(model(pixels)), abs=1e-6)


def test_no_more_images_than_labels(model: Any) -> None:
    """Of many validation images the last batch would be whole, and the winner of a large search not be exported."""
    many = np.zeros((7, SIZE, SIZE, 3), "uint8")
    found = explanation.answers(
        explanation.answering(model), many.__getitem__, np.zeros(5, int), batch_size=2, target=TARGET
    )

    assert len(found.features) == len(found.outputs) == len(found.predicted) == 5


@pytest.mark.parametrize("count", [2, 20, 200])
def test_a_confusion_matrix_has_a_readable_picture(count: int) -> None:
    """Names would run out of it, or it would be larger than a screen can show."""
    names = [f"a class with a very long name {number}" for number in range(count)]
    picture = pictures.confusion(names, np.eye(count, dtype=int))

    assert max(picture.size) < 4096
    pixels = np.asarray(picture)
    assert (pixels[:, :20] == 255).mean() > 0.8, "something lies over the left edge"
    assert (pixels[-8:] == 255).all()


def test_tensorboard_reads_what_is_written(tmp_path: Path, model: Any, pixels: Any, monkeypatch: Any) -> None:
    """The tabs would be empty."""
    items = {"test": ["a.png", "b.png"], "val": ["c.png", "d.png"]}
    dataset = SimpleNamespace(classes=CLASSES, items=items)
    place: Any = SimpleNamespace(dataset=dataset, labels={split: np.array([0, 0]) for split in items})
    network: Any = SimpleNamespace(suffix=model)
    monkeypatch.setattr(explanation, "images", lambda *_: pixels.__getitem__)
    tested = answers([0.2, 0.9], [0, 0])
    shown = explanation.answers(explanation.answering(model), pixels.__getitem__, place.labels["val"], 2, TARGET)
    explanation.write_tested(place, model, tested, folder=tmp_path, run=tmp_path / "run")
    explanation.write(place, model, network, shown, tmp_path / "run")
    read = EventAccumulator(str(tmp_path / "run"))
    read.Reload()

    assert json.loads((tmp_path / "mistakes.json").read_text()) == [
        {"image": "b.png", "picture": "01.png", "true": "dark", "predicted": "light", "confidence": 0.9}
    ]
    assert size(tmp_path / "mistakes" / "01.png") == (2 * explanation.PICTURE, explanation.PICTURE)
    kept = set(read.Tags()["tensors"])
    assert {"confusion matrix, test images", "worst mistakes, test images/01: dark taken for light (90%)"} <= kept
    assert len([tag for tag in kept if tag.startswith("weights/")]) == len(model.trainable_variables)
    with (tmp_path / "run" / "labels.tsv").open(newline="") as file:
        head, *lines = csv.reader(file, "excel-tab")
    assert head == ["class", "predicted", "correct", "image"]
    assert [line[3] for line in lines] == ["c.png", "d.png"]
    assert np.loadtxt(tmp_path / "run" / "features.tsv").shape == (2,)
    assert size(tmp_path / "run" / "sprite.png") == (2 * explanation.THUMBNAIL, 2 * explanation.THUMBNAIL)
    assert '"features.tsv"' in (tmp_path / "run" / "projector_config.pbtxt").read_text()


def test_a_histogram_keeps_every_value(tmp_path: Path) -> None:
    """Weights of one value, or very different ones, would be lost."""
    with tensorboard.Events(tmp_path) as events:
        events.histogram("equal", np.full(5, 0.25), 3)
        events.histogram("wide", np.array([-1e6, 0.0, 1e-6]), 3)
    read = EventAccumulator(str(tmp_path))
    read.Reload()

    for tag, count in (("equal", 5), ("wide", 3)):
        (event,) = read.Tensors(tag)
        assert event.step == 3
        assert make_ndarray(event.tensor_proto)[:, 2].sum() == pytest.approx(count)
