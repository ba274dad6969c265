"""What runs in Ray's worker processes: the trials, and the export of the winner."""

import contextlib
import functools
import math
import os
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from search.cluster import nodes
from search.data.store import silent
from search.errors import NodeError, StorageError, cause
from search.internals import of_ray
from search.machine import storage_fault
from search.process import importing_keras
from search.record.files import RUN_BEST, RUN_TRAIN, RUN_VALIDATION, Files
from search.record.mirror import Mirror
from search.record.record import Row, keep_others_out
from search.request.request import Request
from search.trial import training
from search.trial.training import Configuration

if TYPE_CHECKING:
    from search.trial.reuse import Pool

SECONDS_BETWEEN_LOOKS = 0.5


class Pause:
    """Asks all trials of a search, on every node, to save a checkpoint and end after their current epoch."""

    def __init__(self) -> None:
        self._key = f"finetune-search/pause/{uuid.uuid4()}".encode()
        self._looked_at = -math.inf
        self._asked = False

    def ask(self) -> None:
        """Ask all trials to pause."""
        of_ray.write(self._key, b"1")

    def asked(self) -> bool:
        """Whether trials are asked to pause; the cluster's store is read at most every `SECONDS_BETWEEN_LOOKS`."""
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._asked = of_ray.read(self._key) is not None
            self._looked_at = time.monotonic()
        return self._asked


@dataclass
class Process:
    """What one worker process keeps from trial to trial.

    Args:
        fit: the ids of the nodes that are known to be fit.
        filled: the folders whose features it has computed, or has tried to compute.
        pool: its backbone and networks; `None` before the first trial.
    """

    fit: set[str] = field(default_factory=set)
    filled: set[Path] = field(default_factory=set)
    pool: "Pool | None" = None


def run_trial(config: dict[str, Any], request: Any, deadline: float, pause: Pause, process: Process) -> None:
    """Run one trial in a Ray worker, from its last checkpoint if there is one.

    An error of the trial is reported, as `failure` and `traceback`, because it would occur again. After a raised error,
    or the death of this process, Ray starts the trial again.

    Raises:
        NodeError: the node of a cluster cannot run trials, or has lost the storage.
        StorageError: on a local Ray, the storage is lost.
    """
    asked: Request = ray.get(request)
    if asked.question:
        nodes.demand_fit(asked.question, process.fit)
    try:
        _train(config, asked, deadline, pause, process)
    except StorageError as error:
        if not asked.question:
            raise
        raise NodeError(ray.get_runtime_context().get_node_id(), nodes.this_node(), [str(error)]) from error


def _train(config: dict[str, Any], asked: Request, deadline: float, pause: Pause, process: Process) -> None:
    keep_others_out()
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
    with importing_keras(asked.resources.cpus_per_trial):
        from search.trial import callbacks
        from search.trial.reuse import Pool

    pool = process.pool = process.pool or Pool()
    if not (asked.uri or asked.folder.is_dir()):  # later writes would create it again
        raise StorageError(f"{asked.folder} cannot be written: it is gone")
    chosen = {name: value for name, value in config.items() if name != "trial"}
    configuration = asked.configuration(config["trial"], chosen, deadline)
    send = _fetched(asked, configuration)
    if asked.resources.address:
        _fill_on_node(asked, pool, process.filled)
    stopped = False

    def report(metrics: dict[str, float | int | str]) -> None:
        nonlocal stopped
        send()
        try:
            tune.report({**metrics, "crowded": pool.crowded()})
        except SystemExit as error:
            stopped = True
            raise callbacks.Stopped from error

    try:
        training.train(pool, configuration, report, pause.asked)
        send()
    except StorageError:
        raise
    except Exception as error:
        if fault := storage_fault(error, asked.folder):
            raise StorageError(fault) from error
        failure = {"failure": _where(error, asked) + cause(error), "traceback": traceback.format_exc(), "crowded": True}
        tune.report({"epoch": 0, "objective": math.nan, **failure})
    if stopped:
        sys.exit(0)


def _where(error: BaseException, request: Request) -> str:
    """If a component or a metric of the space file raised the error, the file and line; else empty."""
    files = request.space.files
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{lines[-1].filename}, line {lines[-1].lineno}: " if lines else ""


def _fetched(request: Request, configuration: Configuration) -> Callable[[], None]:
    """If the search is in object storage, fetch a trial's checkpoints; return what sends them and its events there."""
    if not request.uri:
        return lambda: None
    mirror = Mirror(request.uri, request.folder)
    part = configuration.folder.relative_to(request.folder).as_posix()
    events = configuration.tensorboard.relative_to(request.folder).as_posix()
    try:
        mirror.fetch(part)
    except OSError as error:
        raise StorageError(f"{request.uri} cannot be read: {error}") from error
    return functools.partial(mirror.send_trial, part, f"{events}/{RUN_TRAIN}", f"{events}/{RUN_VALIDATION}")


def _fill_on_node(request: Request, pool: "Pool", filled: set[Path]) -> None:
    """Compute the features on a node of a cluster; each process tries this only once, even if it fails."""
    from search import features

    work = request.workload
    if work.place.folder in filled:
        return
    filled.add(work.place.folder)
    with contextlib.suppress(OSError):  # the trial then runs the frozen layers itself
        features.fill(work.place, work.cuts, pool.backbone(request.source), work.limit, silent)


class Export:
    """Exports trials, as a Ray actor: on a cluster with the CPUs of a trial, else with all, as the trials are over.

    Args:
        request: of the search.
    """

    def __init__(self, request: Request) -> None:
        self._request, resources = request, request.resources
        keep_others_out()
        with importing_keras(resources.cpus_per_trial if resources.address else resources.cpus):
            from search.trial.reuse import Pool

        self._pool, self._fit = Pool(), set[str]()
        self._pool.backbone(request.source)

    def export(self, row: Row, mixed: Sequence[Row], others: Sequence[Row]) -> tuple[dict[str, Any], dict[str, str]]:
        """Write the model of a trial, and the pictures that show how it and other trials work.

        Args:
            row: the trial.
            mixed: trials whose weights may be averaged with its own, see `training.export`.
            others: trials that are shown beside it.

        Returns:
            The model's figures (see `training.Exported`); and trial → why it cannot be shown.

        Raises:
            CheckpointError: the weights cannot be read.
            NodeError: this node cannot run the export.
        """
        request, best = self._request, Files(self._request.folder).best
        if request.question:
            nodes.demand_fit(request.question, self._fit)
        best.mkdir(parents=True, exist_ok=True)
        configuration = self._configuration(row)
        candidates = [(self._configuration(one), one.best_epoch or 0) for one in mixed]
        calibrated = request.space.settings["calibrate"] == "true"
        epoch = row.best_epoch or 0
        exported = training.export(self._pool, configuration, best, epoch, candidates, calibrated=calibrated)
        unshown: dict[str, str] = {}
        sent = [best.name]
        for one in (row, *others):
            try:
                if one is row:
                    training.show_tested(configuration, exported, best)
                else:
                    configuration = self._configuration(one)
                training.show(self._pool, configuration, one.best_epoch or 0, exported)
                sent.append((configuration.tensorboard / RUN_BEST).relative_to(request.folder).as_posix())
            except Exception as error:  # noqa: BLE001 the model is there
                traceback.print_exc()
                unshown[one.trial] = cause(error)
        if request.uri:
            Mirror(request.uri, request.folder).send(*sent)
        return exported.figures, unshown

    def _configuration(self, row: Row) -> Configuration:
        """The configuration of a trial; its checkpoints are fetched first if they are in object storage."""
        configuration = self._request.configuration(row.trial, dict(row.parameters))
        _fetched(self._request, configuration)
        return configuration
