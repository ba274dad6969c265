"""The command that predicts images: every file has its row, wrong requests are refused, a table is whole or none."""

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Toy
from ended import GREYS, ended, model
from PIL import Image

from search import best, predict
from search.data import reading

HEAD = ["file", "class", "probability", "error", "p_dark", "p_light"]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, toy: Toy) -> Path:
    """Where a search has ended."""
    return ended(tmp_path_factory.mktemp("ended"), toy)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, of which one lies deeper, and what is no image."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    grey = {"night.png": 30, "more/day.jpg": 220, 'odd, "name".png': 100}
    for name, level in grey.items():
        Image.fromarray(np.full((20, 30, 3), level, "uint8")).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "more" / "captions.txt").write_text("a day")
    (tmp_path / "photos" / ".hidden.png").write_bytes(b"no")
    return tmp_path / "photos"


@pytest.fixture
def place(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `photos` and a folder that is `empty`."""
    monkeypatch.chdir(photos.parent)
    (photos.parent / "empty").mkdir()
    return photos.parent


def asked(storage: Path, *arguments: str | Path) -> int:
    """The command's exit status."""
    return predict.main([*map(str, arguments), "--storage", str(storage)])


def rows(text: str) -> dict[str, dict[str, str]]:
    """File → its row."""
    return {row["file"]: row for row in csv.DictReader(io.StringIO(text))}


def test_every_image_gets_its_class(storage: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The table lacks a file, names the wrong class, or holds what no program can read."""
    status = asked(storage, "toy", photos)
    told = capfd.readouterr()
    found = rows(told.out)

    assert status == 0
    assert told.out.splitlines()[0] == ",".join(HEAD)
    assert {name: row["class"] for name, row in found.items()} == {
        "more/day.jpg": "light",
        "night.png": "dark",
        'odd, "name".png': "dark",
    }
    for row in found.values():
        shares = {name: float(row[f"p_{name}"]) for name in ("dark", "light")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == shares[row["class"]] == max(shares.values())
        assert row["error"] == ""
    assert told.err == "predicting: 3\n"


def test_images_are_read_as_the_search_read_its_own(
    storage: Path, tmp_path: Path, toy: Toy, capfd: pytest.CaptureFixture[str]
) -> None:
    """An image with 16 bits of grey, or one that lies on its side, would be predicted from other pixels."""
    deep = Image.fromarray(np.linspace(500, 3500, 400).reshape(20, 20).astype("uint16"))
    deep.save(tmp_path / "deep.png")
    assert asked(storage, "toy", tmp_path / "deep.png") == 0
    (row,) = rows(capfd.readouterr().out).values()
    pixels = reading.pixels(deep, toy.image_size, reading.Greys(*GREYS))
    expected = np.asarray(model(toy.image_size).predict_on_batch(pixels[np.newaxis]))[0]

    assert row["file"] == "deep.png"
    assert [float(row["p_dark"]), float(row["p_light"])] == pytest.approx(expected, abs=1e-5)
    assert 0.1 < expected[1] < 0.9  # else any scaling would give the same


def test_a_file_that_cannot_be_read_has_its_row(
    storage: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One broken file among thousands would end everything, or be passed over in silence."""
    (photos / "broken.png").write_bytes((photos / "night.png").read_bytes()[:60])
    (photos / "text.jpg").write_text("no image")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    status = asked(storage, "toy", photos, "--output", photos / "table.csv")
    told, found = capfd.readouterr(), rows((photos / "table.csv").read_text("utf-8"))

    assert status == 3
    assert told.out == ""
    assert [name for name, row in found.items() if row["error"]] == ["broken.png", "gone.png", "text.jpg"]
    assert found["text.jpg"] == {**dict.fromkeys(HEAD, ""), "file": "text.jpg", "error": found["text.jpg"]["error"]}
    assert "not a PNG" in found["text.jpg"]["error"]
    assert found["night.png"]["class"] == "dark"
    assert "3 of 6 files could not be read: broken.png: " in told.err


def test_nothing_that_can_be_read_is_a_failure(
    storage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A script would take an empty table for a success."""
    (tmp_path / "text.jpg").write_text("no image")

    assert asked(storage, "toy", tmp_path / "text.jpg") == 1
    assert "1 of 1 files could not be read: text.jpg: " in capfd.readouterr().err


def test_many_images_are_predicted_in_batches(storage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where a batch ends, rows would be lost, or come in another order than their files."""
    levels = np.random.default_rng(0).integers(0, 256, 2 * predict.BATCH + 7)
    for number, level in enumerate(levels):
        Image.fromarray(np.full((4, 4), level, "uint8")).save(tmp_path / f"{number:03d}.png")
    (tmp_path / f"{predict.BATCH:03d}.png").write_bytes(b"no")
    assert asked(storage, "toy", tmp_path) == 3
    found = list(rows(capfd.readouterr().out).values())

    assert [row["file"] for row in found] == [f"{number:03d}.png" for number in range(len(levels))]
    for level, row in zip(levels, found, strict=True):
        if not row["error"]:
            assert row["class"] == ("light" if level > 127 else "dark")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tyo", "photos"], ["unknown search 'tyo'; did you mean 'toy'?"]),
        (["toy", "nowhere"], ["nowhere: there is no such folder or file"]),
        (["toy", "empty"], ["empty: there are no image files in this folder"]),
        (["toy", "photos", "--output", "gone/table.csv"], ["--output ", "there is no folder "]),
        (["toy", "photos", "--output", "empty"], ["not a file"]),
        (
            ["nix", "empty", "--output", "gone/x.csv"],
            ["3 faults", "unknown search 'nix'", "no image files", "--output "],
        ),
    ],
)
def test_a_wrong_request_names_every_fault(
    arguments: list[str], said: list[str], storage: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user would mend one fault after another, and find files that a refused command has left."""
    before = sorted(place.rglob("*"))
    status = asked(storage, *arguments)
    told = capfd.readouterr()

    assert (status, told.out) == (2, "")
    for part in said:
        assert part in told.err
    assert sorted(place.rglob("*")) == before


def test_a_search_without_a_model_says_how_to_go_on(
    tmp_path: Path, toy: Toy, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user would not know that the search has to end first."""
    storage = ended(tmp_path, toy, status="interrupted")
    (storage / "toy" / "best" / "model.keras").unlink()

    assert asked(storage, "toy", photos) == 2
    said = capfd.readouterr().err
    assert "has no model yet: it is interrupted" in said
    assert "python -m search.run --resume toy" in said
    (storage / "toy" / "search.json").write_text("{")
    assert asked(storage, "toy", photos) == 1
    assert "cannot be read" in capfd.readouterr().err


def test_a_damaged_model_is_told(tmp_path: Path, toy: Toy, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A traceback of Keras would be all, and a table half written."""
    storage = ended(tmp_path, toy)
    path = storage / "toy" / "best" / "model.keras"
    path.write_bytes(path.read_bytes()[:2000])

    assert asked(storage, "toy", photos, "--output", tmp_path / "table.csv") == 1
    said = capfd.readouterr().err
    assert said.startswith(f"error: {path} cannot be loaded: ")
    assert "Keras" in said
    assert not [*tmp_path.glob("table*")]


def test_a_model_that_needs_own_code_says_so(
    tmp_path: Path, toy: Toy, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The user of an own head would meet an error of Keras that names no way out."""
    storage = ended(tmp_path, toy)
    path = storage / "toy" / "best" / "metrics.json"
    path.write_text(path.read_text().replace('"classes"', '"custom_objects": ["Scale"], "classes"'))

    assert asked(storage, "toy", photos) == 2
    assert "give keras.models.load_model your own Scale as custom_objects" in capfd.readouterr().err


@pytest.mark.slow
def test_a_full_disk_and_a_reader_that_leaves(storage: Path, photos: Path) -> None:
    """A table that lacks rows would count as done, or `head` be answered with a traceback."""
    command = [sys.executable, "-m", "search.predict", "toy", str(photos), "--storage", str(storage)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    with os.fdopen(writing_end, "wb") as closed:
        left = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 1
    assert "the table cannot be written: OSError: [Errno 28]" in done.stderr
    assert (left.returncode, left.stderr) == (0, "predicting: 3\n")


@pytest.mark.parametrize(
    ("task", "head", "cells"),
    [
        ("classification", HEAD, ["light", "0.7", "", "0.3", "0.7"]),
        ("multilabel", ["file", "labels", "error", "p_dark", "p_light"], ["dark|light", "", "0.3", "0.7"]),
        ("regression", ["file", "error", "predicted_dark", "predicted_light"], ["", "0.3", "0.7"]),
    ],
)
def test_the_table_says_what_is_predicted(task: str, head: list[str], cells: list[str], storage: Path) -> None:
    """Several labels would be told as one class, or a number as a probability."""
    found = best.find(str(storage), "toy")
    labels = [{"label": name, "threshold": at} for name, at in (("dark", 0.2), ("light", 0.6))]
    changes = {"task": task, **({"labels": labels} if task == "multilabel" else {})}
    found = replace(found, metrics={**found.metrics, **changes})

    assert predict.columns(found) == head
    assert predict.cells(found, np.array([0.3, 0.7])) == cells
    assert predict.cells(found, "gone") == ["gone" if name == "error" else "" for name in head[1:]]
