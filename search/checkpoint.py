"""A trial's state on disk: what it trains, its optimizer, epoch and callbacks, in one file, replaced at once."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import CheckpointError
from search.model import Network


@dataclass(frozen=True)
class State:
    """How far a trial is: `epoch` epochs done, and what each callback remembers."""

    epoch: int
    callbacks: dict[str, dict[str, Any]]


def save(path: Path, network: Network, state: State) -> None:
    """Write the state beside `path`, sync it, and put it in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {str(index): np.asarray(variable) for index, variable in enumerate(_variables(network))}
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        np.savez(file, allow_pickle=False, state=np.array(json.dumps(asdict(state))), **arrays)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def restore(path: Path, network: Network) -> State:
    """Put a saved state into the network.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another network.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            state = State(**json.loads(str(file["state"])))
            arrays = [file[str(index)] for index in range(len(file.files) - 1)]
    except Exception as error:  # a damaged file makes NumPy and zipfile raise anything
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    variables = _variables(network)
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise CheckpointError(f"{path} belongs to another network: its weights have other shapes")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return state


def _variables(network: Network) -> list[Any]:
    return [*network.suffix.variables, *network.whole.optimizer.variables]
