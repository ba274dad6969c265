"""Whole searches by the real command: a real local Ray, a real TensorBoard over HTTP, real processes killed."""

import contextlib
import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from boards import tensorboard
from optuna.trial import TrialState
from PIL import Image
from searches import (
    ONE_BY_ONE,
    PATIENCE_S,
    command,
    in_the_middle,
    long_space,
    rows,
    run,
    running,
    study,
    uneven_space,
    wait_for,
)

from search.components.stopping.finish import BEST
from search.driver import tune
from search.record import record, states
from search.space import Budget, Float, Space

pytestmark = pytest.mark.slow


def validation_accuracy(group: dict[str, Any]) -> float | None:
    """The value of Keras's validation accuracy in a session group."""
    for metric in group["metricValues"]:
        if metric["name"] == {"group": "validation", "tag": "epoch_accuracy"}:
            return float(metric["value"])
    return None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[dict[str, Any]]]:
    """A whole search; what it printed; and the session groups that TensorBoard showed while it was running."""
    folder = tmp_path_factory.mktemp("search")
    search = folder / "results" / "whole"
    options = ["--space", "smoke", "--name", "whole", "--trials", "6", "--epochs", "3"]
    with tensorboard(search / "tensorboard") as board, contextlib.ExitStack() as stack:
        wait_for(board.listens, board.process)  # it starts slowly, and a search may soon be over
        process = stack.enter_context(running(folder, *options))

        def live() -> list[dict[str, Any]] | None:
            groups = board.session_groups() or []
            return groups if any(validation_accuracy(group) is not None for group in groups) else None

        seen = wait_for(live, process)
        assert process.poll() is None, "the search was over before TensorBoard showed a trial"
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert errors == ""
    return search, output, seen


def test_every_trial_has_one_row(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """A trial is missing in the record, or its ending is not told."""
    found = rows(finished[0])

    assert [row["trial"] for row in found] == [f"{number:04d}" for number in range(6)]
    assert {row["state"] for row in found} <= {"completed", "stopped"}
    assert all(row["reason"] for row in found)
    assert all(bool(row["momentum"]) == (row["optimizer"] == "sgd") for row in found)
    assert json.loads((finished[0] / "search.json").read_text())["status"] == "done"


def test_optuna_hears_the_truth(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """The study that optuna-dashboard reads says something else than the record."""
    states = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}

    for row, trial in zip(rows(finished[0]), study(finished[0]).trials, strict=True):
        assert trial.state == states[row["state"]]
        assert trial.last_step == int(row["epochs"])
        assert trial.value == pytest.approx(float(row["val_accuracy"]))


MANY_KINDS = """
from search.space import Budget, Choice, Depth, Space

OPTIMIZERS = ["adam", "adamw", "sgd", "rmsprop", "nadam", "lion"]
KINDS = [(0, optimizer) for optimizer in OPTIMIZERS] + [(1, optimizer) for optimizer in OPTIMIZERS[:5]]
space = Space(
    search={"unfreeze_depth": Depth(0, 1), "optimizer": Choice(OPTIMIZERS)},
    start=[{"unfreeze_depth": depth, "optimizer": optimizer} for depth, optimizer in KINDS],
    budget=Budget(trials=len(KINDS), epochs=1, first_rung=1),
)
"""


@pytest.mark.usefixtures("cached")
def test_a_process_is_replaced_before_it_grows(tmp_path: Path) -> None:
    """A process keeps every network it ever compiled, until the memory of the machine is full."""
    (tmp_path / "kinds.py").write_text(MANY_KINDS)
    done = run(tmp_path, "--space", str(tmp_path / "kinds.py"), "--name", "kinds", "--max-concurrent", "1")
    assert done.returncode == 0, done.stderr
    events, _ = record.History(tmp_path / "results" / "kinds" / "history.jsonl").read()
    last = {event["trial"]: event["process"] for event in events if event["event"] == "epoch"}
    processes = [last[trial] for trial in sorted(last)]

    assert len(set(processes[:9])) == len(set(processes[9:])) == 1
    assert processes[0] != processes[9]


def test_tensorboard_while_running(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """HParams shows nothing until the search is over."""
    assert finished[2]
    assert all("learning_rate" in group["hparams"] for group in finished[2])


def test_tensorboard_afterwards(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """HParams misses a trial, a column or the validation accuracy, or shows a parameter that does not apply."""
    search = finished[0]
    with tensorboard(search / "tensorboard") as board:
        groups = wait_for(lambda: g if len(g := board.session_groups() or []) == 6 else None)
        wait_for(lambda: all(validation_accuracy(g) is not None for g in board.session_groups() or []) or None)
        groups = board.session_groups() or []
        experiment = board.ask("experiment")

    assert [group["name"] for group in groups] == [f"{row['trial']} {search.name}" for row in rows(search)]
    assert {info["name"] for info in experiment["hparamInfos"]} == {
        "unfreeze_depth",
        "learning_rate",
        "optimizer",
        "momentum",
    }
    assert {"group": "validation", "tag": "epoch_accuracy"} in [info["name"] for info in experiment["metricInfos"]]
    for group in groups:
        assert ("momentum" in group["hparams"]) == (group["hparams"]["optimizer"] == "sgd")
        assert isinstance(group["hparams"].get("momentum", 0.0), float)
        assert [session["status"] for session in group["sessions"]] == ["STATUS_SUCCESS"]


def test_the_winner(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """The exported trial is not the best one, or its figures do not fit together."""
    search = finished[0]
    metrics = json.loads((search / "best" / "metrics.json").read_text())
    split = json.loads((search / "best" / "split.json").read_text())
    confusion = np.array(metrics["confusion_matrix"])

    assert metrics["val_accuracy"] == max(float(row["val_accuracy"]) for row in rows(search))
    assert metrics["test_accuracy"] == np.trace(confusion) / confusion.sum()
    assert confusion.sum() == len(split["test"])
    assert metrics["recall"] == pytest.approx(np.diag(confusion) / confusion.sum(axis=1))
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(metrics["recall"]))
    assert f"balanced over the classes {metrics['balanced_accuracy']:.4f}" in finished[1]
    assert not set(split["train"]) & set(split["test"])


def test_the_best_trials_are_shown(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """Pictures are those of other trials, or of the winner's weights under another's name."""
    best = sorted(rows(finished[0]), key=lambda row: (-float(row["val_accuracy"]), float(row["val_loss"])))
    shown = {path.parents[1].name: path for path in (finished[0] / "tensorboard").glob("*/best/labels.tsv")}

    assert {name[:4] for name in shown} == {row["trial"] for row in best[:3]}
    assert len({row["val_accuracy"] for row in best[:3]}) > 1, "they cannot be told apart"
    for name, path in shown.items():
        with path.open(newline="") as file:
            answers = [line["correct"] for line in csv.DictReader(file, dialect="excel-tab")]
        (accuracy,) = [float(row["val_accuracy"]) for row in best if row["trial"] == name[:4]]
        assert answers.count("yes") / len(answers) == pytest.approx(accuracy)


def test_what_the_user_sees(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """A trial ends unseen, the end does not say where things lie, or a library talks in between."""
    search, output, _ = finished
    lines = [line for line in output.splitlines() if line]

    assert len([line for line in lines if "/6  trial " in line]) == 6
    for text in ("Leaderboard", "test accuracy", "tensorboard --logdir", "search.report whole", str(search / "best")):
        assert text in output
    assert "computing features: 899" in lines
    for chatter in ("ray", "WARNING", "tensorflow"):
        assert not [line for line in lines if line.lower().startswith(chatter.lower())]


def test_report(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """The report cannot be made from the record."""
    asked = [sys.executable, "-m", "search.report", "whole", "--storage", str(finished[0].parent)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Leaderboard" in done.stdout
    assert "Where does the model fail?" in (finished[0] / "report.html").read_text()


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The storage of two searches with one seed, one trial at a time; what one printed, what a terminal showed."""
    folder = tmp_path_factory.mktemp("twins")
    options = ["--space", "smoke", "--trials", "4", "--max-concurrent", "1", "--seed", "3"]
    first = run(folder, *options, "--name", "first")
    assert first.returncode == 0, first.stderr
    ours, theirs = pty.openpty()
    asked = command(folder, *options, "--name", "second")
    with subprocess.Popen(asked, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # what a terminal says when its last writer has gone
            while part := os.read(ours, 65536):
                seen += part
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return folder / "results", first.stdout, seen.decode()


def test_on_a_terminal(twins: tuple[Path, str, str]) -> None:
    """There is no live table, or a library's words break it."""
    _, _, shown = twins

    assert "of 4 trials ended" in shown
    assert "Leaderboard" in shown
    for chatter in ("Configuration for experiment", "Failed to fetch", "oneDNN", "Token authentication"):
        assert chatter not in shown


def test_same_seed_same_numbers(twins: tuple[Path, str, str]) -> None:
    """Two searches with one seed, one trial at a time, differ; or the second computes the features again."""
    storage, printed, shown = twins
    first, second = (
        [{name: text for name, text in row.items() if name != "seconds"} for row in rows(storage / name)]
        for name in ("first", "second")
    )

    assert "computing features" in printed
    assert "computing features" not in shown
    assert first == second


def photos(folder: Path) -> Path:
    """Two classes of 20 small JPEG and PNG photographs that can be told apart, a corrupt one, and an empty class."""
    random = np.random.default_rng(0)
    for name, colour in (("sky", (60, 120, 220)), ("grass", (60, 180, 60))):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            noise = random.integers(-40, 40, (80, 100, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.{'jpg' if number % 2 else 'png'}")
    (folder / "sky" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    (folder / "sea").mkdir()
    return folder


def test_own_folder_and_backbone(tmp_path: Path) -> None:
    """A folder of photographs with a corrupt one among them cannot be searched, or the corrupt one is not named."""
    data = str(photos(tmp_path / "photos"))
    backbone = ["--backbone", "MobileNetV2", "--weights", "none", "--set", "image_size=96"]
    done = run(tmp_path, "--space", "smoke", "--trials", "2", "--name", "own", "--data", data, *backbone, *ONE_BY_ONE)
    search = tmp_path / "results" / "own"

    assert done.returncode == 0, done.stderr
    assert "skipped sky/broken.jpg" in done.stdout
    assert "class 'sea' holds no image and is left out" in done.stdout
    assert [row["trial"] for row in rows(search)] == ["0000", "0001"]
    assert json.loads((search / "best" / "metrics.json").read_text())["classes"] == ["grass", "sky"]


ANSWERS = """
import sys
import keras, numpy as np, tensorflow as tf
model = keras.models.load_model(sys.argv[1])
images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")
model.export(sys.argv[2], verbose=False)
saved = tf.saved_model.load(sys.argv[2])
called = [answer(images) for answer in (model, saved.serve) for _ in range(2)]
answers = [*called, model.predict(images, verbose=0)]
print(max(float(abs(np.asarray(answer) - np.asarray(answers[0])).max()) for answer in answers))
"""


def test_own_backbone_with_augmentation_inside(tmp_path: Path) -> None:
    """The model that is exported answers differently each time it is called, or nobody is told what became of it."""
    import keras

    augmentation = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomContrast(0.5)])
    layers = [keras.layers.Conv2D(8, 3, strides=2), keras.layers.Dropout(0.5), keras.layers.Conv2D(8, 3, strides=2)]
    model = tmp_path / "mine.keras"
    keras.Sequential([keras.Input((32, 32, 3)), augmentation, keras.layers.Rescaling(1 / 255), *layers]).save(model)
    done = run(tmp_path, "--space", "smoke", "--trials", "2", "--name", "own", "--backbone", str(model), *ONE_BY_ONE)
    search = tmp_path / "results" / "own"
    asked = [sys.executable, "-c", ANSWERS, search / "best" / "model.keras", tmp_path / "exported"]
    answered = subprocess.run(asked, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    (note,) = json.loads((search / "search.json").read_text())["notes"]
    assert re.fullmatch(r"the backbone's augmentation is left off \(random_flip\w*, random_contrast\w*\); .*", note)
    assert note in done.stdout
    assert answered.returncode == 0, answered.stderr
    assert float(answered.stdout.splitlines()[-1]) < 1e-5


FEW = """
from search.space import Budget, Choice, Depth, Space

space = Space(
    search={"optimizer": Choice(["adam", "sgd"]), "unfreeze_depth": Depth(1, 2)},
    when={"unfreeze_depth": ("optimizer", "sgd")},
    budget=Budget(trials=5, epochs=1),
)
"""


@pytest.mark.usefixtures("cached")
def test_a_space_of_few_configurations_with_a_condition(tmp_path: Path) -> None:
    """Some configurations are run twice, or a trial fails that does not have what another one has."""
    (tmp_path / "few.py").write_text(FEW)
    done = run(tmp_path, "--space", str(tmp_path / "few.py"), "--name", "few", "--set", "confirm=1", *ONE_BY_ONE)
    search = tmp_path / "results" / "few"
    found = [(row["optimizer"], row["unfreeze_depth"]) for row in rows(search)]
    reported = [sys.executable, "-m", "search.report", "few", "--storage", str(search.parent)]

    assert done.returncode == 0, done.stderr
    assert "the space has 3 configurations, fewer than 5 trials: each is run once" in done.stdout.splitlines()
    assert sorted(found[:3]) == [("adam", ""), ("sgd", "1"), ("sgd", "2")]
    assert len(found) == 5, "one configuration is confirmed, with two other seeds"
    assert found[3] == found[4]
    assert {row["state"] for row in rows(search)} == {"completed"}
    assert subprocess.run(reported, capture_output=True, check=False).returncode == 0


def losses(search: Path, trial: str) -> dict[int, list[float]]:
    """Epoch → every validation loss that was logged for it, before an interruption and after it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    (folder,) = (search / "tensorboard").glob(f"{trial}_*/validation")
    events = EventAccumulator(str(folder), {"tensors": 0}, purge_orphaned_data=False).Reload()
    found: dict[int, list[float]] = {}
    for event in events.Tensors("epoch_loss"):
        found.setdefault(event.step + 1, []).append(float(tensor_util.make_ndarray(event.tensor_proto)))
    return found


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    """An interrupted search does not say how to go on; or, when it does, loses or repeats trials or changes curves."""
    search = tmp_path / "results" / "halved"
    with running(tmp_path, "--space", uneven_space(tmp_path, trials=4), "--name", "halved") as process:
        wait_for(lambda: in_the_middle(search), process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)
    before = {row["trial"]: row for row in rows(search) if row["state"] != "running"}
    unfinished = [row["trial"] for row in rows(search) if row["state"] == "running"]

    assert process.returncode == 130, errors
    assert "search.run --resume halved" in output
    assert unfinished
    resumed = run(tmp_path, "--resume", "halved")
    assert resumed.returncode == 0, resumed.stderr
    assert "computing features" not in resumed.stdout
    after = rows(search)
    assert [row["trial"] for row in after] == [f"{number:04d}" for number in range(4)]
    assert [row["epochs"] for row in after if row["trial"] not in before] == ["40"] * (4 - len(before))
    for row in after:
        assert before.get(row["trial"], row) == row
        curve = losses(search, row["trial"])
        assert list(curve) == list(range(1, int(row["epochs"]) + 1)), f"trial {row['trial']}"
        assert (max(map(len, curve.values())) == 1) >= (row["trial"] in before), "a trial that had ended ran again"
        for epoch, values in curve.items():
            assert values == pytest.approx([values[0]] * len(values), rel=1e-3), f"trial {row['trial']}, epoch {epoch}"
    assert not [trial for trial in study(search).trials if not trial.state.is_finished()]


OWN_SPACE = """
from search.space import Budget, Choice, Depth, Float, Space

space = Space(
    search={
        "unfreeze_depth": Depth(0, 2),
        "learning_rate": Float(1e-3, 1e2, log=True),
        "optimizer": Choice(["sgd", "adam"]),
    },
    start=[
        {"unfreeze_depth": 2, "learning_rate": 1e2, "optimizer": "sgd"},
        {"unfreeze_depth": 2, "learning_rate": 3e-3, "optimizer": "adam"},
    ],
    budget=Budget(trials=2, epochs=2),
)
"""


def test_half_precision(tmp_path: Path) -> None:
    """Networks that compute in half precision do not learn, or what they start from is not kept in half precision."""
    options = ["--trials", "2", "--set", "precision=mixed_float16", *ONE_BY_ONE]
    done = run(tmp_path, "--space", "smoke", "--name", "half", *options)
    assert done.returncode == 0, done.stderr
    kept = {np.load(path, mmap_mode="r").dtype.name for path in (tmp_path / "cache" / "features").glob("*/*.npy")}
    metrics = json.loads((tmp_path / "results" / "half" / "best" / "metrics.json").read_text())

    assert kept == {"float16", "float32"}
    assert all(float(row["val_accuracy"]) > 0.7 for row in rows(tmp_path / "results" / "half"))
    assert metrics["test_accuracy"] > 0.7


@pytest.mark.usefixtures("cached")
def test_the_best_trials_go_on(tmp_path: Path) -> None:
    """All would run longer, or none; or those that do not would be told to be stopped, and be worse for Optuna."""
    space = long_space(tmp_path, trials=6, epochs=3)
    done = run(tmp_path, "--space", space, "--name", "longer", "--set", "finish_epochs=8", *ONE_BY_ONE)
    assert done.returncode == 0, done.stderr
    search = tmp_path / "results" / "longer"
    known = rows(search)

    assert {row["epochs"] for row in known} == {"3", "8"}
    assert {(row["state"], row["reason"]) for row in known} == {("completed", "all epochs")}
    assert {trial.state for trial in study(search).trials} == {TrialState.COMPLETE}
    assert sum(row["epochs"] == "8" for row in known) >= BEST
    assert "6 trials of at most 3 epochs, the best ones of at most 8" in done.stdout + done.stderr


@pytest.mark.usefixtures("cached")
def test_diverged_trial_of_an_own_space(tmp_path: Path) -> None:
    """A configuration whose loss is no number ends the search, is left running, or wins."""
    (tmp_path / "mine.py").write_text(OWN_SPACE)
    done = run(tmp_path, "--space", str(tmp_path / "mine.py"), "--name", "mine", *ONE_BY_ONE)
    search = tmp_path / "results" / "mine"
    diverged, good = rows(search)

    assert done.returncode == 0, done.stderr
    assert (diverged["state"], good["state"]) == ("diverged", "completed")
    assert "nan" in diverged["reason"]
    assert [trial.state for trial in study(search).trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert json.loads((search / "best" / "metrics.json").read_text())["trial"] == "0001"


def test_a_bug_ends_the_search(tmp_path: Path) -> None:
    """A fault that every trial meets goes on for the whole budget, or hides its traceback."""
    import keras

    model = tmp_path / "mine.keras"
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, strides=2), keras.layers.Conv2D(8, 3)]
    keras.Sequential(layers).save(model)
    options = ["--space", "smoke", "--name", "bug", "--trials", "20", "--backbone", str(model), *ONE_BY_ONE]
    with running(tmp_path, *options) as process:
        search = tmp_path / "results" / "bug"
        wait_for(lambda: (search / "search.json").exists() or None, process)
        model.write_bytes(b"no model any more")
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 1
    assert "Traceback" in output + errors
    assert "driver.log" in output + errors
    assert 3 <= len(rows(search)) < 20
    assert json.loads((search / "search.json").read_text())["status"] == "failed"


@pytest.mark.usefixtures("cached")
def test_time_budget_that_is_too_short_for_an_epoch(tmp_path: Path) -> None:
    """The user is sent to an empty table; or each resume grants the whole time again, and ends the same."""
    first = run(tmp_path, "--space", "smoke", "--name", "short", "--time-budget", "0.01")
    search = tmp_path / "results" / "short"
    resumed = run(tmp_path, "--resume", "short")

    for done in (first, resumed):
        assert done.returncode == 1
        assert done.stderr.startswith("error: the time budget of 0.01 s was used up too soon: ")
        assert "Begin a search with a larger --time-budget" in done.stderr
    assert not [row for row in rows(search) if row["epochs"] != "0"]
    assert json.loads((search / "search.json").read_text())["status"] == "failed"
    assert record.read(search).seconds >= 0.01


def test_why_there_is_no_model(tmp_path: Path) -> None:
    """Trials that failed or diverged are put down to the time, or those that were cut off are not."""
    asked: Any = SimpleNamespace(space=Space({"dropout": Float(0, 0.5)}, Budget(trials=2, epochs=2, time_s=5)))
    cut, failed = record.Row("0000", {}, states.STOPPED), record.Row("0001", {}, states.FAILED)

    def told(late: bool, *found: record.Row) -> str:
        return tune._no_model(asked, record.Record(tmp_path, {row.trial: row for row in found}), late)

    assert told(True).startswith("the time budget of 5 s was used up too soon: no trial had begun. Begin a search with")
    assert "too soon: trials had begun (1), and none had ended its first epoch. Begin" in told(True, cut)
    table = f"no trial gave a model; {tmp_path}/trials.csv says why for each of them"
    assert told(True, cut, failed) == told(False, failed) == told(True, replace(cut, epochs=1)) == table


@pytest.mark.usefixtures("cached")
def test_time_budget(tmp_path: Path) -> None:
    """When the time is up, trials are left running in the record or in the study."""
    for seconds in (20, 40, 80):  # a slow machine does not end an epoch in the first of them
        name = f"short{seconds}"
        options = ["--space", "smoke", "--name", name, "--trials", "500", "--epochs", "50"]
        done = run(tmp_path, *options, "--time-budget", str(seconds))
        if "used up too soon" not in done.stderr:
            break
    search = tmp_path / "results" / name
    found = rows(search)

    assert done.returncode == 0, done.stderr
    assert len(found) < 500
    assert "running" not in {row["state"] for row in found}
    assert "time budget used up" in {row["reason"] for row in found}
    won = json.loads((search / "best" / "metrics.json").read_text())["val_accuracy"]
    better = [row["trial"] for row in found if row["val_accuracy"] and float(row["val_accuracy"]) > won]
    # A trial that was cut off in an epoch far longer than the one before may not have its best weights on disk.
    assert [trial for trial in better if f"trial {trial} cannot be exported" not in done.stdout] == []
    assert not [trial for trial in study(search).trials if not trial.state.is_finished()]
