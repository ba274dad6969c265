"""What a model becomes in other formats: each is written, run in its own runtime, and compared with the model."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Toy
from ended import ended, model
from packaging.requirements import Requirement

from search.best import find
from search.data.scan import silent
from search.errors import RequestError
from search.export import __main__ as command
from search.export import comparison, samples
from search.export.formats import FORMATS
from search.task.task import Target
from search.task.tasks import TASKS

ROOT = Path(__file__).parents[1]
TARGET = Target(TASKS["classification"], 2)
KINDS = [(name, way) for name, row in FORMATS.items() for way in (None, *row.quantized)]


@pytest.fixture
def storage(tmp_path: Path, toy: Toy) -> Path:
    """Where a search has ended."""
    return ended(tmp_path, toy)


def asked(storage: Path, *arguments: str) -> int:
    """The command's exit status."""
    return command.main(["toy", "--storage", str(storage), *arguments])


def exports(storage: Path) -> dict[str, Any]:
    """What the record says of exported models."""
    return dict(json.loads((storage / "toy" / "best" / "metrics.json").read_text()).get("exports", {}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), KINDS)
def test_an_exported_model_answers_as_the_model_does(name: str, way: str | None, storage: Path, toy: Toy) -> None:
    """What is put on a phone or a server would answer otherwise than what was tested, and nobody would know."""
    for package in FORMATS[name].packages:
        pytest.importorskip(package)
    options = ["toy", "--to", name, "--storage", str(storage), *(["--quantize", way] if way else [])]
    program = [sys.executable, "-m", "search.export", *options]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    called = f"{name}-{way}" if way else name
    found, best = exports(storage)[called], storage / "toy" / "best"

    assert (best / found["file"]).exists()
    assert found["images"] == len(toy.dataset.items["test"])
    assert found["same"] == 1
    assert found["largest_difference"] < (0.05 if way or found.get("computes_in") else 1e-4)
    assert found["test_accuracy"] == found["test_accuracy_of_keras"] == pytest.approx(0.75)  # 3 of 12 are mislabelled
    assert found["bytes"] == sum(path.stat().st_size for path in (best / "export").rglob("*") if path.is_file())
    assert min(found["latency_ms"], found["latency_ms_of_keras"], found["latency_ms_in_32"]) > 0
    assert f"exported: {best / 'export' / called}" in done.stdout
    assert [path.name for path in (best / "export").iterdir()] == [called]


@pytest.mark.slow
def test_a_savedmodel_runs_in_tensorflow(storage: Path, toy: Toy) -> None:
    """The README's way to use it anywhere with TensorFlow would fail there; exporting again would leave two."""
    assert asked(storage, "--to", "savedmodel") == 0
    assert asked(storage, "--to", "savedmodel") == 0
    path = storage / "toy" / "best" / exports(storage)["savedmodel"]["file"]
    code = (
        "import sys, numpy, tensorflow as tf; images = numpy.full((2, 16, 16, 3), 200, 'float32')\n"
        "served = tf.saved_model.load(sys.argv[1]); "
        "print(served.serve(images).numpy().tolist())"
    )
    program = [sys.executable, "-c", code, str(path)]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    expected = model(toy.image_size).predict_on_batch(np.full((2, 16, 16, 3), 200, "float32"))

    assert np.allclose(json.loads(told), expected, atol=1e-5)


@pytest.mark.slow
def test_a_network_that_cannot_be_converted_is_told(storage: Path, toy: Toy) -> None:
    """A file that no runtime reads would be left, in the place of one that worked."""
    for package in FORMATS["onnx"].packages:
        pytest.importorskip(package)
    before = storage / "toy" / "best" / "export" / "onnx" / "model.onnx"
    before.parent.mkdir(parents=True)
    before.write_bytes(b"of an earlier time")
    images = keras.Input((toy.image_size, toy.image_size, 3))
    values = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, groups=3)(images))
    grouped = keras.Model(images, keras.layers.Dense(2, activation="softmax")(values))
    grouped.save(storage / "toy" / "best" / "model.keras")
    program = [sys.executable, "-m", "search.export", "toy", "--to", "onnx", "--storage", str(storage)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "error: the onnx model cannot be loaded: " in done.stderr
    assert [*(storage / "toy" / "best" / "export").rglob("*.*")] == [before]
    assert exports(storage) == {}


@pytest.mark.slow
def test_an_exported_model_that_answers_otherwise_is_told(storage: Path, toy: Toy) -> None:
    """A script would put a model on every phone that finds one class alone."""
    pytest.importorskip("ai_edge_litert")
    small = model(toy.image_size)
    wide, answer = keras.layers.Dense(512), keras.layers.Dense(2, activation="softmax")
    large = keras.Model(small.inputs, answer(wide(small.layers[-2].output)))
    wide.set_weights([np.full((3, 512), 1e6), np.zeros(512)])  # float16 has no such number
    answer.set_weights([np.array([[-1e-8, 1e-8]] * 512), np.zeros(2)])
    large.save(storage / "toy" / "best" / "model.keras")
    options = ["toy", "--to", "litert", "--quantize", "float16", "--storage", str(storage)]
    program = [sys.executable, "-m", "search.export", *options]
    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert done.returncode == 3, done.stdout + done.stderr
    assert "more than 1% of the test images get another answer" in done.stdout
    assert exports(storage)["litert-float16"]["same"] < 0.99


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--to", "onxx"],
            ["unknown format 'onxx'; did you mean 'onnx'? known are litert, onnx, openvino, savedmodel"],
        ),
        (
            ["--to", "savedmodel", "--quantize", "int8"],
            ["savedmodel does not have it; litert has dynamic, float16, int8"],
        ),
        (["--to", "savedmodel", "--data", "gone"], ["nor is there a folder of this name; say where they lie now"]),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    arguments: list[str], said: list[str], storage: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user would wait for a conversion that cannot be had, or find half of one."""
    assert asked(storage, *arguments) == 2
    told = capfd.readouterr().err
    for part in said:
        assert part in told
    assert not (storage / "toy" / "best" / "export").exists()
    assert exports(storage) == {}


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.extra])
def test_a_missing_runtime_is_named_with_what_brings_it(name: str) -> None:
    """A user would meet a module that is missing, and have to guess which package has it and in which version."""
    row = replace(FORMATS[name], packages=("no_such_package", "no_such_package.part"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    brought = {Requirement(text).name.replace("-", "_") for text in extras[row.extra]}

    assert row.missing() == (
        f"no_such_package and no_such_package.part are not installed: pip install 'finetune-search[{name}]'"
    )
    assert brought == set(FORMATS[name].packages)


def test_images_that_lie_elsewhere_are_found_by_their_content(storage: Path, toy: Toy, tmp_path: Path) -> None:
    """A model would be compared on other images than those it was tested on; or not at all, once they were moved."""
    best = find(str(storage), "toy")
    (tmp_path / "moved").symlink_to(toy.folder)
    found = samples.find(best, str(tmp_path / "moved"), silent)
    batches = list(found.test(5, silent))

    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    labels = np.concatenate([labels for _, labels in batches])
    assert labels.tolist() == list(toy.dataset.labels["test"])
    assert batches[0][0].shape == (5, toy.image_size, toy.image_size, 3)
    assert len(list(found.training(7, silent))) == 7
    with pytest.raises(RequestError, match=r"does not hold the images that the search used: .* with --data"):
        samples.find(best, "digits", silent)


def test_the_comparison_counts_what_differs() -> None:
    """A conversion that spoils a class would be passed."""
    labels = np.array([0, 1, 1, 0])
    one = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    other = np.array([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6], [0.4, 0.6]])
    batches = [(np.arange(2), labels[:2]), (np.arange(2, 4), labels[2:])]
    first, second = (lambda rows: one[rows.astype(int)]), (lambda rows: other[rows.astype(int)])
    found = comparison.agreement(first, second, batches, TARGET)
    broken = comparison.agreement(first, lambda rows: second(rows) * np.nan, batches, TARGET)

    assert broken == comparison.Agreement(4, 0, 1, "test_accuracy", 0.75, 0)
    assert found == comparison.Agreement(4, 0.5, pytest.approx(0.3), "test_accuracy", 0.75, 0.75)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_read_changes_nothing(storage: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What was exported before would be gone, or half of the new one be there."""
    before = storage / "toy" / "best" / "export" / "savedmodel" / "model"
    before.mkdir(parents=True)
    path = storage / "toy" / "best" / "model.keras"
    path.write_bytes(path.read_bytes()[:2000])

    assert asked(storage, "--to", "savedmodel") == 1
    assert f"error: {path} cannot be loaded: " in capfd.readouterr().err
    assert before.is_dir()
    assert [entry.name for entry in (storage / "toy" / "best" / "export").iterdir()] == ["savedmodel"]
    assert exports(storage) == {}


@pytest.mark.parametrize("name", TASKS)
def test_answers_of_every_task_are_compared(name: str) -> None:
    """A conversion that spoils labels or numbers would be passed, or a good one be refused."""
    target = Target(TASKS[name], 2, (0.0, 100.0), (1.0, 50.0))
    numbers = np.random.default_rng(0)
    one = numbers.uniform(0.1, 0.9, (20, 2)) * (1, 100) if TASKS[name].scaled else numbers.uniform(0.1, 0.9, (20, 2))
    labels = np.asarray(target.task.answer(one), target.task.label_dtype)
    other = one.copy()
    other[:5] = 0.95 - other[:5] if not target.task.scaled else other[:5] * 1.5
    batches = [(np.arange(20), labels)]
    same = comparison.agreement(lambda rows: one, lambda rows: one * (1 + 1e-6), batches, target)  # noqa: ARG005
    found = comparison.agreement(lambda rows: one, lambda rows: other, batches, target)  # noqa: ARG005

    assert (same.same, same.figure) == (1.0, pytest.approx(1.0))
    assert found.same <= 0.95
    assert found.exported < found.figure
    assert found.metric == target.task.objective.replace("val_", "test_")
