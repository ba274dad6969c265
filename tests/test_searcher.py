"""The searcher: what it proposes, what it tells Optuna, and that the journal and a restart hold the same."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search.components.samplers import SAMPLERS
from search.driver.searcher import Searcher
from search.record import record
from search.setting import Value
from search.space import Budget, Choice, Depth, Float, Int, Objective, Space

START: list[dict[str, Value]] = [
    {"unfreeze_depth": "half", "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.9, "batch_size": 32},
    {"unfreeze_depth": 0, "learning_rate": 0.001, "optimizer": "adam", "batch_size": 16},
]
DECLARED = Space(
    search={
        "unfreeze_depth": Depth(),
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "optimizer": Choice(["adam", "sgd"]),
        "momentum": Float(0.8, 0.95),
        "batch_size": Int(16, 64, step=16),
    },
    when={"momentum": ("optimizer", "sgd")},
    start=START,
    budget=Budget(trials=4, epochs=5),
    name="toy",
)
SPACE = DECLARED.resolve(4)
Configuration = dict[str, Any]


class Search:
    """A searcher with its record, and the calls that Ray makes; each is noted in the record, as the recorder does."""

    def __init__(self, folder: Path, sampler: str = "random", seed: int = 0, space: Space = SPACE) -> None:
        folder.mkdir(exist_ok=True)
        self.record = record.read(folder)
        self.journal = self.record.files.journal
        self.searcher = Searcher(space, SAMPLERS[sampler], seed, self.record)
        self._ids = count()
        self._numbers: dict[str, str] = {}

    def suggest(self) -> Configuration:
        """The next configuration; Ray's id of the n-th trial is `t<n>`."""
        name = f"t{next(self._ids)}"
        configuration: Any = self.searcher.suggest(name)
        parameters = {key: value for key, value in configuration.items() if key != "trial"}
        self._numbers[name] = configuration["trial"]
        self._note(name, "started", parameters=parameters)
        return dict(configuration)

    def epoch(self, trial: str, epoch: int, objective: float, **result: Any) -> None:
        """Report an epoch of a trial that goes on."""
        self._epoch(trial, epoch, objective)
        self.searcher.on_trial_result(trial, {**reported(epoch, objective), **result})

    def end(self, trial: str, epoch: int, objective: float, ending: str = "") -> None:
        """End a trial at an epoch, of which Ray tells nothing before; by ASHA, where it is not by itself."""
        self._epoch(trial, epoch, objective, ending, None if ending else epoch)
        self.searcher.on_trial_complete(trial, reported(epoch, objective, ending))

    def fail(self, trial: str, **result: Any) -> None:
        """End a trial by an error."""
        self._note(trial, "ended", state="failed", reason="ValueError")
        self.searcher.on_trial_complete(trial, result or None, error=not result)

    def _epoch(self, trial: str, epoch: int, objective: float, ending: str = "", rung: int | None = None) -> None:
        value = objective if math.isfinite(objective) else None
        metrics = {"objective": value, "epoch": epoch, "best_epoch": 1, "val_accuracy": value, "val_loss": value}
        self._note(trial, "epoch", metrics={**metrics, "seconds": 1.0, "ending": ending, "reason": "why"}, rung=rung)

    def _note(self, trial: str, event: str, **facts: Any) -> None:
        self.record.note({"event": event, "trial": self._numbers[trial], "at": 0.0, **facts})

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials of the study in memory, apart from start points still waiting."""
        return [t for t in self.searcher._study.trials if t.state != TrialState.WAITING]

    def mirrored(self) -> list[FrozenTrial]:
        """The trials of the journal, as any other program reads them."""
        storage = JournalStorage(JournalFileBackend(str(self.journal)))
        study = optuna.load_study(study_name="toy", storage=storage)
        assert study.direction == self.searcher._study.direction
        return study.trials


def reported(epoch: int, objective: float, ending: str = "") -> dict[str, Any]:
    """What a trial reports, as far as the searcher reads it, and Ray's own counter, which starts anew on a resume."""
    return {"epoch": epoch, "objective": objective, "ending": ending, "training_iteration": 1}


def facts(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """All that must be the same in the study and in its journal."""
    return [(t.number, t.state, t.values, t.intermediate_values, t.params, t.distributions) for t in trials]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """A search by random choice."""
    return Search(tmp_path / "search")


def demand_valid(configuration: Configuration) -> None:
    """Check a configuration against the space, its conditions included."""
    values = {name: value for name, value in configuration.items() if name != "trial"}
    assert set(values) == {name for name in SPACE.search if name != "momentum" or values["optimizer"] == "sgd"}
    for name, value in values.items():
        distribution: Any = SPACE.search[name]
        assert distribution._contains(distribution.to_internal_repr(value)), f"{name}={value!r}"


# what it proposes


def test_suggestions_are_numbered_from_0(search: Search) -> None:
    """Two trials would write to the same folder, or a row not be found again."""
    assert [search.suggest()["trial"] for _ in range(3)] == ["0000", "0001", "0002"]


def test_the_start_points_come_first(search: Search) -> None:
    """What experience recommends would be tried late, or never."""
    first, second, third = (search.suggest() for _ in range(3))

    assert first == {**START[0], "unfreeze_depth": 2, "trial": "0000"}
    assert second == {**START[1], "trial": "0001"}
    assert third["learning_rate"] not in (0.01, 0.001)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_every_sampler_proposes_valid_configurations(tmp_path: Path, sampler: str) -> None:
    """A sampler would ignore a condition or a bound once it learns, and the trial fail."""
    if sampler == "gp":
        pytest.importorskip("torch")
    search = Search(tmp_path / "journal", sampler)
    for number in range(16):
        configuration = search.suggest()
        demand_valid(configuration)
        ending = "" if number % 3 == 0 else "completed"
        search.end(f"t{number}", 1 if number % 3 == 0 else 5, configuration["learning_rate"], ending)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_the_seed_decides_the_suggestions(tmp_path: Path, sampler: str) -> None:
    """A search could not be repeated; or another seed would repeat the same search."""

    def suggestions(name: str, seed: int) -> list[Configuration]:
        search = Search(tmp_path / name, sampler, seed)
        found = []
        for number in range(14):
            found.append(search.suggest())
            search.end(f"t{number}", 5, found[-1]["learning_rate"], "completed")
        return found

    first = suggestions("a", 0)

    assert suggestions("b", 0) == first
    assert suggestions("c", 1)[len(START) :] != first[len(START) :]


def test_tpe_is_what_it_is_said_to_be() -> None:
    """A new Optuna with other defaults would change every search (Optuna 5 did)."""
    sampler: Any = SAMPLERS["tpe"].build(0)

    assert (sampler._multivariate, sampler._constant_liar, sampler._group) == (True, True, False)
    assert (sampler._n_startup_trials, sampler._n_ei_candidates) == (10, 24)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_learns_from_stopped_trials(tmp_path: Path, sampler: str) -> None:
    """With the stopped trials unseen, the sampler would go on proposing what ASHA always stops."""
    if sampler == "gp":
        pytest.importorskip("torch")
    search = Search(
        tmp_path / "journal",
        sampler,
        space=Space(search={"dropout": Float(0.0, 0.9)}, budget=Budget(trials=40, epochs=5), name="toy"),
    )
    found = []
    for number in range(30):
        found.append(search.suggest()["dropout"])
        search.end(f"t{number}", 1, 1 - (found[-1] - 0.1) ** 2)

    assert max(found[24:]) < 0.45


FINITE = Space(
    search={
        "unfreeze_depth": Depth(0, 1),
        "optimizer": Choice(["adam", "sgd"]),
        "momentum": Float(0.7, 0.9, step=0.1),
        "batch_size": Int(16, 32, step=16),
    },
    when={"momentum": ("optimizer", "sgd")},
    start=[{"optimizer": "adam", "batch_size": 16}],
    budget=Budget(trials=16, epochs=5),
    name="toy",
).resolve(4)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_no_configuration_comes_twice(tmp_path: Path, sampler: str) -> None:
    """Where parameters have few values, a sampler proposes what it liked again, and the same numbers are computed."""
    if sampler == "gp":
        pytest.importorskip("torch")
    found: list[tuple[Any, ...]] = []
    for number in range(16):
        if number in (0, 5, 11):  # begun, and resumed from its record alone
            search, begun = Search(tmp_path / "search", sampler, space=FINITE), number
        told = {name: value for name, value in search.suggest().items() if name != "trial"}
        found.append(tuple(sorted(told.items())))
        search.end(f"t{number - begun}", 5, 0.5, "completed")

    assert len(set(found)) == FINITE.size == 16
    assert search.searcher.suggest("t16") == search.searcher.FINISHED
    assert len(search.trials) == 16
    assert dict(found[0])["batch_size"] == 16


def test_what_was_proposed_and_never_began_is_not_what_another_trial_has(tmp_path: Path) -> None:
    """After a crash a trial would get the configuration of a later one, and its own never be run."""
    killed = Search(tmp_path, "tpe", space=FINITE)
    for number in range(16):
        killed.suggest()
        killed.end(f"t{number}", 5, 0.5, "completed") if number != 12 else None
    lines = killed.record.history.path.read_text().splitlines(keepends=True)
    killed.record.history.path.write_text("".join(line for line in lines if '"0012"' not in line))
    resumed = Search(tmp_path, "tpe", space=FINITE)

    assert resumed.suggest() == {**killed.trials[12].params, "trial": "0012"}


def test_a_start_point_that_comes_twice_is_tried_once(tmp_path: Path) -> None:
    """`half` and `all` are the same depth where the backbone has one block, and one trial would be run again."""
    points: list[dict[str, Value]] = [{**START[1], "unfreeze_depth": depth} for depth in ("half", "all")]
    search = Search(tmp_path, space=replace(DECLARED, start=points).resolve(1))
    first, second = search.suggest(), search.suggest()

    assert first == {**START[1], "unfreeze_depth": 1, "trial": "0000"}
    assert second["learning_rate"] != first["learning_rate"]


# what it tells Optuna


def test_a_stopped_trial_is_pruned_at_its_last_epoch(search: Search) -> None:
    """Ray's own tells that it is complete, with a low-fidelity value and no epoch
    (https://github.com/ray-project/ray/pull/15283)."""
    search.suggest()
    search.epoch("t0", 1, 0.5)
    search.epoch("t0", 2, 0.7)
    search.end("t0", 3, 0.7)
    (trial,) = search.trials

    assert (trial.state, trial.value, trial.last_step) == (TrialState.PRUNED, 0.7, 3)
    assert trial.intermediate_values == {1: 0.5, 2: 0.7, 3: 0.7}


def test_a_trial_that_ended_by_itself_is_complete(search: Search) -> None:
    """The best trials would be taken for hopeless ones."""
    search.suggest()
    search.epoch("t0", 1, 0.5)
    search.epoch("t0", 2, 0.7)
    search.end("t0", 2, 0.7, "completed")  # Ray tells of the last epoch twice when the trainable returns
    (trial,) = search.trials

    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.7, {1: 0.5, 2: 0.7})


def test_a_trial_that_ran_as_long_as_all_others_is_complete(search: Search) -> None:
    """Where only the best go on after that, the others would be taken for worse than any that converged sooner."""
    search.suggest()
    search.epoch("t0", 4, 0.5)
    search.end("t0", SPACE.budget.epochs, 0.7)
    (trial,) = search.trials

    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)


def test_a_diverged_trial_has_failed(search: Search) -> None:
    """Ray's own leaves it running for ever; or its best epoch would recommend a rate at which training breaks."""
    search.suggest()
    search.suggest()
    search.epoch("t0", 1, float("nan"))
    search.end("t0", 1, float("nan"), "diverged")
    search.epoch("t1", 1, 0.7)
    search.end("t1", 2, 0.7, "diverged")
    early, late = search.trials

    assert (early.state, early.values, early.intermediate_values) == (TrialState.FAIL, None, {})
    assert (late.state, late.values) == (TrialState.FAIL, None)


def test_a_trial_with_an_error_has_failed(search: Search) -> None:
    """It would stay running in the study and repel new trials from its place."""
    search.suggest()
    search.suggest()
    search.epoch("t0", 1, 0.5)
    search.fail("t0")
    search.searcher.on_trial_complete("t1", reported(2, 0.9), error=True)

    assert [t.state for t in search.trials] == [TrialState.FAIL, TrialState.FAIL]


def test_a_second_end_changes_nothing(search: Search) -> None:
    """Ray may tell of an end twice, and Optuna raises at the second."""
    search.suggest()
    search.end("t0", 5, 0.7, "completed")
    search.searcher.on_trial_complete("t0", error=True)

    assert [(t.state, t.value) for t in search.trials] == [(TrialState.COMPLETE, 0.7)]


def test_an_epoch_that_is_run_again_after_a_resume_counts_once(search: Search) -> None:
    """A trial goes on from its last saved state, and reports some epochs again: that must not disturb the search."""
    search.suggest()
    for epoch, objective in ((1, 0.5), (2, 0.7), (2, 0.7), (3, 0.8)):
        search.epoch("t0", epoch, objective)

    assert search.trials[0].intermediate_values == {1: 0.5, 2: 0.7, 3: 0.8}
    assert facts(search.mirrored()) == facts(search.trials)


def test_close_leaves_no_trial_running(search: Search) -> None:
    """The dashboard would show trials running for ever after the time budget is used up."""
    for _ in range(3):
        search.suggest()
    search.end("t0", 5, 0.7, "completed")
    search.epoch("t1", 1, 0.5)
    search.searcher.close()

    assert [t.state for t in search.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert (search.trials[1].value, search.trials[1].last_step) == (0.5, 1)
    assert facts(search.mirrored()) == facts(search.trials)


def test_a_loss_is_minimized(tmp_path: Path) -> None:
    """With `val_loss` as objective the search would look for the worst."""
    space = Space(search=SPACE.search, budget=SPACE.budget, objective=Objective("val_loss"), name="toy")
    search = Search(tmp_path / "journal", space=space)
    for number, loss in enumerate((2.0, 0.5, 1.0)):
        search.suggest()
        search.end(f"t{number}", 5, loss, "completed")

    assert search.searcher._study.best_trial.number == 1
    assert facts(search.mirrored()) == facts(search.trials)


def test_a_paused_trial_is_left_running(search: Search) -> None:
    """A trial that was interrupted would count as stopped, and its place be given to another."""
    search.suggest()
    search.searcher.on_trial_complete("t0", {**reported(1, 0.5), "paused": True})

    assert [trial.state for trial in search.trials] == [TrialState.RUNNING]


def test_nothing_is_proposed_while_the_search_pauses(search: Search) -> None:
    """Every Ctrl-C would be followed by new trials."""
    search.suggest()
    search.searcher.pausing = True

    assert search.searcher.suggest("t1") == search.searcher.FINISHED
    assert len(search.trials) == 1


# the journal and a restart


def steps(search: Search) -> Iterator[None]:
    """Everything that can happen to trials, call by call."""
    for _ in range(5):
        search.suggest()
        yield
    for trial, epoch, objective in (("t0", 1, 0.5), ("t1", 1, 0.25), ("t0", 2, 0.75), ("t2", 1, float("nan"))):
        search.epoch(trial, epoch, objective)
        yield
    search.end("t1", 2, 0.25)
    yield
    search.end("t2", 2, float("nan"), "diverged")
    yield
    search.fail("t3")
    yield
    search.fail("t4", failure="ValueError: no", traceback="", objective=float("nan"), epoch=0)
    yield
    search.end("t0", 3, 0.75, "completed")
    yield
    search.suggest()
    yield
    search.searcher.close()
    yield


def test_the_journal_holds_the_study_at_every_step(search: Search) -> None:
    """optuna-dashboard would show less than is known, or something else, while the search runs."""
    states = set()
    for _ in steps(search):
        assert facts(search.mirrored()) == facts(search.trials)
        states |= {t.state for t in search.trials}

    assert states == {TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def test_a_journal_that_cannot_be_written_is_told_of(search: Search) -> None:
    """A full disk would end the search in a traceback from within Optuna, or go unseen."""
    search.journal.unlink()
    search.journal.mkdir()
    search.suggest()
    search.suggest()

    assert isinstance(search.searcher.fault, OSError)


def test_folder_that_goes_while_the_journal_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna then says that it has lost its lock, which would be told as a bug of the search."""
    search = Search(tmp_path / "search")
    search.suggest()
    sync = os.fsync

    def vanish(file: int) -> None:
        sync(file)
        if not (tmp_path / "elsewhere").exists() and search.journal.with_name("optuna.journal.lock").is_symlink():
            search.journal.parent.rename(tmp_path / "elsewhere")

    monkeypatch.setattr(os, "fsync", vanish)
    search.searcher.on_trial_result("t0", {"objective": 0.5, "epoch": 1, "ending": ""})

    assert (tmp_path / "elsewhere").exists()
    assert isinstance(search.searcher.fault, FileNotFoundError)


def test_the_study_is_made_again_from_the_record_at_every_step(search: Search) -> None:
    """A resumed search would not know what the killed one had learned, or believe something else."""
    for _ in list(zip(steps(search), range(12), strict=False)):
        again = Search(search.record.folder)

        assert facts(again.trials) == facts(search.trials)
        assert facts(again.mirrored()) == facts(search.trials)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_resumed_search_goes_on_as_the_other_would_have(tmp_path: Path, sampler: str) -> None:
    """A resumed search would begin again at random, or repeat its trials or their numbers."""

    def begun(name: str) -> Search:
        search = Search(tmp_path / name, sampler)
        for number in range(14):
            rate = search.suggest()["learning_rate"]
            search.end(f"t{number}", *((4, rate) if number % 3 else (5, rate, "completed")))
        search.suggest()
        search.epoch("t14", 1, 0.5)
        return search

    uninterrupted, killed = begun("a"), begun("b")
    unfinished = killed.trials[-1].params
    resumed = Search(tmp_path / "b", sampler)

    assert resumed.suggest() == {**unfinished, "trial": "0014"}
    for search, name in ((uninterrupted, "t14"), (resumed, "t0")):
        search.epoch(name, 1, 0.5)
        search.end(name, 2, 0.5)
    for name in ("t1", "t2", "t3"):
        expected, found = uninterrupted.suggest(), resumed.suggest()
        assert found == expected
        uninterrupted.end(f"t{int(expected['trial'])}", 5, expected["learning_rate"], "completed")
        resumed.end(name, 5, found["learning_rate"], "completed")
    resumed.searcher.close()
    assert facts(resumed.mirrored()) == facts(resumed.trials) == facts(uninterrupted.trials)


def test_start_points_still_waiting_are_proposed_after_a_resume(tmp_path: Path) -> None:
    """A search that was killed at once would skip a start point, or try one twice."""
    Search(tmp_path).suggest()
    resumed = Search(tmp_path)

    assert resumed.suggest() == {**START[0], "unfreeze_depth": 2, "trial": "0000"}
    assert resumed.suggest() == {**START[1], "trial": "0001"}
    assert resumed.suggest()["learning_rate"] not in (0.01, 0.001)


def test_a_trial_that_was_proposed_and_never_began_is_proposed_again(tmp_path: Path) -> None:
    """On a cluster a later trial may begin first; after a crash a number would be missing, or be there twice."""
    killed = Search(tmp_path)
    for _ in range(3):
        killed.suggest()
    lines = killed.record.history.path.read_text().splitlines(keepends=True)
    killed.record.history.path.write_text("".join(line for line in lines if '"0001"' not in line))
    resumed = Search(tmp_path)

    assert [resumed.suggest()["trial"] for _ in range(4)] == ["0000", "0001", "0002", "0003"]


def test_close_leaves_no_trial_running_that_nobody_began_again(tmp_path: Path) -> None:
    """When the time is used up, a trial that was to go on would stay running in the dashboard for ever."""
    killed = Search(tmp_path)
    killed.suggest()
    killed.suggest()
    killed.epoch("t1", 1, 0.5)
    resumed = Search(tmp_path)
    resumed.searcher.close()

    assert [trial.state for trial in resumed.mirrored()] == [TrialState.FAIL, TrialState.PRUNED]


def test_no_more_trials_than_there_is_room_for(tmp_path: Path) -> None:
    """A search takes a cluster that it shares, or waits for nodes that have left."""
    room = 2
    searcher = Searcher(SPACE, SAMPLERS["random"], 0, record.read(tmp_path), lambda: room)
    assert searcher.suggest("a")
    assert searcher.suggest("b")
    assert searcher.suggest("c") is None
    room = 3
    assert searcher.suggest("c")
    room = 1
    assert searcher.too_many()
    for name in ("a", "b"):
        searcher.on_trial_complete(name, error=True)
    assert not searcher.too_many()
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c", error=True)
    assert searcher.suggest("d")


def test_a_trial_that_ends_before_its_first_report(search: Search) -> None:
    """Ray gives its own fields alone where the time is up so soon, and would log an error of ours."""
    search.suggest()
    search.searcher.on_trial_complete("t0", {"trial_id": "t0", "time_since_restore": 0})

    assert search.searcher._study.trials[0].state == TrialState.FAIL
