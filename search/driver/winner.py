"""The winner: it is exported and tested once, and its figures are written."""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from search.cluster.connection import Fleet
from search.data.store import SPLITS
from search.driver import card
from search.driver.worker import Export
from search.errors import CheckpointError, NodeError, NoUsableTrialError, StorageError, cause
from search.record.files import SPLIT
from search.record.record import Record, Row, write_json, write_reading
from search.report.console import Display
from search.request.request import Request

SHOWN = 3


class Exporter:
    """Exports the winner, in a process that starts while the last trials run.

    On a local Ray the process reserves no CPUs, so it takes no trial's place. On a cluster it takes the resources of
    one trial, on a node where trials can run, and starts only when all trials are over.
    """

    def __init__(self, request: Request, fleet: Fleet) -> None:
        self._request, self._fleet = request, fleet
        self._process: Any = None

    def trials_left(self, count: int) -> None:
        """Start the process when no more trials are waiting, if Ray is local."""
        if not self._process and not self._request.resources.address and count <= self._fleet.room():
            self._start({"num_cpus": 0})

    def export(
        self, row: Row, mixed: Sequence[Row], others: Sequence[Row], tell: Callable[[str], None]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Write the model of a trial; see `Export.export`. If the process or its node fails, another one is tried."""
        left, resources = self._request.space.max_failures, self._request.resources
        while True:
            if not self._process:
                self._start({"num_cpus": resources.cpus_per_trial, "num_gpus": resources.gpus_per_trial})
            try:
                exported: tuple[dict[str, Any], dict[str, str]] = ray.get(
                    self._process.export.remote(row, mixed, others)
                )
            except RayTaskError as error:
                if not isinstance(error.cause, NodeError):
                    raise
                self._fleet.leave_out(error.cause, tell)
                self._process = None
                if not self._fleet.room():
                    raise StorageError(f"no node is left that can write the model: {error.cause}") from error
            except RayError:
                if not left:
                    raise
                left, self._process = left - 1, None
            else:
                return exported

    def _start(self, resources: dict[str, float]) -> None:
        self._process = ray.remote(**resources, label_selector=self._fleet.selector)(Export).remote(self._request)


def export_best(
    exporter: Exporter, record: Record, rows: Sequence[Row], display: Display, mixed: int
) -> tuple[Row, dict[str, Any]]:
    """Export the best trial whose weights can be read.

    If a trial was cut off, the weights of its best epoch may be missing; then the next trial is tried.

    Args:
        rows: the trials that can win, best first.
        mixed: how many trials' weights the model may average.
    """
    record.files.best.mkdir(parents=True, exist_ok=True)
    for place, row in enumerate(rows):
        try:
            figures, unshown = exporter.export(
                row, rows[place + 1 : place + mixed], runners_up(rows[place:]), display.tell
            )
        except CheckpointError as error:
            display.tell(f"trial {row.trial} cannot be exported: {cause(error)}")
            continue
        for trial, reason in unshown.items():
            display.tell(f"there are no pictures of how trial {trial} works: {reason}")
        return row, figures
    raise NoUsableTrialError("the weights of no trial are there")


def write_figures(request: Request, record: Record, winner: Row, tested: dict[str, Any]) -> dict[str, Any]:
    """Write the winner's figures, its card, the split, and the parameters for reading images; return the figures."""
    dataset, objective = request.workload.images, request.space.objective
    metrics = {
        "trial": winner.trial,
        "parameters": dict(winner.parameters),
        "classes": list(dataset.classes),
        "task": objective.kind,
        "objective": objective.metric,
        **winner.figures,
        **tested,
    }
    write_json(record.files.metrics, metrics)
    items = {split: list(dataset.items[split]) for split in SPLITS}
    write_json(record.files.best / SPLIT, {"data": dataset.source, **items})
    write_reading(record.files.best, dataset.greys, request.image_size)
    card.write(request, record, winner, metrics)
    shutil.rmtree(record.files.exports, ignore_errors=True)  # they are of another model, if any are there
    return metrics


def runners_up(rows: Sequence[Row]) -> list[Row]:
    """The trials that are shown beside the best one: the best trial of each of the next best configurations.

    Args:
        rows: best first.
    """
    best: dict[object, Row] = {}
    for row in rows:
        best.setdefault(row.configuration, row)
    return list(best.values())[1:SHOWN]
