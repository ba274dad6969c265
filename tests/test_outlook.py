"""What a search was worth: what more trials would give, and who was stopped while still getting better."""

import itertools
import statistics
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from test_report import Made, adam

from search.record.record import Row
from search.record.states import COMPLETED, STOPPED
from search.report import conclusion, outlook, page

VALUES = (0.5, 0.9, 0.7, 0.7, 0.8, 0.6, 0.85, 0.65)


@pytest.mark.parametrize("count", range(1, len(VALUES) + 1))
def test_the_expected_best_is_that_over_all_choices(count: int) -> None:
    """A report would promise what no search gave."""
    best = statistics.fmean(max(chosen) for chosen in itertools.combinations(VALUES, count))

    assert outlook.expected(VALUES, count) == pytest.approx(best)


def test_of_many_trials_as_of_few() -> None:
    """The page of a long search would fail: the ways to choose half of them are more than a float can count."""
    many = [number / 3000 for number in range(3000)]

    assert outlook.expected(many, 1500) == pytest.approx(1500 / 1501 * 3001 / 3000 - 1 / 3000)
    assert outlook.expected(many, 3000) == many[-1]


def made(folder: Path, values: tuple[float, ...]) -> Made:
    """A search with trials of one epoch."""
    search = Made(folder / "photos")
    for number, value in enumerate(values):
        search.trial(adam(1, 1e-3 * (number + 1)), [value], "all epochs")
    return search


def test_nothing_is_promised_where_all_are_alike(tmp_path: Path) -> None:
    """A search that has found all there is would be called one to go on with."""
    told = outlook.worth(made(tmp_path, (0.9,) * 12).found())

    assert told == outlook.Worth(12, 0.0, 0.0, 0.0)


def test_a_search_that_still_gains_is_told_so(tmp_path: Path) -> None:
    """The best of few among many that are alike would be called the end."""
    found = made(tmp_path, tuple(number / 20 for number in range(16))).found()
    told = outlook.worth(found)

    assert told is not None
    assert 0 < told.gain < outlook.expected(outlook.values(found), 16) - outlook.expected(outlook.values(found), 8)
    assert told.low <= told.gain <= told.high


def test_a_loss_falls(tmp_path: Path) -> None:
    """Where less is better, the worst trials would be called the best."""
    search = made(tmp_path / "up", tuple(number / 20 for number in range(16)))
    up = outlook.worth(search.found())
    found = search.found()
    found.about["space"]["objective"] = "val_loss"  # type: ignore[index]

    assert up is not None
    assert (down := outlook.worth(found)) is not None
    assert astuple(down) == pytest.approx(astuple(up))


def test_too_few_tell_nothing(tmp_path: Path) -> None:
    """Three trials would be made into a forecast."""
    assert outlook.worth(made(tmp_path, (0.5, 0.6, 0.7)).found()) is None


def test_who_was_stopped_at_the_best_epoch_is_named(tmp_path: Path) -> None:
    """Nobody would see that the rule stops what still learns."""
    search = Made(tmp_path / "photos")
    search.trial(adam(1, 1e-3), [0.5, 0.6], rung=2)
    search.trial(adam(1, 2e-3), [0.6, 0.5], rung=2)
    search.trial(adam(1, 3e-3), [0.5, 0.6], "all epochs")

    assert [row.trial for row in outlook.rising(search.found())] == ["0000"]


def test_a_winner_that_still_got_better_is_told(tmp_path: Path) -> None:
    """Nobody would think of giving it more epochs."""
    figures = {"val_accuracy": 0.9, "val_loss": 0.1}
    row = Row("0007", {}, COMPLETED, "all epochs", epochs=16, best_epoch=16, figures=figures)

    told = "trial 0007 was still getting better at its last epoch, 16: more --epochs may pay, or --set finish_epochs=32"
    assert conclusion.unfinished(row).startswith(told)
    assert conclusion.unfinished(replace(row, best_epoch=15)) == ""
    assert conclusion.unfinished(replace(row, state=STOPPED)) == ""

    search = made(tmp_path, VALUES)
    told = "Trial 0001 was still getting better at its last epoch, 1: more --epochs may pay"
    assert told in page.page(search.found())
