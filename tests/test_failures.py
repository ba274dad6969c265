"""What the report and the console say of a model of every kind: its figures, where it fails, how far to trust it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import ABOUT, Made, Page, adam

from search.record.record import write_json
from search.report import comparison, conclusion, failures, model_charts, page
from search.task.objective import Objective
from search.task.tasks import TASKS
from search.trial import pictures

COUNTS = {"train": {"cat": 40, "dog": 3}, "val": {"cat": 8, "dog": 1}, "test": {"cat": 9, "dog": 2}}
FIGURES: dict[str, dict[str, Any]] = {
    "classification": {
        "confusion_matrix": [[9, 0], [2, 0]],
        "recall": [1.0, 0.0],
        "balanced_accuracy": 0.5,
        "reliability": [[0.6, 0.5, 4], [0.95, 0.7, 7]],
        "expected_calibration_error": 0.2,
        "test_accuracy": 0.8182,
    },
    "multilabel": {
        "labels": [
            {"label": name, "threshold": 0.4, "precision": p, "recall": r, "f1": r, "average_precision": a, "images": n}
            for name, p, r, a, n in (("cat", 0.75, 1.0, 0.9, 9), ("dog", None, 0.0, 0.25, 2))
        ],
        "test_mean_average_precision": 0.575,
        "test_macro_f1": 0.5,
    },
    "regression": {
        "numbers": [
            {"name": name, "r2": 0.75, "rmse": 2.5, "mae": 2.0, "true": [1.0, 2.0, 9.0], "predicted": [1.5, 2.0, 7.0]}
            for name in ("cat", "dog")
        ],
        "test_r2": 0.75,
        "test_rmse": 2.5,
        "test_mae": 2.0,
    },
}


def made(folder: Path, task: str, **changes: Any) -> Made:
    """A search of a task, with a model."""
    main = TASKS[task].objective
    data = {**ABOUT["data"], "classes": ["cat", "dog"], "counts": {} if task == "regression" else COUNTS}
    space, settings = {**ABOUT["space"], "objective": main}, {**ABOUT["settings"], "task": task}
    search = Made(folder, space=space, settings=settings, data=data)
    number = f"{len(search.record.rows):04d}"
    search._note("started", number, parameters=adam(1, 1e-3))
    told = dict.fromkeys(TASKS[task].metrics, 0.5)
    last = {f"last_{name}": value for name, value in told.items()}
    ended = {
        "epoch": 1,
        "best_epoch": 1,
        "objective": 0.5,
        "seconds": 1.0,
        "ending": "completed",
        "reason": "all epochs",
    }
    search._note("epoch", number, metrics={**told, **last, **ended})
    search.record.files.best.mkdir()

    about = {
        "trial": number,
        "classes": ["cat", "dog"],
        main: 0.5,
        "model_bytes": 1,
        "latency_ms": 1,
        "latency_on": "CPU",
    }
    write_json(search.record.files.metrics, {**about, "task": task, **FIGURES[task], **changes})
    return search


@pytest.mark.parametrize(
    ("task", "told", "page_says"),
    [
        (
            "classification",
            "test accuracy of trial 0000: 0.8182, balanced over the classes 0.5000; it never finds dog",
            ["With 11 test images, it never finds dog.", "is 0.2000 from its accuracy", "training images", "40 8 9"],
        ),
        (
            "multilabel",
            "test mean average precision of trial 0000: 0.5750, test macro F1 0.5000; it never finds dog",
            ["mean average precision 0.5750", "above the label's threshold", "it never finds dog", "0.4000 9 40 8"],
        ),
        (
            "regression",
            "test R² of trial 0000: 0.7500, test RMSE 2.5000, test MAE 2.0000",
            ["R² 0.7500", "The first 3 images are drawn", "cat 0.7500 2.5000 2.0000", "of 2 numbers"],
        ),
    ],
)
def test_a_model_of_every_kind_is_told(tmp_path: Path, task: str, told: str, page_says: list[str]) -> None:
    """The end of a search would fail, or tell of classes where there are none."""
    search = made(tmp_path / "search", task)
    shown = " ".join(Page(page.page(search.found())).text.split())

    assert conclusion.tested(failures.analysis.metrics(search.found()), Objective(kind=task)) == told
    for part in page_says:
        assert part in shown


@pytest.mark.parametrize("task", TASKS)
def test_a_mean_of_trials_says_what_the_best_has_alone(tmp_path: Path, task: str) -> None:
    """Nobody would know what the mean gained."""
    main = TASKS[task].objective
    alone = {main: 0.4, main.replace("val_", "test_"): 0.3}
    search = made(tmp_path / "search", task, soup={"trials": ["0000", "0001"], "alone": alone})
    told = conclusion.tested(failures.analysis.metrics(search.found()), Objective(kind=task))

    assert "of the mean of trials 0000, 0001: " in told
    assert told.endswith("0.5000 (trial 0000 alone: 0.4000, on the test images 0.3000)")


def test_searches_of_two_tasks_are_compared(tmp_path: Path) -> None:
    """The page would fail, or put an accuracy and an R² into one row."""
    found = [made(tmp_path / task, task).found() for task in ("classification", "regression")]
    rows = {row[0]: row[1:] for row in comparison.results(found)}

    assert rows["test accuracy"] == ("0.8182", "none")
    assert rows["test R²"] == ("none", "0.7500")
    assert {row[0]: row[1:] for row in comparison.differences(found)}["task"] == ("classification", "regression")


def test_labels_and_numbers_have_their_pictures() -> None:
    """A picture would be empty, or the other way round."""
    figure = model_charts.labels([("cat", 0.9, 0.8), ("dog", None, None)])
    scatter = model_charts.predictions(FIGURES["regression"]["numbers"])

    assert [list(bar.x) for bar in figure.data] == [[0.9, None], [0.8, None]]
    assert [list(one.x) for one in scatter.data if one.mode == "markers"] == [[1.0, 2.0, 9.0]] * 2
    assert model_charts.reliability([(0.6, 0.5, 4)]).data[1].y == (0.5,)


def test_a_scatter_plot_shows_every_image() -> None:
    """Who looks into TensorBoard would see no error where there is one."""
    labels = np.array([[0.0], [5.0], [10.0]])
    said = np.array([[0.0], [10.0], [10.0]])
    shown = pictures.of(["price"], (labels, said), TASKS["regression"])
    same = pictures.of(["price"], (np.ones((3, 1)), np.ones((3, 1))), TASKS["regression"])

    assert shown is not None
    assert same is not None
    assert shown.title == "prediction against truth"
    dots = (np.asarray(shown.image) == (8, 81, 156)).all(axis=2)
    middle = pictures.EDGE + pictures.SIDE // 2
    assert dots[pictures.EDGE, middle]
    assert not dots[middle, middle]
    assert pictures.of(["a", "b"], (labels, said), TASKS["multilabel"]) is None
