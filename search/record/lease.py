"""A lease: the process that writes a search writes its name again and again, so that others see that it is alive."""

import json
import os
import socket
import uuid
from typing import Any, Protocol

from search.errors import RequestError

BEAT_EVERY_S = 10.0
SILENT_AFTER_S = 60.0


class Place(Protocol):
    """Where a lease is stored."""

    def read(self) -> bytes:
        """The stored content; empty if there is none."""

    def write(self, content: bytes) -> None:
        """Store the content."""

    def age(self) -> float:
        """Seconds since the content was last written, by the clock of the storage."""


class Lease:
    """One process's right to write a search.

    Args:
        subject: the name of the search's folder or URI, for messages.
        place: where the lease is stored.
    """

    def __init__(self, subject: str, place: Place) -> None:
        self._subject, self._place = subject, place
        self._me = {"host": socket.gethostname(), "process": os.getpid(), "id": str(uuid.uuid4())}

    @property
    def free(self) -> bool:
        """Whether no process of another machine has written the lease within `SILENT_AFTER_S`."""
        holder = self._holder()
        return not holder or holder.get("host") == self._me["host"] or self._place.age() >= SILENT_AFTER_S

    @property
    def held(self) -> bool:
        """Whether this process holds the lease."""
        return self._holder() == self._me

    def beat(self) -> None:
        """Take the lease, or renew it to show that this process is alive.

        Raises:
            OSError: the lease cannot be written.
        """
        self._place.write(json.dumps(self._me).encode())

    def refusal(self) -> RequestError:
        """The error that says which process holds the lease."""
        holder = self._holder()
        who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
        return RequestError([f"{self._subject} is in use by {who}, where its search runs; wait for it, or end it"])

    def _holder(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._place.read()))
        except (ValueError, TypeError):
            return {}
