"""What every metric keeps to, against scikit-learn where it has it, and that it is that of the epoch's answers."""

import math

import numpy as np
import pytest
from sklearn import metrics as known

from search.task import classification
from search.task.classification import CLASSIFICATION, METRICS, Labels, Probabilities
from search.task.metric import of_answers
from search.task.task import Target

COMPUTED = [name for name, metric in METRICS.items() if metric.of]
TARGET = Target(CLASSIFICATION, 2)


def computed(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """All metrics."""
    return TARGET.metrics(labels, probabilities, METRICS)


def answers(images: int, classes: int, seed: int = 0) -> tuple[Labels, Probabilities]:
    """Labels, and answers that are better than chance and too sure."""
    numbers = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), numbers.integers(0, classes, images - classes)])
    logits = 3 * numbers.normal(size=(images, classes))
    logits[np.arange(images), labels] += 4
    likely = np.exp(logits)
    return labels, likely / likely.sum(1, keepdims=True)


@pytest.mark.parametrize(("images", "classes"), [(40, 2), (60, 3), (200, 10)])
def test_the_figures_are_scikit_learns(images: int, classes: int) -> None:
    """A search would look for the best of something else than what its name says."""
    labels, likely = answers(images, classes)
    told = likely.argmax(1)
    found = computed(labels, likely)
    several = {"multi_class": "ovr", "average": "macro"} if classes > 2 else {}
    assert found["val_balanced_accuracy"] == pytest.approx(known.balanced_accuracy_score(labels, told))
    assert found["val_macro_f1"] == pytest.approx(known.f1_score(labels, told, average="macro"))
    assert found["val_auc"] == pytest.approx(
        known.roc_auc_score(labels, likely if several else likely[:, 1], **several)
    )
    assert found["val_log_loss"] == pytest.approx(known.log_loss(labels, likely))
    top = known.top_k_accuracy_score(labels, likely, k=5) if classes > 5 else 1.0
    assert found["val_top5_accuracy"] == pytest.approx(top)


def test_ties_count_half() -> None:
    """A network that always says the same would pass for a good one, or a bad one."""
    same = np.full((6, 3), 1 / 3)
    found = computed(np.array([0, 0, 1, 1, 2, 2]), same)
    assert found["val_auc"] == pytest.approx(0.5)
    assert found["val_macro_f1"] == pytest.approx(known.f1_score([0, 0, 1, 1, 2, 2], [0] * 6, average="macro"))


def test_classes_that_do_not_occur_do_not_count() -> None:
    """One class without validation images would make every figure no number."""
    labels, likely = answers(60, 3)
    wider = np.concatenate([likely, np.full((60, 1), 1e-12)], axis=1)
    found, wanted = computed(labels, wider), computed(labels, likely)
    assert found == pytest.approx(wanted, abs=0.02)


def test_calibration_undoes_any_temperature_and_never_loses() -> None:
    """A figure that is to compare networks whatever their temperature would depend on it."""
    labels, likely = answers(200, 4)
    sharper = likely**3 / (likely**3).sum(1, keepdims=True)
    first, second = (classification.calibrated_log_loss(labels, each) for each in (likely, sharper))
    assert first == pytest.approx(second, abs=1e-3)
    assert first < classification.log_loss(labels, likely) < classification.log_loss(labels, sharper)
    temperatures = np.exp(np.linspace(-2, 2, 401))
    tried = [known.log_loss(labels, (p := likely**t) / p.sum(1, keepdims=True)) for t in temperatures]
    assert first == pytest.approx(min(tried), abs=1e-3)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_knows_what_is_better(name: str) -> None:
    """The worst trial would win, or one without a value."""
    metric = METRICS[name]
    good, bad = (0.9, 0.1) if metric.mode == "max" else (0.1, 0.9)
    pairs = [(good, bad), (bad, good), (good, good), (bad, None)]
    assert [metric.better(*pair) for pair in pairs] == [True, False, False, True]
    assert metric.rank(good) < metric.rank(bad) < metric.rank(None)
    assert metric.words


@pytest.mark.parametrize("name", COMPUTED)
def test_perfect_answers_are_the_best(name: str) -> None:
    """A sign would be wrong."""
    labels, likely = answers(100, 6)
    perfect = np.eye(6)[labels]
    figures = [computed(labels, each)[name] for each in (perfect, likely)]
    assert METRICS[name].better(*figures)


def test_answers_that_are_no_number_give_none() -> None:
    """A network that diverged would have a figure."""
    labels, likely = answers(20, 3)
    likely[3] = math.nan
    assert all(math.isnan(value) for value in of_answers(labels, likely, METRICS).values())
