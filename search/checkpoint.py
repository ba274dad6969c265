"""A trial's files: the weights of its best epoch, and its state, each written beside and put in place at once."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.cache import Array
from search.errors import CheckpointError
from search.model import Network


@dataclass(frozen=True)
class State:
    """How far a trial is.

    Args:
        epoch: so many epochs are done.
        callbacks: what each callback remembers.
        best: the suffix's variables as they were in the best epoch.
    """

    epoch: int
    callbacks: dict[str, dict[str, Any]]
    best: Sequence[Array] = field(default=(), repr=False)


def save(path: Path, network: Network, state: State) -> None:
    """Write the state of what is trained, its optimizer and its callbacks."""
    facts = asdict(State(state.epoch, state.callbacks)) | {"best": len(state.best)}
    _write(path, facts, [*network.state, *state.best])


def restore(path: Path, network: Network) -> State:
    """Put a saved state into the network.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another network.
    """
    facts, arrays = _read(path)
    count = len(arrays) - facts.pop("best")
    _assign(path, network.state, arrays[:count])
    return State(**facts, best=arrays[count:])


def save_best(path: Path, epoch: int, weights: Sequence[Array]) -> None:
    """Write the suffix's variables as they were after an epoch."""
    _write(path, {"epoch": epoch}, weights)


def arrays(path: Path) -> list[Array]:
    """The arrays that `save_best` wrote.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    return _read(path)[1]


def restore_best(path: Path, network: Network) -> int:
    """Put the best weights into the network's suffix; return their epoch.

    Raises:
        CheckpointError: as `restore`.
    """
    facts, arrays = _read(path)
    _assign(path, network.suffix.variables, arrays)
    return int(facts["epoch"])


def _write(path: Path, facts: dict[str, Any], arrays: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {str(index): np.asarray(array) for index, array in enumerate(arrays)}
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        np.savez(file, allow_pickle=False, facts=np.array(json.dumps(facts)), **named)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _read(path: Path) -> tuple[dict[str, Any], list[Array]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = [file[str(index)] for index in range(len(file.files) - 1)]
            return json.loads(str(file["facts"])), arrays
    except Exception as error:  # a damaged file makes NumPy and zipfile raise anything
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _assign(path: Path, variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise CheckpointError(f"{path} belongs to another network: its weights have other shapes")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
