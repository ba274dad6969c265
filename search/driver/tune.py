"""Joins searcher, scheduler and trial in one `ray.tune.Tuner`. The only place where Ray meets a trial."""

import contextlib
import functools
import math
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group

from search import signals
from search.cluster import nodes
from search.cluster.connection import Cluster, Share, elsewhere, slots
from search.driver import confirmation, winner, worker
from search.driver.recorder import Recorder
from search.driver.scheduler import Scheduler
from search.driver.searcher import Searcher
from search.errors import NoUsableTrialError, StorageError, cause
from search.internals import of_ray
from search.machine import storage_fault
from search.record.ranking import ranked
from search.record.record import Record, Row
from search.record.states import FAILED, STOPPED
from search.report.console import Display
from search.request.request import Request
from search.trial.preparation import Preparation
from search.trial.tensorboard import Directory


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
    if request.question:
        request = replace(request, question=nodes.later(request.question, request))
    if not resume:
        Directory(record.tensorboard).declare(request.space)
    try:
        with display:
            recorder, exporter = _run_trials(request, record, display, preparation, cluster)
        if not recorder.fault:
            recorder.close()
        if recorder.fault:
            raise recorder.fault
        if recorder.bug:
            raise RepeatedFailureError(recorder.bug)
        best = ranked(record.rows.values(), request.space.objective.metric)
        failed = sum(row.state == FAILED for row in record.rows.values())
        if recorder.pausing:
            return Outcome(best, failed, interrupted=True, metrics={})
        if not best:
            raise NoUsableTrialError(_no_model(request, record, recorder.late))
        mixed = request.space.settings.whole("soup")
        metrics = winner.write_figures(request, record, *winner.export_best(exporter, record, best, display, mixed))
        return Outcome(best, failed, interrupted=False, metrics=metrics)
    finally:
        cluster.close()


def _no_model(request: Request, record: Record, late: bool) -> str:
    """Why there is none, and what to do."""
    rows = record.rows.values()
    if not late or any(row.epochs or row.state != STOPPED for row in rows):
        return f"no trial gave a model; {record.trials} says why for each of them"
    began = f"trials had begun ({len(rows)}), and none had ended its first epoch" if rows else "no trial had begun"
    return (
        f"the time budget of {request.space.budget.time_s:g} s was used up too soon: {began}. Begin a search with a "
        "larger --time-budget; it starts faster, for images and features that were computed are in the cache"
    )


def _run_trials(
    request: Request, record: Record, display: Display, preparation: Preparation, cluster: Cluster
) -> tuple[Recorder, winner.Exporter]:
    """Run the trials that are left, with Ray started anew where it fails; return what followed them."""
    pause, left = worker.Pause(), request.space.max_failures
    begun = _prepare(request, preparation, display)
    while True:
        cluster.wait()
        begun.wait()
        exporter = winner.Exporter(request, functools.partial(slots, request.resources))
        with Share(request.resources) as share:
            recorder = _recorder(request, record, display, pause=pause, exporter=exporter, share=share)
            try:
                _fit(request, record, recorder, pause)
                if not recorder.over and (confirming := confirmation.due(request, record)):
                    recorder.searcher.close()
                    recorder = _confirm(
                        request, record, display, confirming, pause=pause, exporter=exporter, share=share
                    )
                if not left or not recorder.unfinished:
                    return recorder, exporter
            except Exception as error:
                if _lost(error, recorder, record):
                    return recorder, exporter
                if not left or not _of_ray(error):
                    raise
                display.tell(f"Ray is started anew, and every trial goes on from its last checkpoint: {cause(error)}")
                cluster.restart()
        left -= 1


def _confirm(
    request: Request,
    record: Record,
    display: Display,
    configurations: list[dict[str, Any]],
    *,
    pause: worker.Pause,
    exporter: winner.Exporter,
    share: Share,
) -> Recorder:
    """Run the confirming trials that are left; return what followed them."""
    over = {row.trial for row in record.ended}
    left = [configuration for configuration in configurations if configuration["trial"] not in over]
    asked = confirmation.extended(request, len(configurations))
    display.extend(asked.space.budget)
    if left:
        display.tell(f"{len(left)} trials confirm the best configurations, with other seeds")
    searcher = confirmation.Confirmation(left, asked.space.objective, share)
    recorder = _following(asked, record, display, searcher, pause=pause, exporter=exporter)
    _fit(asked, record, recorder, pause)
    return recorder


def _recorder(
    request: Request, record: Record, display: Display, *, pause: worker.Pause, exporter: winner.Exporter, share: Share
) -> Recorder:
    """What follows the search's trials, with a searcher that knows all that the record does."""
    searcher = Searcher(request.space, request.space.sampler, request.seed, record, share)
    return _following(request, record, display, searcher, pause=pause, exporter=exporter)


def _following(
    request: Request,
    record: Record,
    display: Display,
    searcher: Searcher | confirmation.Confirmation,
    *,
    pause: worker.Pause,
    exporter: winner.Exporter,
) -> Recorder:
    """What follows trials, with a scheduler that knows all that the record does."""
    space = request.space
    return Recorder(
        record,
        space,
        display,
        searcher=searcher,
        scheduler=Scheduler(request.rule, record, searcher.too_many),
        ask_to_pause=pause.ask,
        trials_left=exporter.trials_left,
        places=functools.partial(slots, request.resources),
    )


def _lost(error: BaseException, recorder: Recorder, record: Record) -> bool:
    """Whether the storage is lost: Ray raises an error where it cannot print into a log on a full disk."""
    if isinstance(error, OSError) and (said := storage_fault(error, record.folder)):
        recorder.fault = recorder.fault or StorageError(said)
    return recorder.fault is not None


def _of_ray(error: BaseException) -> bool:
    """Whether Ray itself failed, not what it was given: Tune ends at what it does not expect of a process."""
    found = error if isinstance(error, RayError) else error.__cause__
    return isinstance(found, RayError) and not isinstance(found, RayTaskError)


def _prepare(request: Request, preparation: Preparation, display: Display) -> threading.Event:
    """Have this node's features computed meanwhile; the event tells that no trial can come before the pass.

    On a cluster, whoever needs features computes them.
    """
    begun = threading.Event()
    work, probed = request.workload, request.space.objective if request.space.probed else None

    def follow() -> None:
        try:
            preparation.fill(work.place, work.cuts, work.limit, probed)
            begun.set()
            fault = preparation.wait(display.steps)
        except (RuntimeError, OSError, ValueError) as error:  # it died, or was ended with the search
            fault = str(error)
        finally:
            begun.set()
        if fault:
            with contextlib.suppress(ValueError):  # the search is over, and nobody listens
                display.tell(f"the features are not kept: {fault}; every trial runs the frozen layers itself")

    if request.resources.address:
        begun.set()
    else:
        threading.Thread(target=follow, daemon=True).start()
    return begun


def _fit(request: Request, record: Record, recorder: Recorder, pause: worker.Pause) -> None:
    """Run the trials that are left."""
    budget = request.space.budget
    trials = budget.trials - len(record.ended)
    seconds = budget.time_s - record.seconds if budget.time_s else None
    if trials > 0 and (seconds is None or seconds > 0):
        recorder.begin()
        answer = functools.partial(_interrupt, recorder)
        with tempfile.TemporaryDirectory(prefix="finetune-search-") as folder, signals.answered(answer):
            _tuner(request, recorder, pause, folder=Path(folder), trials=trials, seconds=seconds).fit()


class Places(tune.PlacementGroupFactory):  # type: ignore[misc]
    """Where trials run: on the nodes that are not known to be unfit when a place is asked for."""

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for a place."""
        return placement_group(self.bundles, self.strategy, bundle_label_selector=[elsewhere()] * len(self.bundles))


def _interrupt(recorder: Recorder, number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Ctrl-C and the like, once: the running trials are saved after their epoch, then `fit` ends; twice: at once."""
    if recorder.pausing:
        raise KeyboardInterrupt
    recorder.pausing = True


def _tuner(
    request: Request, recorder: Recorder, pause: worker.Pause, *, folder: Path, trials: int, seconds: float | None
) -> tune.Tuner:
    """Ray's part of a search.

    Args:
        folder: for what Ray writes; nobody reads it.
        trials: how many are left.
        seconds: how many are left.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(sys.maxsize)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(sys.maxsize)  # the searcher proposes no more than there is room for
    of_ray.take_any_end_for_a_death()
    of_ray.leave_signals_alone()
    places = Places([request.resources.bundle])
    deadline = time.time() + (math.inf if seconds is None else seconds)
    run = functools.partial(worker.run_trial, request=ray.put(request), deadline=deadline, pause=pause)
    return tune.Tuner(
        tune.with_resources(run, places),
        tune_config=tune.TuneConfig(
            search_alg=recorder.searcher,
            scheduler=recorder.scheduler,
            num_samples=trials,
            time_budget_s=seconds,
            reuse_actors=True,
            trial_dirname_creator=lambda t: str(t.trial_id),
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder),
            stop=recorder.stopper,
            callbacks=[recorder],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=request.space.max_failures),
            verbose=0,
        ),
    )
