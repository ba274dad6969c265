"""How a search ended."""

from dataclasses import dataclass
from typing import Any

from search.record.record import Row

DONE, INTERRUPTED, FAILED = "done", "interrupted", "failed"


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Args:
        status: `done`, `interrupted` or `failed`, as in the record.
        ranked: the trials that can win, best first.
        failed: how many trials failed.
        metrics: of the winner.
    """

    status: str
    ranked: list[Row]
    failed: int
    metrics: dict[str, Any]
