"""Combines searcher, scheduler and trial in one `ray.tune.Tuner`. Only here Ray gets the function that runs a trial."""

import contextlib
import functools
import math
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group

from search import signals
from search.cluster import nodes
from search.cluster.connection import Cluster, Fleet, Share
from search.driver import confirmation, winner, worker
from search.driver.faults import Faults
from search.driver.outcome import DONE, INTERRUPTED, Outcome
from search.driver.recorder import Recorder
from search.driver.scheduler import Scheduler
from search.driver.searcher import Searcher
from search.errors import NoUsableTrialError, StorageError, cause
from search.internals import of_ray
from search.machine import storage_fault
from search.record.ranking import ranked
from search.record.record import Record
from search.record.states import FAILED, STOPPED
from search.report.console import Display
from search.request.request import Request
from search.trial.preparation import Preparation
from search.trial.tensorboard import Directory


class RepeatedFailureError(RuntimeError):
    """The first trials all failed for the same reason: this is a bug, not a bad configuration."""


class Trials:
    """Runs the trials of a search with Ray Tune, and exports the best one.

    Args:
        record: of the search; its trials that have not ended continue.
        preparation: computes the features while trials run.
        cluster: still starting.
    """

    def __init__(
        self, request: Request, record: Record, display: Display, preparation: Preparation, cluster: Cluster
    ) -> None:
        if request.question:
            request = replace(request, question=nodes.later(request.question, request))
        self._request, self._record, self._display = request, record, display
        self._preparation, self._cluster = preparation, cluster
        self._pause, self._fleet = worker.Pause(), Fleet(request.resources)
        self._exporter = winner.Exporter(request, self._fleet)

    def run(self) -> Outcome:
        """Run the remaining trials, and export the winner.

        Raises:
            NoUsableTrialError: no trial produced a model.
            RepeatedFailureError: the first trials all failed for the same reason.
            StorageError: the search's folder cannot be written, or no node is left.
        """
        request, record = self._request, self._record
        if not record.rows:
            Directory(record.files.tensorboard).declare(request.space)
        try:
            with self._display:
                recorder = self._with_ray()
            if not recorder.faults.storage:
                recorder.close()
            if recorder.faults.storage:
                raise recorder.faults.storage
            if recorder.faults.bug:
                raise RepeatedFailureError(recorder.faults.bug)
            best = ranked(record.rows.values(), request.space.objective)
            failed = sum(row.state == FAILED for row in record.rows.values())
            if recorder.pausing:
                return Outcome(INTERRUPTED, best, failed, metrics={})
            if not best:
                raise NoUsableTrialError(_no_model(request, record, recorder.late))
            mixed = request.space.settings.whole("soup")
            exported = winner.export_best(self._exporter, record, best, self._display, mixed)
            return Outcome(DONE, best, failed, winner.write_figures(request, record, *exported))
        finally:
            self._cluster.close()

    def _with_ray(self) -> Recorder:
        """Run the trials, and restart Ray if it fails, up to `max_failures` times; return the last recorder."""
        begun, left = self._prepare(), self._request.space.max_failures
        while True:
            self._cluster.wait()
            begun.wait()
            with Share(self._fleet) as share:
                recorder = self._following(self._request, self._searcher(share))
                try:
                    self._fit(self._request, recorder)
                    if not recorder.over and (confirming := confirmation.due(self._request, self._record)):
                        recorder.searcher.close()
                        recorder = self._confirm(confirming, share)
                    if not left or not recorder.unfinished:
                        return recorder
                except Exception as error:
                    if _lost(error, recorder, self._record):
                        return recorder
                    if not left or not _of_ray(error):
                        raise
                    self._display.tell(
                        f"Ray is started anew, and every trial goes on from its last checkpoint: {cause(error)}"
                    )
                    self._cluster.restart()
                    self._exporter = winner.Exporter(self._request, self._fleet)
            left -= 1

    def _searcher(self, share: Share) -> Searcher:
        """A new searcher that knows all trials of the record."""
        return Searcher(self._request.space, self._request.space.sampler, self._request.seed, self._record, share)

    def _confirm(self, configurations: list[dict[str, Any]], share: Share) -> Recorder:
        """Run the remaining confirming trials; return their recorder."""
        over = {row.trial for row in self._record.ended}
        left = [configuration for configuration in configurations if configuration["trial"] not in over]
        asked = confirmation.extended(self._request, len(configurations))
        self._display.extend(asked.space.budget)
        if left:
            self._display.tell(f"{len(left)} trials confirm the best configurations, with other seeds")
        recorder = self._following(asked, confirmation.Confirmation(left, asked.space.objective, share))
        self._fit(asked, recorder)
        return recorder

    def _following(self, request: Request, searcher: Searcher | confirmation.Confirmation) -> Recorder:
        """A new recorder, with a scheduler that knows all trials of the record."""
        places = Places([request.resources.bundle], self._fleet)
        return Recorder(
            self._record,
            request.space,
            self._display,
            searcher=searcher,
            scheduler=Scheduler(request.rule, self._record, searcher.too_many, places),
            ask_to_pause=self._pause.ask,
            trials_left=self._exporter.trials_left,
            faults=Faults(self._record, self._fleet, self._display.tell, request.space.max_failures),
        )

    def _prepare(self) -> threading.Event:
        """Start computing this node's features; the event is set once they are locked, so that trials wait for them.

        On a cluster nothing is computed here: each trial's process computes the features on its own node.
        """
        begun = threading.Event()
        request, work = self._request, self._request.workload
        probed = request.space.objective.of_the_project if request.space.probed else None

        def follow() -> None:
            try:
                self._preparation.fill(work.place, work.cuts, work.limit, probed)
                begun.set()
                fault = self._preparation.wait(self._display.steps)
            except (RuntimeError, OSError, ValueError) as error:  # the process died, or was ended with the search
                fault = str(error)
            finally:
                begun.set()
            if fault:
                with contextlib.suppress(ValueError):  # the search is over, and the display is closed
                    self._display.tell(f"the features are not kept: {fault}; every trial runs the frozen layers itself")

        if request.resources.address:
            begun.set()
        else:
            threading.Thread(target=follow, daemon=True).start()
        return begun

    def _fit(self, request: Request, recorder: Recorder) -> None:
        """Run the remaining trials, if there are any and time is left."""
        budget, record = request.space.budget, self._record
        trials = budget.trials - len(record.ended)
        seconds = budget.time_s - record.seconds if budget.time_s else None
        if trials > 0 and (seconds is None or seconds > 0):
            recorder.begin()
            answer = functools.partial(_interrupt, recorder)
            with tempfile.TemporaryDirectory(prefix="finetune-search-") as folder, signals.answered(answer):
                tuner(request, recorder, self._pause, folder=Path(folder), trials=trials, seconds=seconds).fit()


def _no_model(request: Request, record: Record, late: bool) -> str:
    """Why there is no model, and what to do."""
    rows = record.rows.values()
    if not late or any(row.epochs or row.state != STOPPED for row in rows):
        return f"no trial gave a model; {record.files.trials} says why for each of them"
    began = f"trials had begun ({len(rows)}), and none had ended its first epoch" if rows else "no trial had begun"
    return (
        f"the time budget of {request.space.budget.time_s:g} s was used up too soon: {began}. Begin a search with a "
        "larger --time-budget; it starts faster, for images and features that were computed are in the cache"
    )


def _lost(error: BaseException, recorder: Recorder, record: Record) -> bool:
    """Whether the storage is lost. If so, Ray itself may raise an error: it cannot write its log to a full disk."""
    if isinstance(error, OSError) and (said := storage_fault(error, record.folder)):
        recorder.faults.storage = recorder.faults.storage or StorageError(said)
    return recorder.faults.storage is not None


def _of_ray(error: BaseException) -> bool:
    """Whether Ray itself failed, not this project's code: Tune ends the run after an unexpected end of a process."""
    found = error if isinstance(error, RayError) else error.__cause__
    return isinstance(found, RayError) and not isinstance(found, RayTaskError)


class Places(tune.PlacementGroupFactory):  # type: ignore[misc]
    """A placement group factory that allows only the nodes that are fit when Ray requests the placement group.

    Args:
        bundles: the resources of a trial.
    """

    def __init__(self, bundles: list[dict[str, float]], fleet: Fleet) -> None:
        super().__init__(bundles)
        self._fleet = fleet

    def to_placement_group(self) -> PlacementGroup:
        """Create the placement group of one trial, on the nodes that are fit now."""
        selector = [self._fleet.selector] * len(self.bundles)
        return placement_group(self.bundles, self.strategy, bundle_label_selector=selector)


def _interrupt(recorder: Recorder, number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Handle Ctrl-C and similar signals. The first: running trials are saved after their epoch, then `fit` ends.

    Raises:
        KeyboardInterrupt: at the second signal; the search ends at once.
    """
    if recorder.pausing:
        raise KeyboardInterrupt
    recorder.pausing = True


def tuner(
    request: Request, recorder: Recorder, pause: worker.Pause, *, folder: Path, trials: int, seconds: float | None
) -> tune.Tuner:
    """Build the Tuner that runs the trials.

    Args:
        folder: for the files that Ray writes; the search never reads them.
        trials: how many trials are left.
        seconds: how many seconds are left; `None`: no limit.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(sys.maxsize)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(sys.maxsize)  # the searcher already limits their number
    of_ray.take_any_end_for_a_death()
    of_ray.leave_signals_alone()
    deadline = time.time() + (math.inf if seconds is None else seconds)
    run = functools.partial(
        worker.run_trial, request=ray.put(request), deadline=deadline, pause=pause, process=worker.Process()
    )
    return tune.Tuner(
        tune.with_resources(run, tune.PlacementGroupFactory([request.resources.bundle])),
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
