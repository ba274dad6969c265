"""The errors a user can meet.

SearchError
├─ RequestError        the request is wrong; found before anything starts; names every fault    → exit status 2
│  ├─ SpaceError         the space's declaration, its settings or its budget
│  ├─ DataError          the images
│  └─ BackboneError      the pretrained network or its weights
├─ StorageError        the search's folder cannot be written or is not what it should be        → exit status 1
├─ NodeError           a node of a cluster cannot run trials; its trials continue on other nodes
├─ CheckpointError     a trial's checkpoint exists but cannot be read                            → the trial fails
└─ NoUsableTrialError  no trial of the search produced a model                                   → exit status 1
Anything else is a bug: it ends the search with its traceback.
"""

import difflib
import re
from collections.abc import Iterable, Sequence


class SearchError(Exception):
    """Base class of all errors that the project raises on purpose."""


class RequestError(SearchError):
    """The request is wrong. Holds every fault that was found, not only the first.

    Args:
        faults: one sentence each: what was given, what is allowed, what to do.
        subject: what the faults are about, such as a file; empty when the faults name it themselves.
    """

    def __init__(self, faults: Sequence[str], subject: str = "") -> None:
        self.faults = list(faults)
        self.subject = subject
        super().__init__(self._message())

    def _message(self) -> str:
        if len(self.faults) == 1:
            return f"{self.subject}: {self.faults[0]}" if self.subject else self.faults[0]
        head = f"{self.subject} has {len(self.faults)} faults" if self.subject else f"{len(self.faults)} faults"
        return "\n".join([f"{head}:", *(f"  {fault}" for fault in self.faults)])

    def __reduce__(self) -> tuple[type, tuple[list[str], str]]:
        return type(self), (self.faults, self.subject)


class SpaceError(RequestError):
    """The space's declaration, its settings or its budget are wrong."""


class DataError(RequestError):
    """The images cannot be used."""


class BackboneError(RequestError):
    """The backbone or its weights cannot be used."""


class StorageError(SearchError):
    """The search's folder cannot be written, or is not what it should be."""


class NodeError(SearchError):
    """A node of a cluster cannot run trials.

    Args:
        node: the node's id.
        name: its host name and address.
        faults: why it cannot run trials.
    """

    def __init__(self, node: str, name: str, faults: Sequence[str]) -> None:
        self.node, self.name, self.faults = node, name, list(faults)
        super().__init__(f"{name}: {'; '.join(faults)}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.node, self.name, self.faults)


class CheckpointError(SearchError):
    """A trial's checkpoint exists but cannot be read. The trial then fails; it does not start again from epoch 1."""


class NoUsableTrialError(SearchError):
    """No trial of the search produced a model."""


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """The sentence for an unknown name: it suggests the most similar known name, then lists all of them."""
    names = sorted(known)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given.lower(), lowered, n=1, cutoff=0.5)
    hint = f"; did you mean '{lowered[close[0]]}'?" if close else ";"
    return f"unknown {kind} '{given}'{hint} known are {', '.join(names)}"


def cause(error: BaseException) -> str:
    """One line that says what went wrong: the message's first line, or the next one if Keras only says where in it."""
    origin = getattr(error, "cause", None) or error
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(origin)).splitlines() if line.strip()]
    lines = lines[1:] if len(lines) > 1 and lines[0].startswith("Exception encountered when calling") else lines
    return f"{type(origin).__name__}: {lines[0].strip()}" if lines else type(origin).__name__
