"""The winner: exported, tested once, and its figures written."""

from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from search.console import Display
from search.data import SPLITS
from search.errors import CheckpointError, NoUsableTrialError
from search.record import Record, Row, write_json
from search.request import Request
from search.worker import Export


class Exporter:
    """Exports the winner, in a process that is made ready while the last trials run.

    Locally it takes no trial's place; on a cluster it takes one, where trials run, and only once they are over.

    Args:
        slots: gives how many trials there is room for.
    """

    def __init__(self, request: Request, slots: Callable[[], int]) -> None:
        self._request, self._slots = request, slots
        self._process: Any = None

    def trials_left(self, count: int) -> None:
        """Get ready when no further trial is to start."""
        if not self._process and not self._request.address and count <= self._slots():
            self._start({"num_cpus": 0})

    def export(self, row: Row) -> dict[str, Any]:
        """Write the model of a trial; see `trial.export`. Where the process dies, another one tries it again."""
        left = self._request.space.max_failures
        while True:
            if not self._process:
                self._start({"num_cpus": self._request.cpus_per_trial, "num_gpus": self._request.gpus_per_trial})
            try:
                tested: dict[str, Any] = ray.get(self._process.export.remote(row))
            except RayTaskError:
                raise
            except RayError:
                if not left:
                    raise
                left, self._process = left - 1, None
            else:
                return tested

    def _start(self, resources: dict[str, float]) -> None:
        self._process = ray.remote(**resources)(Export).remote(self._request)


def export_best(
    exporter: Exporter, record: Record, rows: Sequence[Row], display: Display
) -> tuple[Row, dict[str, Any]]:
    """Export the best trial whose weights are there: those of one that was cut off may be older than its best epoch."""
    record.best.mkdir(parents=True, exist_ok=True)
    for row in rows:
        try:
            return row, exporter.export(row)
        except CheckpointError as error:
            display.tell(f"trial {row.trial} cannot be exported: {error}")
    raise NoUsableTrialError("the weights of no trial are there")


def write_figures(request: Request, record: Record, winner: Row, tested: dict[str, Any]) -> dict[str, Any]:
    """Write the winner's figures and the split."""
    dataset = request.images
    metrics = {
        "trial": winner.trial,
        "parameters": dict(winner.parameters),
        "classes": list(dataset.classes),
        "val_accuracy": winner.val_accuracy,
        **tested,
    }
    write_json(record.best / "metrics.json", metrics)
    items = {split: list(dataset.items[split]) for split in SPLITS}
    write_json(record.best / "split.json", {"data": dataset.source, **items})
    return metrics
