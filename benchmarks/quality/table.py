"""A table of recorded learning curves: every configuration of a grid, trained to its end, with its test accuracy."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TABLES = Path(__file__).with_name("tables")
EPOCHS = 32
RATES = tuple(10 ** (power / 3) for power in range(-15, -2))  # 1e-5 to 1e-1, three a decade
FIXED = {"batch_size": 32, "plateau_patience": 2, "plateau_factor": 0.3, "momentum": 0.9, "warmup_epochs": 2.0}


class Plane(NamedTuple):
    """What two configurations share that differ in their rate alone."""

    unfreeze_depth: int
    optimizer: str
    weight_decay: float
    dropout: float


@dataclass(frozen=True)
class Grid:
    """The configurations of a table.

    Args:
        depths: each with `rates` and both optimizers, at little weight decay and dropout.
        regularised: the depths that adam trains with much of either as well, at the rates from 1e-4.
    """

    depths: tuple[int, ...]
    regularised: tuple[int, ...]
    rates: tuple[float, ...] = RATES

    def __iter__(self) -> Iterator[tuple[Plane, float]]:
        """Every configuration, the planes one after the other."""
        planes = [Plane(d, optimizer, 1e-4, 0.1) for d in self.depths for optimizer in ("adam", "sgd")]
        yield from itertools.product(planes, self.rates)
        more = [Plane(d, "adam", *much) for d in self.regularised for much in ((3e-2, 0.1), (1e-4, 0.5))]
        yield from itertools.product(more, [rate for rate in self.rates if rate >= 0.99e-4])


@dataclass(frozen=True)
class Curves:
    """Curves of one or many configurations, (…, epochs). After a divergence nothing is right and the loss is NaN.

    Args:
        val: share of the validation images that are right; `loss` theirs, and `test` the share of the test images.
    """

    val: NDArray[np.float64]
    loss: NDArray[np.float64]
    test: NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Recorded curves.

    Args:
        name: of the data set.
        about: what it was recorded with.
        planes: of the configurations, with their `rates`.
        curves: theirs, (configurations, epochs).
        seconds: that an epoch of theirs takes of one CPU, (configurations,).
        blocks: of the backbone.
    """

    name: str
    about: dict[str, Any]
    planes: Sequence[Plane]
    rates: NDArray[np.float64]
    curves: Curves
    seconds: NDArray[np.float64]
    blocks: int

    @property
    def depths(self) -> list[int]:
        """The unfreeze depths that are recorded; a search is among these."""
        return sorted({plane.unfreeze_depth for plane in self.planes})

    @property
    def best(self) -> float:
        """The best validation accuracy of any epoch of any configuration."""
        return float(self.curves.val.max())


def save(table: Table, images: dict[str, int]) -> None:
    """Write a table; accuracies as how many images are right.

    Args:
        images: how many there are for validation and test.
    """
    TABLES.mkdir(exist_ok=True)
    path = TABLES / f"{table.name}.npz"
    depths, optimizers, decays, dropouts = zip(*table.planes, strict=True)
    with path.with_suffix(".new").open("wb") as file:
        np.savez_compressed(
            file,
            about=json.dumps({**table.about, "images": images, "blocks": table.blocks}),
            unfreeze_depth=np.array(depths, "uint8"),
            sgd=np.array([optimizer == "sgd" for optimizer in optimizers]),
            weight_decay=np.array(decays, "float32"),
            dropout=np.array(dropouts, "float32"),
            learning_rate=table.rates,
            val=np.rint(table.curves.val * images["val"]).astype("uint16"),
            test=np.rint(table.curves.test * images["test"]).astype("uint16"),
            loss=np.float16(np.minimum(table.curves.loss, 6e4)),
            seconds=np.float32(table.seconds),
        )
    path.with_suffix(".new").rename(path)


def load(name: str) -> Table:
    """Read a table."""
    with np.load(TABLES / f"{name}.npz") as file:
        about = json.loads(str(file["about"]))
        images = about.pop("images")
        optimizers = np.where(file["sgd"], "sgd", "adam")
        columns = [file[column].tolist() for column in ("unfreeze_depth", "weight_decay", "dropout")]
        planes = [
            Plane(depth, str(optimizer), round(decay, 8), round(dropout, 8))
            for depth, optimizer, decay, dropout in zip(columns[0], optimizers, *columns[1:], strict=True)
        ]
        curves = Curves(file["val"] / images["val"], file["loss"].astype("float64"), file["test"] / images["test"])
        rates, seconds, blocks = file["learning_rate"], file["seconds"].astype("float64"), about.pop("blocks")
    return Table(name, {**about, "images": images}, planes, rates, curves, seconds, blocks)


def curves_at(table: Table, plane: Plane, rate: float) -> tuple[Curves, float]:
    """The curves of a configuration, and what an epoch takes; between two recorded rates those of one of them.

    Which one is chance, the likelier the nearer it is in the logarithm of the rate, and always the same for the same
    configuration. So every curve was really trained: the mean of two would be smoother, and its best epoch worse. The
    optimizer must be recorded; of unfreeze depth, weight decay and dropout the nearest recorded ones are meant.

    Args:
        plane: all but the rate.
        rate: within those of the table.
    """
    depth = min(table.depths, key=lambda known: abs(known - plane.unfreeze_depth))
    alike = [
        row
        for row, known in enumerate(table.planes)
        if (known.unfreeze_depth, known.optimizer) == (depth, plane.optimizer) and _spans(table, known, rate)
    ]
    nearest = min((table.planes[row] for row in alike), key=lambda known: _distance(known, plane))
    rows = [row for row in alike if table.planes[row] == nearest]
    logs = np.log(table.rates[rows])
    above = int(np.clip(np.searchsorted(logs, np.log(rate)), 1, len(rows) - 1))
    share = (np.log(rate) - logs[above - 1]) / (logs[above] - logs[above - 1])
    row = rows[above] if _chance(plane, rate) < share else rows[above - 1]
    curves = table.curves
    return Curves(curves.val[row], curves.loss[row], curves.test[row]), float(table.seconds[row])


def _chance(plane: Plane, rate: float) -> float:
    """In (0, 1), for a configuration."""
    number = int.from_bytes(hashlib.sha256(repr((*plane, rate)).encode()).digest()[:6])
    return (number + 0.5) / 2**48


def _spans(table: Table, plane: Plane, rate: float) -> bool:
    rates = [table.rates[row] for row, known in enumerate(table.planes) if known == plane]
    return min(rates) <= rate * 1.001 and rate <= max(rates) * 1.001


def _distance(one: Plane, other: Plane) -> float:
    """Of weight decay and dropout, in parts of what they range over."""
    decay = np.log10(one.weight_decay / other.weight_decay) / 5
    return float(np.hypot(decay, (one.dropout - other.dropout) / 0.5))
