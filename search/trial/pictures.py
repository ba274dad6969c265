"""Pictures of what a model says of many images at once, for TensorBoard."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from search.cache import Array
from search.task import classification
from search.task.classification import CLASSIFICATION
from search.task.regression import REGRESSION
from search.task.task import Said, Task

SIDE, EDGE = 480, 60  # of a scatter plot, in pixels


class Picture(NamedTuple):
    """A picture and what it shows."""

    title: str
    image: Image.Image


def of(names: Sequence[str], said: Said, task: Task) -> Picture | None:
    """The picture that fits the task; `None` where there is none.

    Args:
        names: of the outputs.
    """
    if task is CLASSIFICATION:
        return Picture("confusion matrix", confusion(names, classification.confusion(*said)))
    if task is REGRESSION:
        return Picture("prediction against truth", scatter(names, *said))
    return None


def confusion(classes: Sequence[str], counts: Array) -> Image.Image:
    """A picture of how often images of each true class (row) were taken for each class (column)."""
    cell = max(18, min(56, 900 // len(classes)))
    font, title = ImageFont.load_default(max(10, cell // 3)), ImageFont.load_default(18)
    names = [name if len(name) <= 16 else name[:15] + "…" for name in classes]
    width = int(max(font.getlength(name) for name in names)) + 12
    side = cell * len(classes)
    left, top = width + 26, width + 30
    image = Image.new("RGB", (left + side + 10, top + side + 10), "white")
    pen = ImageDraw.Draw(image)
    pen.text((left, 4), "predicted", "black", title)
    _upright(image, (2, top), "true", title)
    for row, name in enumerate(names):
        pen.text((left - 6, top + (row + 0.5) * cell), name, "black", font, anchor="rm")
        _upright(image, (int(left + (row + 0.5) * cell), top - 4), name, font, low=True)
        for column, count in enumerate(counts[row]):
            share = count / max(1, counts[row].sum())
            corner = (left + column * cell, top + row * cell)
            colour = tuple(int(255 - share * (255 - end)) for end in (8, 81, 156))
            pen.rectangle((*corner, corner[0] + cell - 1, corner[1] + cell - 1), colour)
            if count:
                middle = (corner[0] + cell / 2, corner[1] + cell / 2)
                pen.text(middle, str(count), "white" if share > 1 / 2 else "black", font, anchor="mm")
    return image


def _upright(image: Image.Image, at: tuple[int, int], text: str, font: Any, low: bool = False) -> None:
    """Write from bottom to top; `at` is the upper left corner, or the middle of the lower edge."""
    box = Image.new("RGB", (int(font.getlength(text)) + 2, int(font.size * 1.3)), "white")
    ImageDraw.Draw(box).text((0, 0), text, "black", font)
    turned = box.rotate(90, expand=True)
    image.paste(turned, (at[0] - turned.width // 2, at[1] - turned.height) if low else at)


def scatter(names: Sequence[str], labels: Array, outputs: Array) -> Image.Image:
    """A picture for each number: what was predicted of every image against what is true, and the line where both agree.

    Args:
        labels: (images, numbers).
        outputs: likewise.
    """
    whole = Image.new("RGB", (len(names) * (SIDE + 2 * EDGE), SIDE + 2 * EDGE), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(14)
    for number, name in enumerate(names):
        left = number * (SIDE + 2 * EDGE) + EDGE
        values = np.stack([labels[:, number], outputs[:, number]])
        values = values[:, np.isfinite(values).all(axis=0)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        places = (values - low) / (high - low or 1) * SIDE
        pen.rectangle((left, EDGE, left + SIDE, EDGE + SIDE), outline="grey")
        pen.line((left, EDGE + SIDE, left + SIDE, EDGE), "grey")
        for x, y in places.T:
            pen.ellipse((left + x - 2, EDGE + SIDE - y - 2, left + x + 2, EDGE + SIDE - y + 2), (8, 81, 156))
        pen.text((left, EDGE - 22), f"{name}: predicted (up) against true (right)", "black", font)
        pen.text((left, EDGE + SIDE + 6), f"{low:.4g}", "black", font)
        pen.text((left + SIDE, EDGE + SIDE + 6), f"{high:.4g}", "black", font, anchor="ra")
    return whole
