"""Going on with a search whose images, backbone or space lie elsewhere now, or are no longer what they were."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from searches import ONE_BY_ONE, rows, run, running, wait_for

from search import run as command
from search.components.stopping import RULES
from search.driver import resume
from search.errors import RequestError
from search.record import record
from search.request import request
from search.space import Objective, spacefile

ABOUT: dict[str, Any] = {
    "space": {"name": "mine", "search": {"dropout": "FloatDistribution(0, 0.5)"}, "budget": {"trials": 4}},
    "settings": {"data": "/old/photos", "backbone": "/old/mine.keras", "weights": "own", "batch_size": 32},
    "files": {"backbone": "a" * 64},
    "seed": 0,
    "data": {"fingerprint": "f" * 64},
}


def again(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is wrong with going on, where the record says `then` of what was asked, and the request is `now`."""
    record.write_json(folder / "search.json", {"status": "interrupted", **then})
    try:
        resume.record(folder, now)
    except RequestError as error:
        return error.faults
    return []


def changed(part: str, **changes: Any) -> dict[str, Any]:
    """The request with some fields of one part changed."""
    return {**ABOUT, part: {**ABOUT[part], **changes}}


def test_what_lies_elsewhere_is_the_same(tmp_path: Path) -> None:
    """A search could not go on once its disk is called something else."""
    moved = changed("settings", data="/new/photos", backbone="/new/mine.keras")

    assert again(tmp_path, ABOUT, ABOUT) == again(tmp_path, ABOUT, moved) == []


def test_a_setting_that_an_older_version_did_not_know_has_its_default(tmp_path: Path) -> None:
    """No search that an older version began goes on any more, for each new setting is a difference."""
    told = ["settings: folders was 'auto', and is 'classes' now"]

    assert again(tmp_path, ABOUT, changed("settings", folders="auto")) == []
    assert again(tmp_path, ABOUT, changed("settings", folders="classes")) == told


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({**ABOUT, "seed": 1}, "seed was 0, and is 1 now"),
        (changed("settings", batch_size=64), "settings: batch_size was 32, and is 64 now"),
        (changed("space", budget={"trials": 5}), "space: budget was {'trials': 4}, and is {'trials': 5} now"),
        (
            {**changed("settings", data="/new/photos"), "data": {"fingerprint": "e" * 64}},
            "data: the images of /new/photos are not those of /old/photos when the search began",
        ),
        (
            {**ABOUT, "data": {"fingerprint": "e" * 64}},
            "data: the images of /old/photos are not those of /old/photos when the search began",
        ),
        (
            changed("files", backbone="b" * 64),
            "backbone: /old/mine.keras is not what /old/mine.keras was when the search began",
        ),
        (
            {**changed("settings", backbone="tiny"), "files": {}},
            "backbone: tiny is not what /old/mine.keras was when the search began",
        ),
        (changed("settings", weights="none"), "weights: none is not what own was when the search began"),
    ],
)
def test_what_has_changed_is_named(tmp_path: Path, now: dict[str, Any], told: str) -> None:
    """A search goes on as another one, or the user must find the difference in two long lines."""
    assert again(tmp_path, ABOUT, now) == [told]


def test_a_record_that_does_not_say_what_was_in_a_file(tmp_path: Path) -> None:
    """A search that an older version began goes on with any file, or not at all."""
    old = {name: value for name, value in ABOUT.items() if name != "files"}
    told = "backbone: /new/mine.keras is not known to be what /old/mine.keras was when the search began"

    assert again(tmp_path, old, ABOUT) == []
    assert again(tmp_path, old, changed("settings", backbone="/new/mine.keras")) == [told]


def test_all_that_is_gone_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user is told of one thing that has moved after the other, or not how to say where it is."""
    parser, search = command.parser(), tmp_path / "old"
    search.mkdir()
    lost = {name: f"{tmp_path}/lost/{name}" for name in ("data", "backbone", "weights")} | {"space": "lost.py"}
    asked = vars(parser.parse_args([f"--{name}={place}" for name, place in lost.items()]))
    record.write_json(search / "search.json", {**ABOUT, "status": "failed", "settings": lost, "options": asked})

    assert command.main(["--resume", "old", "--storage", str(tmp_path), "--epochs", "3"]) == 2
    head, *faults = capsys.readouterr().err.splitlines()
    assert head == "error: 5 faults:"
    assert "  --epochs cannot be given with --resume: a search goes on as it was" in faults
    for name, place in lost.items():
        told = f"{place}, its {name}, is not there any more; say where it is now with --{name}"
        assert f"  --resume old: {told}" in faults
    found = [f"--{name}={tmp_path}" for name in ("data", "backbone", "weights")]
    given = parser.parse_args(["--resume", "old", "--storage", str(tmp_path), "--space", f"{tmp_path}/new.py", *found])
    options: argparse.Namespace = resume.options(given, parser.parse_args([]))
    assert (options.data, options.backbone, options.space) == (str(tmp_path), str(tmp_path), f"{tmp_path}/new.py")


@pytest.mark.parametrize(
    ("saved", "rule"), [({}, "asha"), ({"stopping": "asha"}, "asha"), ({"stopping": "none"}, "none")]
)
def test_a_search_goes_on_with_the_rule_that_it_began_with(tmp_path: Path, saved: dict[str, str], rule: str) -> None:
    """An older search would stop its trials by today's default rule, or not go on at all."""
    parser, folder = command.parser(), tmp_path / "old"
    folder.mkdir()
    settings = {"data": "digits", "backbone": "tiny", "weights": "own", **saved}
    asked = {**ABOUT, "settings": settings, "options": vars(parser.parse_args(["--set", "confirm=2"]))}
    record.write_json(folder / "search.json", {"status": "interrupted", **asked})
    given = parser.parse_args(["--resume", "old", "--storage", str(tmp_path)])
    options = resume.options(given, parser.parse_args([]))

    assert options.set == ["confirm=2", f"stopping={rule}"]
    record.write_json(folder / "search.json", {"status": "interrupted", **asked, "options": vars(options)})
    assert resume.options(given, parser.parse_args([])).set == options.set
    assert request.check(options).rule.rungs == RULES[rule].build(spacefile.load("finetune").budget, Objective()).rungs
    assert again(folder, asked, {**asked, "settings": {**settings, "stopping": rule}}) == []
    (told,) = again(folder, asked, {**asked, "settings": {**settings, "stopping": "trend"}})
    assert told == f"settings: stopping was '{rule}', and is 'trend' now"


def test_components_of_a_space_are_those_that_it_began_with(tmp_path: Path) -> None:
    """Half of the trials would have another head than the others, by the same name."""
    space = ABOUT["space"] if isinstance(ABOUT["space"], dict) else {}
    then, now = ({**ABOUT, "space": {**space, "own": f"a\nwidth = {width}\nb\n"}} for width in (8, 16))

    assert again(tmp_path, then, then) == []
    (told,) = again(tmp_path, then, now)
    assert told.startswith("the space file has components of its own, and is another one now:")
    assert "-width = 8\n    +width = 16\n" in told


SPACE = """
from search.space import Budget, Float, Space

space = Space(search={"learning_rate": Float(1e-3, 1e-2, log=True)}, budget=Budget(2, 2, first_rung=2))
"""


def make(folder: Path) -> list[str]:
    """Images, a backbone and a space in a folder; the options that name them."""
    import keras

    random = np.random.default_rng(0)
    for name, grey in (("dark", 60), ("light", 190)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(random.normal(grey, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    layers = [keras.layers.Conv2D(4, 3, strides=2), keras.layers.Conv2D(8, 3)]
    keras.Sequential([keras.Input((16, 16, 3)), *layers]).save(folder / "mine.keras")
    (folder / "mine.py").write_text(SPACE)
    return named(folder)


def named(folder: Path) -> list[str]:
    """The options that name what `make` made."""
    return ["--space", f"{folder}/mine.py", "--data", f"{folder}/photos", "--backbone", f"{folder}/mine.keras"]


@pytest.mark.slow
def test_a_search_goes_on_after_everything_was_moved(tmp_path: Path) -> None:
    """The search cannot go on, goes on with other images or another network, or its record tells the old places."""
    old, new, search = tmp_path / "old", tmp_path / "new", tmp_path / "results" / "moved"
    with running(tmp_path, *make(old), "--name", "moved", *ONE_BY_ONE) as process:
        wait_for(lambda: (search / "search.json").exists() or None, process)
        process.kill()
        process.wait()
    old.rename(new)
    unsaid = run(tmp_path, "--resume", "moved")
    shutil.copytree(new, tmp_path / "other")
    Image.new("RGB", (16, 16)).save(tmp_path / "other" / "photos" / "dark" / "0.png")
    make(tmp_path / "mine")
    other = [*named(new)[:2], *named(tmp_path / "other")[2:4], *named(tmp_path / "mine")[4:]]
    refused = run(tmp_path, "--resume", "moved", *other)
    done = run(tmp_path, "--resume", "moved", *named(new))
    about = json.loads((search / "search.json").read_text())

    assert (unsaid.returncode, refused.returncode) == (2, 2)
    assert unsaid.stderr.count("is not there any more; say where it is now with --") == 3
    assert refused.stderr.splitlines() == [
        "error: --resume moved has 2 faults:",
        f"  backbone: {tmp_path}/mine/mine.keras is not what {old}/mine.keras was when the search began",
        f"  data: the images of {tmp_path}/other/photos are not those of {old}/photos when the search began",
    ]
    assert done.returncode == 0, done.stderr
    assert [row["state"] for row in rows(search)] == ["completed"] * 2
    assert (about["settings"]["data"], about["settings"]["backbone"]) == (f"{new}/photos", f"{new}/mine.keras")
    assert [about["options"][name] for name in ("space", "data", "backbone")] == named(new)[1::2]
    assert json.loads((search / "best" / "split.json").read_text())["data"] == f"{new}/photos"


OLDER = Path(__file__).with_name("older")


def test_endings_of_an_older_version(tmp_path: Path) -> None:
    """A search that an older version began would have trials for ever running, or without a reason."""
    endings = {
        "": ("running", ""),
        "all epochs": ("completed", "all epochs"),
        "converged": ("completed", "converged"),
        "diverged: loss is nan in epoch 1": ("diverged", "loss is nan in epoch 1"),
    }
    told = record.Record(tmp_path)
    metrics = {"epoch": 1, "objective": 0.5, "best_epoch": 1, "val_accuracy": 0.5, "val_loss": 1.0, "seconds": 1.0}
    for trial, ending in enumerate(endings):
        told.note({"event": "started", "trial": f"{trial}", "at": 0.0, "parameters": {}})
        told.note({"event": "epoch", "trial": f"{trial}", "at": 1.0, "metrics": {**metrics, "ending": ending}})
    assert [(row.state, row.reason) for row in record.read(tmp_path).rows.values()] == list(endings.values())


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_search_that_an_older_version_began(tmp_path: Path) -> None:
    """An upgrade in the middle of a long search would lose it.

    `tests/older` holds one as it was when it was interrupted, with one trial at its end and one at epoch 10.
    """
    folder = tmp_path / "results" / "older"
    shutil.copytree(OLDER / "search", folder)
    first, second = rows(folder)
    done = run(tmp_path, "--resume", "older", "--space", str(OLDER / "space.py"))
    assert done.returncode == 0, done.stderr
    found = rows(folder)
    assert [row["state"] for row in found] == ["completed"] * 3
    assert {name: found[0][name] for name in first} == first
    assert (second["epochs"], found[1]["epochs"]) == ("10", "60")
    epochs = [
        event["metrics"]["epoch"]
        for line in (folder / "history.jsonl").read_text().splitlines()
        if (event := json.loads(line))["event"] == "epoch" and event["trial"] == "0001"
    ]
    assert sorted(set(epochs)) == list(range(1, 61)), "it began anew, or left epochs out"
    assert (folder / "best" / "model.keras").exists()
