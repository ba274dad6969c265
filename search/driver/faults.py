"""What has gone wrong while a search runs, and whether the search ends for it."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from ray import cloudpickle
from ray.tune.experiment import Trial

from search import machine
from search.cluster.connection import Fleet
from search.errors import NodeError, StorageError
from search.record import objects
from search.record.record import Record

SAME_FAILURE_LIMIT = 3


class Faults:
    """The faults of a search.

    Args:
        record: of the search.
        fleet: the nodes that trials run on.
        tell: tells the user something.
        max_failures: how often a trial's process may die before the trial fails.

    Attributes:
        bug: the traceback that the first trials all failed with; empty where they did not.
        storage: why the search's folder cannot be written any more; `None` while it can.
    """

    def __init__(self, record: Record, fleet: Fleet, tell: Callable[[str], None], max_failures: int) -> None:
        self._record, self._fleet, self._tell, self._max_failures = record, fleet, tell, max_failures
        self._causes: list[str] = []
        self._deaths: Counter[str] = Counter()
        self.bug = ""
        self.storage: StorageError | None = None

    @contextlib.contextmanager
    def storing(self) -> Iterator[None]:
        """Note an `OSError` of what is written within: the search then ends."""
        try:
            yield
        except OSError as error:
            self.lost(error)

    def lost(self, error: OSError) -> None:
        """Note that the search's folder cannot be written; the first reason counts."""
        self.storage = self.storage or StorageError(f"{self._record.home} cannot be written: {error}")

    def of(self, trial: Trial) -> BaseException:
        """What ended a trial's process, from Ray's own folder on this machine; a lost node or storage is noted."""
        if not trial.pickled_error_file:
            return RuntimeError(Path(trial.error_file).read_text("utf-8").strip().splitlines()[-1])
        error: BaseException = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        origin = getattr(error, "cause", None)
        if isinstance(origin, NodeError):
            self._leave(origin)
        if isinstance(origin, StorageError):
            self.storage = self.storage or origin
        return error

    def may_go_on(self, trial: str, error: BaseException) -> bool:
        """Whether a trial whose process died is to go on in another. A lost node does not count against the trial."""
        preempted = getattr(error, "preempted", False)  # the node was taken away, with notice
        self._deaths[trial] += not (preempted or isinstance(getattr(error, "cause", None), NodeError))
        return self._deaths[trial] <= self._max_failures

    def succeeded(self) -> None:
        """Note that a trial ended by itself."""
        self._causes.append("")

    def failed(self, cause: str, traceback: str) -> None:
        """Note that a trial failed. Where the first ones all fail for one cause, that is a bug."""
        self._causes.append(cause)
        if len(self._causes) == SAME_FAILURE_LIMIT and len(set(self._causes)) == 1:
            self.bug = traceback

    def _leave(self, error: NodeError) -> None:
        """Run no more trials on a node; end the search where it is not the node's fault, or no other is left."""
        away = self._record.mirror
        unreachable = away and objects.fault(away.storage)
        fault = f"{self._record.home} {unreachable}" if unreachable else machine.lost(self._record.folder)
        if fault:
            self.storage = self.storage or StorageError(fault)
            return
        self._fleet.leave_out(error, self._tell)
        if not self._fleet.room():
            self.storage = self.storage or StorageError(f"no node is left that trials can run on: {error}")
