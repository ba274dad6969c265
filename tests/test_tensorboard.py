"""The shared directory, as TensorBoard's own HParams page reads it: one row per trial, right while trials run."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from search.space import Budget, Choice, Depth, Float, Space
from search.space.settings import SETTINGS
from search.task.classification import METRICS
from search.trial.tensorboard import Directory, Events

SPACE = Space(
    search={
        "unfreeze_depth": Depth(),
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "optimizer": Choice(["adam", "sgd"]),
        "momentum": Float(0.8, 0.95),
    },
    when={"momentum": ("optimizer", "sgd")},
    budget=Budget(trials=4, epochs=5),
    name="toy",
).resolve(6)
SGD = {"unfreeze_depth": 2, "learning_rate": 1e-2, "optimizer": "sgd", "momentum": 0.9}
ADAM = {"unfreeze_depth": 0, "learning_rate": 1e-3, "optimizer": "adam"}
STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def ask(folder: Path, what: str, **body: Any) -> Any:
    """What the HParams plugin of a TensorBoard that was started on `folder` answers to a request of its page."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin

    runs = EventMultiplexer().AddRunsFromDirectory(str(folder))
    runs.Reload()
    plugin = HParamsPlugin(TBContext(data_provider=MultiplexerDataProvider(runs, str(folder)), logdir=str(folder)))
    response = Client(plugin.get_plugin_apps()[what]).post(json={"experimentName": "", **body})
    assert response.status_code == 200, response.text
    return json.loads(response.text)


def sessions(folder: Path) -> dict[str, dict[str, Any]]:
    """Trial and search → the one row that the page shows for it."""
    answer = ask(
        folder,
        "/session_groups",
        allowedStatuses=STATUSES,
        colParams=[{"metric": metric["name"]} for metric in ask(folder, "/experiment")["metricInfos"]],
        startIndex=0,
        sliceSize=100,
    )
    found = {group["name"]: group for group in answer["sessionGroups"]}
    assert answer["totalSize"] == len(found)
    assert all(len(group["sessions"]) == 1 for group in found.values()), "a trial has several rows"
    return found


def metrics(group: dict[str, Any]) -> dict[tuple[str, str], float]:
    """(run below the trial, tag) → the value shown."""
    return {(value["name"]["group"], value["name"]["tag"]): value["value"] for value in group["metricValues"]}


def keras_epoch(folder: Path, trial: str, epoch: int, accuracy: float, loss: float) -> None:
    """The scalars of one epoch, where Keras's callback writes them (test_trial.py shows that it does)."""
    (run,) = folder.glob(f"{trial}_*")
    with Events(run / "validation") as events:
        events.scalars({"epoch_accuracy": accuracy, "epoch_loss": loss}, epoch)


@dataclass(frozen=True)
class Shown:
    """What the page shows of four trials: its columns, its rows while all of them run, and once three are over."""

    experiment: dict[str, Any]
    running: dict[str, dict[str, Any]]
    over: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Trials 0000 and 0001 succeed, 0002 fails, 0003 goes on."""
    folder = tmp_path_factory.mktemp("results") / "toy" / "tensorboard"
    directory = Directory(folder)
    directory.declare(SPACE)
    for trial, parameters in (("0000", SGD), ("0001", ADAM), ("0002", SGD), ("0003", ADAM)):
        directory.start(trial, parameters)
        directory.best(trial, {"val_accuracy": 0.5, "val_loss": 0.75}, 1)
        keras_epoch(folder, trial, 0, 0.5, 0.75)
    for epoch, accuracy in ((1, 0.875), (2, 0.625)):
        keras_epoch(folder, "0000", epoch, accuracy, 1 - accuracy)
        directory.best("0000", {"val_accuracy": 0.875, "val_loss": 0.125}, epoch + 1)
    experiment, running = ask(folder, "/experiment"), sessions(folder)
    directory.end("0000", succeeded=True)
    directory.end("0001", succeeded=True)
    directory.end("0002", succeeded=False)
    over = sessions(folder)
    directory.end("0003", succeeded=True)
    running, over = ({name.removesuffix(" toy"): row for name, row in rows.items()} for rows in (running, over))
    return Shown(experiment, running, over)


def test_every_trial_is_one_row(shown: Shown) -> None:
    """Trials would be missing, or each run of a trial be a row of its own."""
    assert sorted(shown.running) == sorted(shown.over) == ["0000", "0001", "0002", "0003"]


def test_columns_and_their_domains_are_those_of_the_space(shown: Shown) -> None:
    """The page could not filter by range, or show the columns of whichever trial came first."""
    columns = {column["name"]: column for column in shown.experiment["hparamInfos"]}

    assert set(columns) == set(SPACE.search)
    assert columns["unfreeze_depth"]["domainInterval"] == {"minValue": 0.0, "maxValue": 6.0}
    assert columns["learning_rate"]["domainInterval"] == {"minValue": 1e-4, "maxValue": 1e-1}
    assert columns["momentum"]["domainInterval"] == {"minValue": 0.8, "maxValue": 0.95}
    assert columns["optimizer"]["domainDiscrete"] == ["adam", "sgd"]
    numeric = {name for name, column in columns.items() if column["type"] == "DATA_TYPE_FLOAT64"}
    assert numeric == {"unfreeze_depth", "learning_rate", "momentum"}
    assert columns["unfreeze_depth"]["description"] == SETTINGS["unfreeze_depth"].meaning


def test_a_parameter_that_does_not_apply_is_absent(shown: Shown) -> None:
    """A `None` would turn the column to text, which cannot be sorted (tensorboard issue 3597)."""
    rows = {trial: group["hparams"] for trial, group in shown.running.items()}

    assert rows == {"0000": SGD, "0001": ADAM, "0002": SGD, "0003": ADAM}
    assert isinstance(rows["0000"]["momentum"], float)


def test_validation_figures_are_metrics(shown: Shown) -> None:
    """The page would compare training accuracies, or none."""
    offered = {(m["name"].get("group", ""), m["name"]["tag"]) for m in shown.experiment["metricInfos"]}

    assert offered == {
        *(("", f"best/{name}") for name in METRICS),
        ("validation", "epoch_accuracy"),
        ("validation", "epoch_loss"),
    }


def test_figures_are_there_while_a_trial_runs(shown: Shown) -> None:
    """Nothing could be compared until the trials are over, or the last epoch pass for the best."""
    assert metrics(shown.running["0000"]) == {
        ("", "best/val_accuracy"): 0.875,
        ("", "best/val_loss"): 0.125,
        ("validation", "epoch_accuracy"): 0.625,
        ("validation", "epoch_loss"): 0.375,
    }
    assert metrics(shown.running["0003"])["", "best/val_accuracy"] == 0.5


def test_the_status_follows_the_trial(shown: Shown) -> None:
    """A trial that is over would seem to run for ever, or a failed one to have succeeded."""

    def statuses(groups: dict[str, dict[str, Any]]) -> list[str]:
        return [group["sessions"][0]["status"] for _, group in sorted(groups.items())]

    # "unknown" is what TensorBoard calls a session without an end; a record that says "running" could not be changed.
    assert statuses(shown.running) == ["STATUS_UNKNOWN"] * 4
    assert statuses(shown.over) == ["STATUS_SUCCESS", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN"]


def test_the_steps_are_those_of_keras(shown: Shown) -> None:
    """The best value would be drawn an epoch beside the curve it belongs to."""
    steps = {
        value["name"]["tag"]: value["trainingStep"]
        for value in shown.over["0000"]["sessions"][0]["metricValues"]
        if value["name"]["tag"] in ("best/val_accuracy", "epoch_accuracy")
    }

    assert steps == {"best/val_accuracy": 2, "epoch_accuracy": 2}


def test_a_trial_that_goes_on_after_a_resume_is_still_one_row(tmp_path: Path) -> None:
    """A resumed trial would be two rows, or keep the status of its interruption."""
    Directory(tmp_path).declare(SPACE)
    for last in (False, True):
        directory = Directory(tmp_path)
        directory.start("0000", SGD)
        directory.best("0000", {"val_accuracy": 0.75 if last else 0.5, "val_loss": 0.5}, 2 if last else 1)
        if last:
            directory.end("0000", succeeded=True)
        else:
            directory._sessions["0000"].close()
    (row,) = sessions(tmp_path).values()

    assert row["hparams"] == SGD
    assert row["sessions"][0]["status"] == "STATUS_SUCCESS"
    assert metrics(row)["", "best/val_accuracy"] == 0.75


def test_searches_side_by_side(tmp_path: Path) -> None:
    """Trials of one number are one row, with the mean of what different searches found."""
    for name, accuracy in (("first", 0.5), ("second", 0.75)):
        directory = Directory(tmp_path / name / "tensorboard")
        directory.declare(SPACE)
        directory.start("0000", ADAM)
        directory.best("0000", {"val_accuracy": accuracy, "val_loss": 0.5}, 1)
        directory.end("0000", succeeded=True)
    found = {row: metrics(group)["", "best/val_accuracy"] for row, group in sessions(tmp_path).items()}

    assert found == {"0000 first": 0.5, "0000 second": 0.75}


def test_an_unresolved_depth_has_no_column(tmp_path: Path) -> None:
    """A space that was never resolved would be declared with a column without a range."""
    space = Space(search={"unfreeze_depth": Depth()}, budget=SPACE.budget)

    with pytest.raises(TypeError, match=r"unfreeze_depth: .* is not resolved"):
        Directory(tmp_path).declare(space)


def test_tensorflow_is_not_imported() -> None:
    """The driver would take seconds longer to start, and memory of a GPU that its trials need."""
    code = "import sys, search.trial.tensorboard; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said.strip() == "False False"


def test_an_epoch_that_is_trained_again_is_shown_once(tmp_path: Path) -> None:
    """After a trial's process was killed its curves would go back and run twice."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    def train(first: int, last: int) -> None:
        with Events(tmp_path) as events:
            for step in range(first, last):
                events.scalars({"epoch_loss": float(step)}, step)

    train(0, 5)
    with Events(tmp_path) as events:
        events.forget(3)
    train(3, 7)
    read = EventAccumulator(str(tmp_path))
    read.Reload()

    assert [event.step for event in read.Tensors("epoch_loss")] == list(range(7))
