"""What a row of a table says of its image, read by what is predicted: a class, several labels, or numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.data.folders import one_form, printable

SEPARATORS = ("|", ";", ",")  # the first that occurs stands between the labels of an image
YES, NO = ("1", "1.0", "true", "yes", "y", "x"), ("0", "0.0", "false", "no", "n", "")


@dataclass(frozen=True)
class Label:
    """The label of one image.

    Args:
        text: for people, the same for equal labels.
        names: its class, or its labels, sorted.
        numbers: those of a regression.
    """

    text: str
    names: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.text


Read = Callable[[Sequence[str]], Label]  # from the texts of the label's columns; raises ValueError, with the reason


def reader(task: str, columns: Sequence[str], rows: Iterable[Sequence[str]], separator: str | None) -> Read:
    """What reads the label of a row.

    Args:
        task: what is predicted, a key of `TASKS`.
        columns: that hold the label.
        rows: the texts in these columns, of all rows.
        separator: stands between the labels of an image; `None`: the first of `SEPARATORS` that occurs.
    """
    if task == "regression":
        return lambda texts: _numbers(columns, texts)
    if task == "classification":
        return lambda texts: _class(texts[0])
    if len(columns) > 1:
        return lambda texts: _ticked(columns, texts)
    between = separator or next((one for one in SEPARATORS if any(one in text for text, *_ in rows)), SEPARATORS[0])
    return lambda texts: _separated(texts[0], between)


def names(task: str, columns: Sequence[str], found: Iterable[Label]) -> tuple[str, ...]:
    """The names of the outputs: the classes or the labels that occur, or the columns that hold the label.

    Names that occur are sorted; as numbers if all are whole numbers.
    """
    if task == "regression" or len(columns) > 1:
        return tuple(columns)
    known = sorted({name for label in found for name in label.names})
    return tuple(sorted(known, key=int) if all(name.isascii() and name.isdigit() for name in known) else known)


def _class(text: str) -> Label:
    if not text:
        raise ValueError("no label")
    return Label(one_form(text), (one_form(text),))


def _separated(text: str, separator: str) -> Label:
    return _several(part.strip() for part in text.split(separator))


def _ticked(columns: Sequence[str], texts: Sequence[str]) -> Label:
    wrong = [
        f"'{printable(text)}' in the column '{printable(column)}' is neither 1 nor 0"
        for column, text in zip(columns, texts, strict=True)
        if text.lower() not in (*YES, *NO)
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    return _several(column for column, text in zip(columns, texts, strict=True) if text.lower() in YES)


def _several(given: Iterable[str]) -> Label:
    known = tuple(sorted({one_form(name) for name in given if name}))
    return Label(", ".join(known) or "no label", known)


def _numbers(columns: Sequence[str], texts: Sequence[str]) -> Label:
    found, wrong = list[float](), list[str]()
    for column, text in zip(columns, texts, strict=True):
        value = number(text)
        if value is None:
            wrong.append(
                f"'{printable(text)}' in the column '{printable(column)}' is no number" if text else "no label"
            )
        else:
            found.append(value)
    if wrong:
        raise ValueError("; ".join(dict.fromkeys(wrong)))
    return Label(", ".join(f"{number:g}" for number in found), numbers=tuple(found))


def number(text: str) -> float | None:
    """The number that a text says; `None` if it says none, or none that is finite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def bins(numbers: Sequence[float], count: int) -> Mapping[float, str]:
    """Number → which of `count` parts of about equally many images it is in, from the least to the largest."""
    order = sorted(numbers)
    return {number: f"part {min(count * place // len(order), count - 1)}" for place, number in enumerate(order)}
