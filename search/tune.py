"""Joins searcher, scheduler and trial in one `ray.tune.Tuner`. The only place where Ray meets a trial."""

import functools
import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

import ray
from ray import tune

from search import winner, worker
from search.cluster import Cluster, slots
from search.console import Display
from search.errors import NoUsableTrialError
from search.prepare import Preparation
from search.record import FAILED, Record, Row, ranked
from search.recorder import Recorder
from search.request import Request
from search.scheduler import Asha
from search.searcher import Searcher
from search.tensorboard import Directory


@dataclass(frozen=True)
class Outcome:
    """How a search ended: its trials best first, how many failed, and whether it was interrupted."""

    ranked: list[Row]
    failed: int
    interrupted: bool
    metrics: dict[str, Any]


class RepeatedFailureError(RuntimeError):
    """The first trials all failed for one cause: a bug, not an unlucky configuration."""


def run(
    request: Request,
    record: Record,
    display: Display,
    preparation: Preparation,
    *,
    cluster: Cluster,
    resume: bool = False,
) -> Outcome:
    """Run a whole search, or go on with one, and export its winner.

    Args:
        preparation: computes the features meanwhile.
        cluster: is being started.

    Raises:
        NoUsableTrialError: no trial gave a model.
        RepeatedFailureError: the first trials all failed for one cause.
    """
    directory = Directory(record.tensorboard)
    if not resume:
        directory.declare(request.space)
        record.write_trials()
    exporter = winner.Exporter(request, functools.partial(slots, request))
    recorder = Recorder(record, directory, request.space, display, exporter.trials_left)
    try:
        with display:
            begun = _prepare(request, preparation, display)
            cluster.wait()
            begun.wait()
            interrupted = _fit(request, recorder, resume)
        best = ranked(record.rows.values(), request.space.objective.metric)
        failed = sum(row.state == FAILED for row in record.rows.values())
        if recorder.bug:
            raise RepeatedFailureError(recorder.bug)
        if not best and not interrupted:
            raise NoUsableTrialError(f"no trial gave a model; {record.trials} says why for each of them")
        metrics = {}
        if not interrupted:
            metrics = winner.write_figures(request, record, *winner.export_best(exporter, record, best, display))
        return Outcome(best, failed, interrupted, metrics)
    finally:
        cluster.close()


def _prepare(request: Request, preparation: Preparation, display: Display) -> threading.Event:
    """Have this node's features computed meanwhile; the event tells that no trial can come before the pass.

    On a cluster, whoever needs features computes them.
    """
    begun = threading.Event()

    def follow() -> None:
        try:
            probed = request.space.objective if request.space.settings["head_start"] == "probe" else None
            preparation.fill(request.features, request.cuts, request.limit, probed)
            begun.set()
            fault = preparation.wait(display.steps)
        except (RuntimeError, OSError, ValueError) as error:  # it died, or was ended with the search
            fault = str(error)
        finally:
            begun.set()
        if fault:
            display.tell(f"the features are not kept: {fault}; every trial runs the frozen layers itself")

    if request.address:
        begun.set()
    else:
        threading.Thread(target=follow, daemon=True).start()
    return begun


def _fit(request: Request, recorder: Recorder, resume: bool) -> bool:
    """Run the trials; return whether the search was interrupted."""
    tuner = _restored(request, recorder) if resume else _new(request, recorder)
    with _Interruption() as interruption:
        tuner.fit()
    if not interruption.happened:
        recorder.close()
    return interruption.happened


class _Interruption:
    """Ctrl-C and SIGTERM, once: Ray saves its state and ends `fit`; twice: at once."""

    def __init__(self) -> None:
        self.happened = False

    def __enter__(self) -> Self:
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        self._before = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        ray_listens = callable(signal.getsignal(signal.SIGUSR1))
        if self.happened or not ray_listens:
            raise KeyboardInterrupt
        self.happened = True
        signal.raise_signal(signal.SIGUSR1)


def _trainable(request: Request) -> Any:
    resources = {"cpu": request.cpus_per_trial, "gpu": request.gpus_per_trial}
    deadline = time.time() + (request.space.budget.time_s or math.inf)
    return tune.with_resources(
        functools.partial(worker.run_trial, request=ray.put(request), deadline=deadline), resources
    )


def _new(request: Request, recorder: Recorder) -> tune.Tuner:
    space, record = request.space, Record(request.folder)
    recorder.searcher = Searcher(space, str(space.settings["sampler"]), request.seed, record.journal)
    recorder.scheduler = Asha(space.budget, space.objective, record.ray / "rungs.json")
    return tune.Tuner(
        _trainable(request),
        tune_config=tune.TuneConfig(
            search_alg=recorder.searcher,
            scheduler=recorder.scheduler,
            num_samples=space.budget.trials,
            max_concurrent_trials=request.max_concurrent or slots(request),
            time_budget_s=space.budget.time_s,
            reuse_actors=True,
            trial_dirname_creator=lambda t: str(t.trial_id),
        ),
        run_config=tune.RunConfig(
            name=record.ray.name,
            storage_path=str(record.folder),
            stop=recorder.stopper,
            callbacks=[recorder],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            log_to_file=True,
            verbose=0,
        ),
    )


def _restored(request: Request, recorder: Recorder) -> tune.Tuner:
    """The interrupted search from Ray's snapshot, followed by a new recorder."""
    tuner = tune.Tuner.restore(str(Record(request.folder).ray), _trainable(request), resume_unfinished=True)
    run_config, tune_config = tuner._local_tuner.get_run_config(), tuner._local_tuner._tune_config
    run_config.callbacks, run_config.stop = [recorder], recorder.stopper
    recorder.searcher, recorder.scheduler = tune_config.search_alg, tune_config.scheduler
    return tuner
