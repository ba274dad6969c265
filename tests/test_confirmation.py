"""Confirming trials: which they are, that they follow from the record alone, and who wins by the mean over seeds."""

import io
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from searches import ONE_BY_ONE, accuracy_of_the_model, rows, run, running, wait_for

from search.driver import confirmation, winner
from search.driver.confirmation import Confirmation
from search.record import ranking, record, states
from search.record.record import Record, Row
from search.report import conclusion
from search.space import Budget, Float, Objective, Space
from search.space.spacefile import faults

EPOCHS = 9


def parameters(rate: float, **others: Any) -> dict[str, Any]:
    """A configuration."""
    return {"unfreeze_depth": 0, "learning_rate": rate, **others}


def ended(trial: int, accuracy: float, state: str = states.COMPLETED, **chosen: Any) -> Row:
    """A trial that is over."""
    return Row(
        f"{trial:04d}", parameters(**chosen), state, "", 3, 2, {"val_accuracy": accuracy, "val_loss": 1 - accuracy}, 1.0
    )


SEARCHED = [
    ended(0, 0.7, rate=0.1),
    ended(1, 0.9, rate=0.2),
    ended(2, 0.8, rate=0.3),
    ended(3, 0.95, states.DIVERGED, rate=0.4),
]


def asked(confirm: int, trials: int = len(SEARCHED)) -> Any:
    """What `due` looks at of a request."""
    budget = Budget(trials=trials, epochs=EPOCHS)
    space = Space(search={"learning_rate": Float(0.01, 1.0)}, budget=budget, fixed={"confirm": confirm})
    return SimpleNamespace(space=space, seed=7)


def known(*found: Row) -> Record:
    """A record with these rows."""
    return Record(Path("none"), rows={row.trial: row for row in found})


def test_the_best_are_run_again_with_other_seeds() -> None:
    """The wrong configurations would be confirmed, with the seed they had, or under numbers that are taken."""
    assert confirmation.due(asked(2), known(*SEARCHED)) == [
        {**parameters(0.2), "seed": 8, "trial": "0004"},
        {**parameters(0.2), "seed": 9, "trial": "0005"},
        {**parameters(0.3), "seed": 8, "trial": "0006"},
        {**parameters(0.3), "seed": 9, "trial": "0007"},
    ]


def test_nothing_is_due_before_the_search_is_over() -> None:
    """Trials that have not run yet could not be among the best."""
    still = Row("0003", parameters(0.4))

    assert confirmation.due(asked(2), known(*SEARCHED[:3], still)) == []
    assert confirmation.due(asked(2, trials=5), known(*SEARCHED)) == []
    assert confirmation.due(asked(0), known(*SEARCHED)) == []


def test_what_is_due_does_not_depend_on_what_was_confirmed() -> None:
    """A search that goes on would confirm other configurations, or run some for ever."""
    confirmed = [ended(4, 0.1, rate=0.2, seed=8), Row("0006", parameters(0.3, seed=8))]

    assert confirmation.due(asked(2), known(*SEARCHED, *confirmed)) == confirmation.due(asked(2), known(*SEARCHED))


def test_equal_configurations_are_confirmed_once() -> None:
    """In a small space the same one comes twice, and would be confirmed by itself."""
    again = ended(4, 0.85, rate=0.2)
    due = confirmation.due(asked(2, trials=5), known(*SEARCHED, again))

    assert [one["learning_rate"] for one in due] == [0.2, 0.2, 0.3, 0.3]


def test_fewer_models_than_asked() -> None:
    """A search most of whose trials diverged could not be confirmed."""
    assert len(confirmation.due(asked(5), known(*SEARCHED))) == 6


def test_confirming_trials_are_never_stopped_early() -> None:
    """Their mean would be one of unequal trials."""

    @dataclass(frozen=True)
    class Asked:
        space: Space

    longer: Any = confirmation.extended(Asked(asked(2).space), 4)  # type: ignore[arg-type]

    assert longer.space.stopping.build(longer.space.budget, longer.space.objective).rungs == ()
    assert longer.space.budget.trials == len(SEARCHED) + 4


def test_confirming_trials_run_as_long_as_the_best() -> None:
    """A configuration that won at its thirtieth epoch would be confirmed by others of nine."""

    @dataclass(frozen=True)
    class Asked:
        space: Space

    space = asked(2).space
    longer: Any = confirmation.extended(Asked(replace(space, fixed={"finish_epochs": 30})), 4)  # type: ignore[arg-type]

    assert longer.space.budget.epochs == longer.space.longest == 30
    assert faults(longer.space) == []


def test_the_searcher_gives_each_once() -> None:
    """A trial would run twice, never, or where others are to run."""
    room = 1
    due = confirmation.due(asked(1), known(*SEARCHED))
    searcher = Confirmation(due, Objective(), lambda: room)

    assert searcher.suggest("a") == due[0]
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a")
    assert searcher.suggest("b") == due[1]
    assert searcher.suggest("c") == "FINISHED"
    room = 0
    assert searcher.too_many()


def test_a_paused_searcher_gives_none() -> None:
    """An interrupted search would go on for hours."""
    searcher = Confirmation(confirmation.due(asked(1), known(*SEARCHED)), Objective(), lambda: sys.maxsize)
    searcher.pausing = True

    assert searcher.suggest("a") == "FINISHED"


# who wins


LUCKY = [ended(4, 0.6, rate=0.2, seed=8), ended(5, 0.7, rate=0.2, seed=9)]
STEADY = [ended(6, 0.8, rate=0.3, seed=8), ended(7, 0.83, rate=0.3, seed=9)]


def test_the_mean_is_of_the_objective() -> None:
    """The means that are shown would be of another figure than those that decide."""
    losses = ranking.confirmed([*SEARCHED, *STEADY], Objective("val_loss"))[STEADY[0].configuration]
    shown = Console(width=200, record=True, file=io.StringIO())
    shown.print(
        conclusion.leaderboard(
            ranking.ranked(SEARCHED, Objective("val_loss")), [*SEARCHED, *STEADY], Objective("val_loss")
        )
    )

    assert losses.mean == pytest.approx(0.19)
    assert "0.1900 ± 0.0173 (3)" in shown.export_text()


def test_the_best_mean_wins() -> None:
    """The luckiest trial would."""
    best = ranking.ranked([*SEARCHED, *LUCKY, *STEADY], Objective("val_accuracy"))

    assert [row.trial for row in best] == ["0007", "0002", "0006", "0001", "0005", "0004", "0000"]
    assert ranking.ranked([*SEARCHED, *LUCKY, *STEADY], Objective("val_loss"))[0].trial == "0007"


def test_what_is_shown_are_different_configurations() -> None:
    """Three seeds of one configuration would be compared with each other."""
    best = ranking.ranked([*SEARCHED, *LUCKY, *STEADY], Objective("val_accuracy"))

    assert [row.trial for row in winner.runners_up(best)] == ["0001", "0000"]
    assert winner.runners_up(best[:1]) == []


def test_mean_spread_and_number() -> None:
    """The report would promise more than was measured."""
    found = ranking.confirmed([*SEARCHED, *LUCKY], Objective("val_accuracy"))[SEARCHED[1].configuration]

    assert found.mean == pytest.approx((0.9 + 0.6 + 0.7) / 3)
    assert found.spread == pytest.approx(0.1528, abs=1e-4)
    assert found.seeds == 3


def test_a_seed_without_a_model_counts_against_a_configuration() -> None:
    """One that diverges with every other seed would win."""
    diverged = ended(5, 0.99, states.DIVERGED, rate=0.2, seed=9)
    best = ranking.ranked([*SEARCHED, LUCKY[0], diverged, *STEADY], Objective("val_accuracy"))

    assert best[0].parameters["learning_rate"] == 0.3


def test_a_seed_that_was_cut_off_does_not_count() -> None:
    """When the time is up, a configuration would lose for what nobody has seen."""
    cut_off = Row("0005", parameters(0.2, seed=9), states.STOPPED, "time budget used up")
    found = ranking.confirmed([*SEARCHED, LUCKY[0], cut_off], Objective("val_accuracy"))[SEARCHED[1].configuration]

    assert found.seeds == 2
    assert ranking.confirmed([*SEARCHED, cut_off], Objective("val_accuracy")) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_search_that_confirms(tmp_path: Path) -> None:
    """The trials are not run, lost with the command, stopped early, or the winner is not the one with the best mean."""
    options = [
        "--space",
        "smoke",
        "--name",
        "sure",
        "--trials",
        "4",
        "--epochs",
        "12",
        "--set",
        "confirm=2",
        "--set",
        "soup=6",
    ]
    search = tmp_path / "results" / "sure"
    with running(tmp_path, *options, "--set", "stop_patience=100", *ONE_BY_ONE) as process:
        wait_for(lambda: len(rows(search)) > 4 or None, process)
        process.kill()
    done = run(tmp_path, "--resume", "sure")
    assert done.returncode == 0, done.stderr
    found = rows(search)
    confirming = [row for row in found if row["seed"]]

    assert [row["trial"] for row in found] == [f"{number:04d}" for number in range(8)]
    assert [(row["trial"], row["seed"]) for row in confirming] == [
        *(("0004", "1"), ("0005", "2")),
        *(("0006", "1"), ("0007", "2")),
    ]
    assert {row["state"] for row in confirming} == {"completed"}
    assert "mean of seeds" in done.stdout
    record_of = record.read(search)
    best = ranking.ranked(record_of.rows.values(), Objective("val_accuracy"))[0]
    metrics = json.loads((search / "best" / "metrics.json").read_text())
    mixed = metrics.get("soup", {"trials": [best.trial]})["trials"]
    assert mixed[0] == metrics["trial"] == best.trial
    assert set(mixed) <= {row["trial"] for row in found}
    assert conclusion.tested(metrics, Objective()) in done.stdout
    assert accuracy_of_the_model(search) == pytest.approx(metrics["test_accuracy"])
    means = ranking.confirmed(record_of.rows.values(), Objective("val_accuracy"))
    assert max(means.values(), key=lambda one: one.mean) == means[best.configuration]
