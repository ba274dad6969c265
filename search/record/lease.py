"""Who writes a search: a name that is written down again and again, so that others see whether its owner lives."""

import json
import os
import socket
import uuid
from typing import Any, Protocol

from search.errors import RequestError

BEAT_EVERY_S = 10.0
SILENT_AFTER_S = 60.0


class Place(Protocol):
    """Where the name is written."""

    def read(self) -> bytes:
        """What is written there; empty where nothing is."""

    def write(self, content: bytes) -> None:
        """Write it."""

    def age(self) -> float:
        """Seconds since it was last written, by the clock of whoever keeps it."""


class Lease:
    """One process's right to write a search.

    Args:
        subject: what it is about, for people.
    """

    def __init__(self, subject: str, place: Place) -> None:
        self._subject, self._place = subject, place
        self._me = {"host": socket.gethostname(), "process": os.getpid(), "id": str(uuid.uuid4())}

    @property
    def free(self) -> bool:
        """Whether no process of another machine was heard of lately."""
        holder = self._holder()
        return not holder or holder.get("host") == self._me["host"] or self._place.age() >= SILENT_AFTER_S

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._holder() == self._me

    def beat(self) -> None:
        """Take it, or tell that this process lives.

        Raises:
            OSError: it cannot be written.
        """
        self._place.write(json.dumps(self._me).encode())

    def refusal(self) -> RequestError:
        """That another process has it."""
        holder = self._holder()
        who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
        return RequestError([f"{self._subject} is in use by {who}, where its search runs; wait for it, or end it"])

    def _holder(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._place.read()))
        except (ValueError, TypeError):
            return {}
