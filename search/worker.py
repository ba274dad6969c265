"""What runs in Ray's processes: a trial, and the export of the winner."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search import trial
from search.data import silent
from search.machine import importing_keras
from search.record import Record, Row
from search.request import Request

_filled: set[Path] = set()


def run_trial(config: dict[str, Any], request: Any, deadline: float) -> None:
    """Run one trial in a Ray worker."""
    asked: Request = ray.get(request)
    prepare_process(asked.cpus_per_trial)
    with importing_keras():
        from search import callbacks, warm

    if asked.address:
        _fill_on_node(asked)
    stopped = False

    def report(metrics: dict[str, float | int | str]) -> None:
        nonlocal stopped
        try:
            tune.report({**metrics, "crowded": warm.crowded()})
        except SystemExit as error:
            stopped = True
            raise callbacks.Stopped from error

    chosen = {name: value for name, value in config.items() if name != "trial"}
    configuration = asked.configuration(config["trial"], chosen, deadline)
    state = configuration.folder / "last.npz"
    trial.train(configuration, report, state if state.exists() else None)
    if stopped:
        sys.exit(0)


def _fill_on_node(request: Request) -> None:
    """Compute the features on a node of a cluster; once in a process, whatever comes of it."""
    from search import features, warm

    if request.features.folder in _filled:
        return
    _filled.add(request.features.folder)
    with contextlib.suppress(OSError):  # the trial then runs the frozen layers itself
        features.fill(request.features, request.cuts, warm.backbone(request.source), request.limit, silent)


class Export:
    """Exports trials, in an actor.

    Args:
        request: the search's.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        prepare_process(request.cpus_per_trial)
        with importing_keras():
            from search import warm

        warm.backbone(request.source)

    def export(self, row: Row) -> dict[str, Any]:
        """Write the model of a trial; see `trial.export`."""
        configuration = self._request.configuration(row.trial, dict(row.parameters))
        return trial.export(configuration, Record(self._request.folder).best, row.best_epoch or 0)


def prepare_process(cpus: float) -> None:
    """Tell TensorFlow, before it is imported, which share of the machine is its own."""
    threads = str(max(1, int(cpus)))
    os.environ.update(
        KERAS_BACKEND="tensorflow",
        TF_CPP_MIN_LOG_LEVEL="2",
        TF_NUM_INTRAOP_THREADS=threads,
        TF_NUM_INTEROP_THREADS=threads,
        TF_FORCE_GPU_ALLOW_GROWTH="true",
        TUNE_FUNCTION_THREAD_TIMEOUT_S="600",
    )
