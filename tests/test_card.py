"""What a real search leaves beside its model: a card whose words and code are true, and what commands make of it."""

import csv
import io
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from searches import run

from search.data.scan import silent
from search.data.settings import DataSettings
from search.data.sources import SOURCES

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
FUNCTION = re.compile(r"^def pixels.*?return [^\n]*$", re.DOTALL | re.MULTILINE)


def test_the_card_reads_images_as_the_readme_says() -> None:
    """Two recipes would give two answers."""
    (of_card,) = FUNCTION.findall((ROOT / "search" / "report" / "card.md").read_text("utf-8"))
    code = (ROOT / "README.md").read_text("utf-8").partition("Use the model anywhere")[2]
    (of_readme,) = FUNCTION.findall(textwrap.dedent(code.partition("\n\n")[2].partition("The search reads")[0]))

    assert of_card == of_readme


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole search over digits."""
    folder = tmp_path_factory.mktemp("card")
    done = run(folder, "--space", "smoke", "--name", "whole", "--trials", "2", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    return folder / "results" / "whole"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, search: Path) -> Path:
    """The test images of the search, as files, in a folder for each class; one of them is also `image.jpg`."""
    folder = tmp_path_factory.mktemp("digits")
    found = SOURCES["digits"].find("digits", 0, DataSettings(), silent)
    with np.load(ROOT / "search" / "data" / "digits.npz") as kept:
        images = np.rint(kept["images"] * (255 / 16)).astype("uint8")
    for item, label in zip(found.items["test"], found.labels["test"], strict=True):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(images[int(item)]).save(folder / str(label) / f"{item}.png")
    assert list(found.items["test"]) == json.loads((search / "best" / "split.json").read_text())["test"]
    return folder


def predicted(search: Path, images: Path) -> list[dict[str, str]]:
    """The rows of the table."""
    options = ["whole", str(images), "--storage", str(search.parent)]
    program = [sys.executable, "-m", "search.predict", *options]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    return list(csv.DictReader(io.StringIO(told)))


@pytest.mark.slow
def test_predictions_have_the_accuracy_that_was_tested(search: Path, digits: Path) -> None:
    """The command would read images otherwise than the search, or name the wrong class."""
    rows = predicted(search, digits)
    right = [Path(row["file"]).parent.name == row["class"] for row in rows]

    assert np.mean(right) == json.loads((search / "best" / "metrics.json").read_text())["test_accuracy"]


@pytest.mark.slow
def test_the_code_of_the_card_works(search: Path, digits: Path) -> None:
    """Whoever gets the folder alone could not use the model, or would get other answers."""
    (code,) = CODE.findall((search / "best" / "README.md").read_text("utf-8"))
    image = sorted(digits.rglob("*.png"))[0]
    (search / "best" / "image.jpg").write_bytes(image.read_bytes())
    try:
        program = [sys.executable, "-c", code]
        done = subprocess.run(program, cwd=search / "best", capture_output=True, text=True, check=False)
    finally:
        (search / "best" / "image.jpg").unlink()
    assert done.returncode == 0, done.stderr
    label, probability = done.stdout.split()[-2:]
    (row,) = predicted(search, image)

    assert label == row["class"]
    assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-5)


@pytest.mark.slow
def test_the_card_tells_what_the_record_says(search: Path) -> None:
    """A reader would be told of other images, parameters or figures than there were."""
    card = (search / "best" / "README.md").read_text("utf-8")
    about = json.loads((search / "search.json").read_text())
    metrics = json.loads((search / "best" / "metrics.json").read_text())
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in card.splitlines()}

    assert (search / "best" / "labels.txt").read_text("utf-8").splitlines() == metrics["classes"]
    assert f"`{about['data']['fingerprint']}`" in card
    assert rows["all"] == [str(about["data"]["images"][split]) for split in ("train", "val", "test")]
    tested = {name: sum(row) for name, row in zip(metrics["classes"], metrics["confusion_matrix"], strict=True)}
    assert {name: int(rows[name][2]) for name in metrics["classes"]} == tested
    assert rows["accuracy"] == [f"{metrics[f'{split}_accuracy']:.4f}" for split in ("val", "test")]
    for name, value in metrics["parameters"].items():
        if name != "unfreeze_depth":
            assert rows[name] == [str(value)]
    assert rows["blocks of it that were trained"] == [f"{metrics['parameters']['unfreeze_depth']} of {about['blocks']}"]
    assert about["command"] in card


@pytest.mark.slow
def test_a_real_model_is_exported(search: Path) -> None:
    """What works with three layers would fail with a network, its preprocessing and its batch normalisation."""
    options = ["whole", "--to", "savedmodel", "--storage", str(search.parent)]
    program = [sys.executable, "-m", "search.export", *options]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((search / "best" / "metrics.json").read_text())

    assert metrics["exports"]["savedmodel"]["test_accuracy"] == pytest.approx(metrics["test_accuracy"])
    assert metrics["exports"]["savedmodel"]["largest_difference"] < 1e-4
