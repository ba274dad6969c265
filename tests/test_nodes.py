"""What a node of a cluster is asked before the first trial; `tests/test_launch.py` asks real machines."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from search.data import store
from search.data.settings import DataSettings
from search.machine import versions
from search.request.requirements import Answer, Question, differences, digest, look
from search.request.resources import Resources


@pytest.fixture
def question(tmp_path: Path) -> Question:
    """What a node is asked that is as it should be."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "mark").write_text("mark")
    for name, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), (grey, grey, index)).save(tmp_path / "photos" / name / f"{index}.png")
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"weights")
    return Question(
        mark=tmp_path / "storage" / "mark",
        uri="",
        source=str(tmp_path / "photos"),
        seed=0,
        max_bad_files=0.0,
        settings=DataSettings(cache=tmp_path / "cache"),
        fingerprint=store.find(str(tmp_path / "photos"), seed=0, max_bad_files=0.0).fingerprint,
        files={str(weights): digest(weights)},
        cache=tmp_path / "cache",
        bytes=1 << 20,
        gpus=False,
        versions=versions(),
    )


def test_a_node_that_is_as_it_should_be(question: Question) -> None:
    """A good node is refused; or the driver cannot see that the storage is one."""
    assert look(question, "the-node", gpus=0) == Answer([], stored=True)
    assert question.mark.with_name("the-node").exists()


def not_shared(question: Question) -> Question:
    """The storage is a folder of its own."""
    return replace(question, mark=question.mark.with_name("elsewhere") / "mark")


def other_images(question: Question) -> Question:
    """One image more."""
    Image.new("RGB", (8, 8)).save(Path(question.source) / "dark" / "one-more.png")
    return question


def no_images(question: Question) -> Question:
    """The folder is not there."""
    return replace(question, source=question.source + "-gone")


def other_weights(question: Question) -> Question:
    """The file has other content."""
    Path(next(iter(question.files))).write_bytes(b"other weights")
    return question


def no_weights(question: Question) -> Question:
    """The file is not there."""
    Path(next(iter(question.files))).unlink()
    return question


def no_folder(question: Question) -> Question:
    """A file where the cache should be."""
    question.cache.write_text("a file")
    return question


def no_room(question: Question) -> Question:
    """More than any disk has."""
    return replace(question, bytes=1 << 60)


FAULTS = {
    not_shared: "is not the shared folder there",
    other_images: "other images there than here",
    no_images: "there is no such folder",
    other_weights: "is another file there than here",
    no_weights: "cannot be read there",
    no_folder: "is not a folder",
    no_room: "MiB free",
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS])
def test_a_fault_is_named(question: Question, fault: Any, said: str) -> None:
    """It shows itself in the first trial, or as a result that is wrong."""
    (found,) = look(fault(question), "the-node", gpus=0).faults

    assert said in found


def test_all_faults_are_named_at_once(question: Question) -> None:
    """A cluster is mended fault by fault, with a start between each two."""
    for fault in FAULTS:
        if fault not in (no_images, no_weights, no_room):
            question = fault(question)

    assert len(look(question, "the-node", gpus=0).faults) == 4


@pytest.mark.slow
def test_gpus_that_tensorflow_does_not_see(question: Question) -> None:
    """Trials run on the CPU of a GPU machine for days. No test machine has seven."""
    (found,) = look(replace(question, gpus=True), "the-node", gpus=7).faults

    assert "Ray has 7 GPUs there, TensorFlow sees" in found


def test_another_version_names_both() -> None:
    """Numbers differ from node to node, and nobody sees why."""
    here = {**versions(), "ray": "2.59.0", "keras-hub": "1.0"}
    found = differences(here)

    assert len(found) == 2
    assert f"ray is {versions()['ray']} there, 2.59.0 here" in found[0]
    assert "keras-hub is not installed there" in found[1]


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "expected"),
    [
        ({"CPU": 8}, 1, 0, 8),
        ({"CPU": 8}, 3, 0, 2),
        ({}, 1, 0, 0),
        ({"CPU": 8, "GPU": 2}, 1, 1, 2),
        ({"CPU": 8, "GPU": 2}, 1, 0.5, 4),
        ({"CPU": 8, "GPU": 2}, 1, 0.4, 4),
        ({"CPU": 2, "GPU": 4}, 1, 1, 2),
        ({"CPU": 8, "GPU": 5}, 1, 2, 2),
        ({"CPU": 8}, 1, 1, 0),
    ],
)
def test_room_for_trials_on_a_node(resources: Mapping[str, float], cpus: float, gpus: float, expected: int) -> None:
    """A trial waits for ever for a share of two GPUs, or of two machines."""
    asked = Resources(cpus=1, gpus=0, cpus_per_trial=cpus, gpus_per_trial=gpus)

    assert asked.room(resources) == expected
