"""What a page is made of, as plain data, and how the templates beside this file make HTML of it.

The templates escape every value by themselves; `macros.html` has a macro for each part, of the name in its `macro`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
# The filter `tojson` writes figures, and nothing in them can end their script.
_TEMPLATES.policies |= {"json.dumps_function": go.Figure.to_json, "json.dumps_kwargs": {}}


@dataclass(frozen=True)
class Paragraph:
    """Some sentences, which may warn."""

    macro: ClassVar[str] = "paragraph"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Key:
    """The figures to see first: pairs of a name and what is shown, in large letters, below it."""

    macro: ClassVar[str] = "key"
    figures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    """A figure that the reader's browser draws, with sentences above it, if any."""

    macro: ClassVar[str] = "chart"
    figure: go.Figure
    text: str = ""


@dataclass(frozen=True)
class Table:
    """A table that may be wider than the page: the names of its columns, and rows of cells.

    `None` leaves a cell empty, a float is shown with four digits after the point, and all else as its text.
    """

    macro: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Iterable[Sequence[object]]


@dataclass(frozen=True)
class Details:
    """Tables that a click on a summary unfolds, or folds where they are `unfolded` at first."""

    macro: ClassVar[str] = "details"
    summary: str
    tables: Sequence[Table]
    unfolded: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG file in base64, what it shows, and the name of the image that it was made from."""

    png: str
    text: str
    image: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, each with its text."""

    macro: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Code:
    """Text as it is typed, with its line breaks."""

    macro: ClassVar[str] = "code"
    text: str


Part = Paragraph | Key | Chart | Table | Details | Pictures | Code


def chart(figure: go.Figure | None, text: str = "") -> list[Part]:
    """A figure with sentences above it; nothing where there is nothing to draw."""
    return [] if figure is None else [Chart(figure, text)]


def render(template: str, title: str, **values: Any) -> str:
    """A whole page in one file that needs no network, with Plotly inside.

    Args:
        template: the name of a file beside this one, which extends `base.html`.
        title: what stands above the page, and in the title of its window.
        values: what else the template names.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    return _TEMPLATES.get_template(template).render(title=title, plotly=get_plotlyjs(), **values)
