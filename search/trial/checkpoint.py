"""A trial's files: the weights of its best epoch, and its last two states.

Each holds a manifest with a checksum of every array, is written beside and put in place at once.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search import atomic
from search.cache import Array
from search.errors import CheckpointError, StorageError
from search.record.files import BEST_WEIGHTS, LAST_STATE, OWNER, STATE_BEFORE
from search.trial.model import Network


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


def take(folder: Path, owner: str) -> None:
    """Make a trial's folder this owner's alone.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        (folder / OWNER).write_text(owner, "utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def demand_owner(folder: Path, owner: str) -> None:
    """Check that nobody else has taken the folder.

    Raises:
        CheckpointError: somebody has.
        StorageError: it cannot be read.
    """
    try:
        found = (folder / OWNER).read_text("utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror or error}") from error
    if found != owner:
        raise CheckpointError(f"{folder} belongs to another process, which goes on with the trial")


def saved(folder: Path) -> bool:
    """Whether a trial has a saved state, good or not."""
    return any((folder / name).exists() for name in (LAST_STATE, STATE_BEFORE))


def save(folder: Path, network: Network, state: State) -> None:
    """Write the state of what is trained, its optimizer and its callbacks; the state before is kept.

    Raises:
        StorageError: it cannot be written.
    """
    facts = asdict(State(state.epoch, state.callbacks)) | {"best": len(state.best)}
    _write(folder / LAST_STATE, facts, [*network.state, *state.best], folder / STATE_BEFORE)


def restore(folder: Path, network: Network) -> tuple[State, str]:
    """Put the last saved state into the network, or the one before where that is damaged.

    Returns:
        The state, and what was wrong with the last one.

    Raises:
        CheckpointError: none can be read, or they belong to another network.
    """
    faults: list[str] = []
    for path in (folder / LAST_STATE, folder / STATE_BEFORE):
        try:
            facts, arrays = _read(path)
            count = len(arrays) - facts.pop("best")
            best = _those_of(path, network.weights, arrays[count:]) if arrays[count:] else []
            _assign(path, network.state, arrays[:count])
            return State(**facts, best=best), "; ".join(faults)
        except CheckpointError as error:
            faults.append(str(error))
    raise CheckpointError("; ".join(faults))


def save_best(folder: Path, epoch: int, weights: Sequence[Array]) -> None:
    """Write the suffix's variables as they were after an epoch.

    Raises:
        StorageError: they cannot be written.
    """
    _write(folder / BEST_WEIGHTS, {"epoch": epoch}, weights)


def restore_best(folder: Path, network: Network, epoch: int) -> None:
    """Put the suffix's variables as they were after its best epoch into the network.

    Raises:
        CheckpointError: they are gone, damaged, or not those of this epoch.
    """
    faults: list[str] = []
    for name in (BEST_WEIGHTS, LAST_STATE, STATE_BEFORE):  # a state holds them too
        path = folder / name
        try:
            facts, arrays = _read(path)
            found = facts["epoch"] if name == BEST_WEIGHTS else facts["callbacks"]["Best"]["epoch"]
            if found != epoch:
                raise CheckpointError(f"{path} does not hold the weights of epoch {epoch}")
            _assign(path, network.weights, arrays if name == BEST_WEIGHTS else arrays[len(arrays) - facts["best"] :])
        except CheckpointError as error:
            faults.append(str(error))
        else:
            return
    raise CheckpointError("; ".join(faults))


def arrays(path: Path) -> list[Array]:
    """The arrays of a checkpoint.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    return _read(path)[1]


def write(path: Path, facts: dict[str, Any], arrays: Sequence[Any], previous: Path | None = None) -> None:
    """Write arrays, and what is to be known about them.

    Args:
        previous: where the file that lies there now is kept.

    Raises:
        OSError: it cannot be written.
    """
    known = [np.asarray(array) for array in arrays]
    named = {str(index): array for index, array in enumerate(known)}
    manifest = [_digest(array) for array in known]
    with atomic.replacing(path) as file:
        np.savez(file, allow_pickle=False, facts=np.array(json.dumps({**facts, "manifest": manifest})), **named)
        if previous and path.exists():
            path.replace(previous)


def _write(path: Path, facts: dict[str, Any], arrays: Sequence[Any], previous: Path | None = None) -> None:
    try:
        write(path, facts, arrays, previous)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _read(path: Path) -> tuple[dict[str, Any], list[Array]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = [file[str(index)] for index in range(len(file.files) - 1)]
            facts = json.loads(str(file["facts"]))
            manifest = facts.pop("manifest")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there") from error
    except Exception as error:  # a damaged file makes NumPy and zipfile raise anything
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if manifest != [_digest(array) for array in arrays]:
        raise CheckpointError(f"{path} is damaged: its arrays are not those of its manifest")
    return facts, arrays


def _digest(array: Array) -> str:
    """SHA-256 of an array's values, shape and type, in hex."""
    found = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _assign(path: Path, variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    for variable, array in zip(variables, _those_of(path, variables, arrays), strict=True):
        variable.assign(array)


def _those_of(path: Path, variables: Sequence[Any], arrays: Sequence[Array]) -> list[Array]:
    """An array for each variable; older versions also saved scalars that are set from the parameters."""
    left = list(arrays)
    found = []
    for variable in variables:
        kind = tuple(variable.shape), variable.dtype
        while left and not left[0].shape and (left[0].shape, left[0].dtype.name) != kind:
            left.pop(0)
        if not left or (left[0].shape, left[0].dtype.name) != kind:
            break
        found.append(left.pop(0))
    if len(found) < len(variables) or any(array.shape for array in left):
        raise CheckpointError(f"{path} belongs to another network: its weights have other shapes")
    return found
