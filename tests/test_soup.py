"""The mean of several models' weights: which are in it, and that it is never worse than the best alone."""

from collections.abc import Sequence

import numpy as np
import pytest

from search.cache import Array
from search.trial.soup import Judged, greedy


def at(*values: float) -> list[Array]:
    """A model of one weight matrix."""
    return [np.array([values], "float32")]


def judge(weights: Sequence[Array]) -> Judged:
    """The nearer to (1, 1), the less the loss; the accuracy tells nothing."""
    return Judged(0.9, float(np.abs(weights[0] - 1).sum()))


def test_those_that_help_are_in_it() -> None:
    """A model that spoils the mean would be in it, or one that helps be left out."""
    others = [("bad", at(9.0, 9.0)), ("good", at(1.0, 1.5)), ("worse", at(0.0, 1.0))]
    alone, soup = greedy(("best", at(1.0, 0.5)), others, judge)

    assert soup.names == ("best", "good")
    np.testing.assert_array_equal(soup.weights[0], [[1.0, 1.0]])
    assert (soup.worth.loss, alone.worth.loss) == (0.0, 0.5)


def test_the_mean_is_one_of_all() -> None:
    """The last model that was added would weigh as much as all before it."""
    values = [0.4, 1.3, 1.2, 1.1]
    others = [(number, at(value)) for number, value in enumerate(values) if number]
    _, soup = greedy((0, at(values[0])), others, judge)

    assert soup.names == (0, 1, 2, 3)
    np.testing.assert_allclose(soup.weights[0], np.mean(values), rtol=1e-6)


def test_a_tie_is_no_gain() -> None:
    """The exported model would be another than the winner for nothing."""
    best, same, mirrored = ("best", at(0.5)), ("same", at(0.5)), ("mirrored", at(1.5))

    assert greedy(best, [same, mirrored], judge)[1].names == ("best", "mirrored")
    alone, soup = greedy(best, [same], judge)
    assert soup is alone


def test_no_mean_is_taken_whose_objective_is_less() -> None:
    """A search for the best accuracy would export a model with a worse one."""

    def of(accuracies: Sequence[float]) -> tuple[str, ...]:
        said = iter([Judged(0.9, 1.0), *(Judged(one, 0.9 - 0.1 * at) for at, one in enumerate(accuracies))])
        others = [(str(number), at(0.0)) for number in range(len(accuracies))]
        return greedy(("best", at(0.0)), others, lambda _: next(said))[1].names

    assert of([0.8]) == ("best",)
    assert of([0.8, 0.9]) == ("best", "0", "1"), "one that is lost on the way is found again"
    assert of([0.9, 0.8]) == ("best", "0")


def test_not_a_number_is_no_gain() -> None:
    """A model that diverged would be exported."""
    alone, soup = greedy(("best", at(0.5)), [("diverged", at(np.nan))], judge)

    assert soup is alone


def test_counters_stay_as_they_are() -> None:
    """The state of a random generator would become a fraction."""
    counters = [np.array([3, 4], "uint32")]
    others = [(1, [np.array([5, 6], "uint32")])]
    said = iter([Judged(0.9, 0.5), Judged(0.9, 0.4)])
    _, soup = greedy((0, counters), others, lambda _: next(said))

    assert soup.names == (0, 1)
    assert soup.weights[0].dtype == "uint32"
    assert soup.weights[0].tolist() == [3, 4]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_precision_stays(dtype: str) -> None:
    """The weights would not fit the model."""
    others = [(1, [np.ones(2, dtype)])]
    _, soup = greedy((0, [np.zeros(2, dtype)]), others, lambda weights: Judged(0.9, -float(weights[0].sum())))

    assert soup.names == (0, 1)
    assert soup.weights[0].dtype == dtype
