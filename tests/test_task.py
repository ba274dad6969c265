"""What every task must be, whatever it predicts."""

from pathlib import Path

import keras
import numpy as np
import pytest

from search.task.metrics import METRICS
from search.task.task import TASKS

ROOT = Path(__file__).parents[1] / "search"
IMAGES, OUTPUTS = 6, 4


def outputs(name: str) -> np.ndarray:
    """What a network with this activation says of six images."""
    drawn = np.random.default_rng(0).normal(size=(IMAGES, OUTPUTS)).astype("float32")
    return np.asarray(keras.activations.get(TASKS[name].activation)(keras.ops.convert_to_tensor(drawn)))


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_has_the_shape_of_a_label(name: str) -> None:
    """Answers could not be compared with labels, or with each other."""
    task, said = TASKS[name], outputs(name)
    answers, sure = task.answer(said), task.confidence(said)

    assert answers.shape == (IMAGES, *task.label_shape)
    assert sure.shape == (IMAGES,)
    assert ((sure >= 0) & (sure <= 1)).all()


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_is_of_each_image_and_least_for_the_answer(name: str) -> None:
    """Trials would be judged by a loss that does not know what is right."""
    task, said = TASKS[name], outputs(name)
    loss, right = keras.losses.get(task.loss), task.answer(said).astype(task.label_dtype)
    found = np.asarray(loss(right, said))
    wrong = np.asarray(loss(np.roll(right, 1, axis=0), said))

    assert found.shape == (IMAGES,)
    assert (found <= wrong + 1e-6).all()


@pytest.mark.parametrize("name", TASKS)
def test_what_keras_counts_is_a_metric(name: str) -> None:
    """A trial would report a figure that nobody knows, or none that it needs."""
    assert {f"val_{each}" for each in (*TASKS[name].counted, "loss")} == {
        metric for metric, row in METRICS.items() if row.of is None
    }


def test_nobody_else_knows_what_an_output_means() -> None:
    """Another kind of target would need changes in many files."""
    words = ("softmax", "argmax(", "SparseCategorical")
    knowing = {path.name for path in ROOT.rglob("*.py") if any(word in path.read_text("utf-8") for word in words)}

    assert knowing == {"task.py", "graph.py"}  # a pretrained network's own last layer is found by its activation
