"""What every task must be, whatever it predicts."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn import metrics as known

from search.components.losses import LOSSES
from search.space.settings import SETTINGS
from search.task import classification, multilabel, regression
from search.task.metric import LOSS
from search.task.task import Target
from search.task.tasks import TASKS

ROOT = Path(__file__).parents[1] / "search"
IMAGES, OUTPUTS = 40, 4
NAMES = [f"name {number}" for number in range(OUTPUTS)]


def outputs(name: str) -> Any:
    """What a network with this activation says of some images."""
    drawn = np.random.default_rng(0).normal(size=(IMAGES, OUTPUTS)).astype("float32")
    return np.asarray(keras.activations.get(TASKS[name].activation)(keras.ops.convert_to_tensor(drawn)))


def labels(name: str) -> Any:
    """Labels, some of which the outputs are right about."""
    task, numbers = TASKS[name], np.random.default_rng(1)
    if task.scaled:
        return outputs(name) + numbers.normal(size=(IMAGES, OUTPUTS)).astype("float32")
    right = task.answer(outputs(name))
    return np.where(numbers.random(right.shape) < 0.7, right, np.roll(right, 1, axis=0)).astype(task.label_dtype)


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_has_the_shape_of_a_label(name: str) -> None:
    """Answers could not be compared with labels, or with each other."""
    task, said, true = TASKS[name], outputs(name), labels(name)
    answers, wrong, at = task.answer(said), task.wrong(true, said), task.pointing(true, said)

    assert answers.shape == true.shape == (IMAGES, *Target(task, OUTPUTS).label_shape)
    assert wrong.shape == at.shape == (IMAGES,)
    assert (wrong >= 0).all()
    assert wrong.max() > 0
    assert not task.sure or wrong.max() <= 1
    assert not task.wrong(answers, said).any(), "an answer is not wrong about itself"
    assert set(at) <= set(range(OUTPUTS))


@pytest.mark.parametrize("name", TASKS)
def test_a_label_is_told_in_words(name: str) -> None:
    """Nobody would know what a number in a table means."""
    told = {TASKS[name].told(NAMES, label) for label in labels(name)}

    assert len(told) > 1
    assert all(told)


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_is_of_each_image_and_least_for_the_answer(name: str) -> None:
    """Trials would be judged by a loss that does not know what is right."""
    task, said = TASKS[name], outputs(name)
    loss, right = keras.losses.get(task.loss), task.answer(said).astype(task.label_dtype)
    found = np.asarray(loss(right, said))
    wrong = np.asarray(loss(np.roll(right, 1, axis=0), said))

    assert found.shape == (IMAGES,)
    assert (found <= wrong + 1e-6).all()
    assert task.loss_of(right, said) == pytest.approx(found.mean(), rel=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_which_metric_is_its_own(name: str) -> None:
    """Trials would be compared by a figure that nobody has."""
    task, said, true = TASKS[name], outputs(name), labels(name)
    figures = Target(task, OUTPUTS, (0.0,) * OUTPUTS, (1.0,) * OUTPUTS).metrics(true, said, task.metrics)

    assert task.objective in task.metrics
    assert LOSS in task.metrics
    assert list(figures) == [*figures]
    assert set(figures) == set(task.metrics)
    assert all(np.isfinite(value) for value in figures.values())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_loss_to_train_by(name: str) -> None:
    """A search of that kind could not begin."""
    chosen = {loss for loss, row in LOSSES.items() if name in row.tasks}

    assert TASKS[name].defaults.get("loss", SETTINGS["loss"].default) in chosen
    assert set(TASKS[name].defaults) <= set(SETTINGS)


@pytest.mark.parametrize("name", TASKS)
def test_what_else_is_told_of_a_model_is_json(name: str) -> None:
    """The winner's figures could not be written at the end of a search."""
    said = labels(name), outputs(name)

    assert json.loads(json.dumps(TASKS[name].figures(NAMES, said, lambda: said), allow_nan=False))


def test_the_figures_of_several_labels_are_scikit_learns() -> None:
    """A search would look for the best of something else than what its name says."""
    true, said = labels("multilabel"), outputs("multilabel")
    told = said > 0.5
    tied = np.round(said, 1)

    assert multilabel.mean_average_precision(true, tied) == pytest.approx(known.average_precision_score(true, tied))
    assert multilabel.macro_f1(true, said) == pytest.approx(known.f1_score(true, told, average="macro"))
    assert multilabel.micro_f1(true, said) == pytest.approx(known.f1_score(true, told, average="micro"))
    assert multilabel.auc(true, said) == pytest.approx(known.roc_auc_score(true, said))
    assert multilabel.subset_accuracy(true, said) == pytest.approx(known.accuracy_score(true, told))


def test_a_label_without_images_does_not_count() -> None:
    """One rare label would make every figure no number."""
    true, said = labels("multilabel"), outputs("multilabel")
    true[:, 0] = 0

    assert multilabel.mean_average_precision(true, said) == pytest.approx(
        known.average_precision_score(true[:, 1:], said[:, 1:])
    )
    assert np.isfinite(multilabel.auc(true, said))
    assert multilabel.thresholds(true, said)[0] == 0.5


def test_a_threshold_is_the_best_there_is() -> None:
    """A label that is rare would never be given, or one that is common always."""
    true, said = labels("multilabel"), np.round(outputs("multilabel"), 1)
    chosen = multilabel.thresholds(true, said)
    tried = np.arange(0.05, 1, 0.1)

    for one in range(OUTPUTS):
        best = max(known.f1_score(true[:, one], said[:, one] > at) for at in tried)
        assert known.f1_score(true[:, one], said[:, one] > chosen[one]) == pytest.approx(best)


def test_the_figures_of_numbers_are_scikit_learns() -> None:
    """A search would look for the best of something else than what its name says."""
    true, said = labels("regression"), outputs("regression")

    assert regression.r2(true, said) == pytest.approx(known.r2_score(true, said), rel=1e-5)
    assert regression.mae(true, said) == pytest.approx(known.mean_absolute_error(true, said), rel=1e-5)
    assert regression.rmse(true, said) == pytest.approx(known.root_mean_squared_error(true, said), rel=1e-5)
    assert np.isnan(regression.r2(np.ones((3, 1)), np.zeros((3, 1))))


def test_numbers_are_scaled_and_come_back() -> None:
    """A price of a million would be predicted as one of one."""
    target = Target(TASKS["regression"], 2, (1e6, 0.0), (2e5, 1e-3))
    values = np.array([[1.2e6, 1e-3], [8e5, -2e-3]])

    np.testing.assert_allclose(target.scaled(values), [[1, 1], [-1, -2]], rtol=1e-5)
    np.testing.assert_allclose(target.whole(target.scaled(values)), values, rtol=1e-5)
    assert target.metrics(values, values, {})[LOSS] == 0


def test_how_far_probabilities_can_be_trusted() -> None:
    """A model that is always too sure would pass for one that knows when it is wrong."""
    said = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    bins = classification.reliability(np.array([0] * 5 + [1] * 15), said)

    assert bins == [(pytest.approx(0.6), 1.0, 10), (pytest.approx(0.9), 0.5, 10)]
    assert classification.calibration_error(bins) == pytest.approx(0.4)


def test_nobody_else_knows_what_an_output_means() -> None:
    """Another kind of target would need changes in many files."""
    words = ("softmax", "sigmoid", "argmax(", "SparseCategorical")
    knowing = {path.name for path in ROOT.rglob("*.py") if any(word in path.read_text("utf-8") for word in words)}

    # a pretrained network's own last layer is found by its activation
    assert knowing == {"classification.py", "multilabel.py", "regression.py", "graph.py"}


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.sharpness])
def test_a_temperature_fits_best(name: str) -> None:
    """A calibrated model would be less to be trusted than one that is not."""
    task, true, said = TASKS[name], labels(name), outputs(name)
    assert task.sharpness is not None
    best = task.sharpness(true, said)
    logits = np.log(said) if name == "classification" else np.log(said / (1 - said))

    def loss(factor: float) -> float:
        scaled = keras.activations.get(task.activation)(keras.ops.convert_to_tensor(factor * logits))
        return task.loss_of(true, np.asarray(scaled))

    assert loss(best) <= min(loss(best * factor) for factor in (0.5, 0.9, 1.1, 2)) + 1e-6
