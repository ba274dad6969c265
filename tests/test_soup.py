"""The mean of several models' weights: which are in it, and that it is never worse than the best alone."""

from collections.abc import Sequence

import numpy as np
import pytest

from search.cache import Array
from search.soup import Value, greedy


def at(*values: float) -> list[Array]:
    """A model of one weight matrix."""
    return [np.array([values], "float32")]


def judge(weights: Sequence[Array]) -> Value:
    """The nearer to (1, 1), the better."""
    return -float(np.abs(weights[0] - 1).sum()), 0.0


def test_those_that_help_are_in_it() -> None:
    """A model that spoils the mean would be in it, or one that helps be left out."""
    soup = greedy(
        ("best", at(1.0, 0.5)), [("bad", at(9.0, 9.0)), ("good", at(1.0, 1.5)), ("worse", at(0.0, 1.0))], judge
    )

    assert soup.names == ("best", "good")
    np.testing.assert_array_equal(soup.weights[0], [[1.0, 1.0]])
    assert (soup.value, soup.alone) == ((0.0, 0.0), (-0.5, 0.0))


def test_the_mean_is_one_of_all() -> None:
    """The last model that was added would weigh as much as all before it."""
    values = [0.4, 1.3, 1.2, 1.1]
    soup = greedy((0, at(values[0])), [(number, at(value)) for number, value in enumerate(values) if number], judge)

    assert soup.names == (0, 1, 2, 3)
    np.testing.assert_allclose(soup.weights[0], np.mean(values), rtol=1e-6)


def test_a_tie_is_no_gain() -> None:
    """The exported model would be another than the winner for nothing."""
    assert greedy(("best", at(0.5)), [("same", at(0.5)), ("mirrored", at(1.5))], judge).names == ("best", "mirrored")
    assert greedy(("best", at(0.5)), [("same", at(0.5))], judge).names == ("best",)


def test_the_second_value_decides_between_equals() -> None:
    """Few validation images tell accuracies apart; the loss does."""
    soup = greedy(("best", at(0.0)), [("lower loss", at(1.0))], lambda weights: (0.9, float(weights[0][0, 0])))

    assert soup.names == ("best", "lower loss")


def test_not_a_number_is_no_gain() -> None:
    """A model that diverged would be exported."""
    soup = greedy(("best", at(0.5)), [("diverged", at(np.nan))], lambda weights: (judge(weights)[0], 0.0))

    assert soup.names == ("best",)


def test_counters_stay_as_they_are() -> None:
    """The state of a random generator would become a fraction."""
    counters = [np.array([3, 4], "uint32")]
    soup = greedy(
        (0, counters), [(1, [np.array([5, 6], "uint32")])], lambda weights: (float(weights[0] is not counters[0]), 0.0)
    )

    assert soup.weights[0].dtype == "uint32"
    assert soup.weights[0].tolist() == [3, 4]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_precision_stays(dtype: str) -> None:
    """The weights would not fit the model."""
    soup = greedy((0, [np.zeros(2, dtype)]), [(1, [np.ones(2, dtype)])], lambda weights: (float(weights[0].sum()), 0.0))

    assert soup.weights[0].dtype == dtype
