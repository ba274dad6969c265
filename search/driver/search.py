"""One search from start to end, new or resumed. Ray is imported late, while the request is completed, to save time."""

import contextlib
import importlib
import threading
import traceback
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from search.cluster.connection import Cluster
from search.driver import resume
from search.driver.outcome import FAILED, INTERRUPTED, Outcome
from search.errors import SearchError, StorageError
from search.record import mirror
from search.record.lock import Lock
from search.record.mirror import Mirror
from search.record.record import Record, now
from search.report.conclusion import again, conclusion
from search.report.console import Display, Steps, quiet
from search.request import request, summary
from search.request.request import Request
from search.trial.preparation import Preparation


class Search:
    """One search: call `begin` or `resume`, then `run`. Its context holds Ray, the preparation process and the lock.

    Args:
        asked: the request, as `request.check` returns it.
        shown: the user's console.

    Attributes:
        record: `None` until the search has begun.
    """

    def __init__(self, asked: Request, shown: Console) -> None:
        self._request, self._shown = asked, shown
        self._held = contextlib.ExitStack()
        self._preparation = Preparation(asked.source, asked.cache)
        self._cluster = Cluster(asked.resources)
        self.record: Record | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()

    def begin(self, origin: Mapping[str, Any]) -> None:
        """Begin a new search: complete the request, and create the record.

        Args:
            origin: the command, versions and options that it comes from, for the record.

        Raises:
            RequestError: names every fault.
        """
        about = self._complete()
        asked = self._request
        summary.demand_room(asked, summary.trials(asked))
        asked.folder.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(Lock(asked.folder))
        if asked.uri:
            mirror.forget(asked.folder)
        record = Record(asked.folder, mirror=self._mirror(), objective=asked.space.objective)
        record.create(status="running", **about, **origin, started=now())
        self.record = record

    def resume(self, options: Mapping[str, Any]) -> None:
        """Resume a search, whatever interrupted it.

        Args:
            options: as `resume.options` returns them.

        Raises:
            RequestError: names every difference from the request then.
            StorageError: its record is gone.
        """
        self._held.enter_context(Lock(self._request.folder))
        about = self._complete()
        record = resume.record(self._request.folder, about)
        record.mirror, record.objective = self._mirror(), self._request.space.objective
        summary.demand_room(self._request, summary.trials(self._request) - len(record.ended))
        record.write_search(status="running", ended=None, **resume.changes(options, about))
        self.record = record

    def run(self) -> Outcome:
        """Run the remaining trials, export the winner, and print the result.

        Raises:
            SearchError: says what ended the search, and how to resume it if that is possible.
            KeyboardInterrupt: the search was interrupted for a second time, or while no trials ran; the record says so.
        """
        if not self.record:
            raise RuntimeError("the search has not begun")
        try:
            self._tell(self.record)
            outcome = self._run(self.record)
        except KeyboardInterrupt:
            _close(self.record, INTERRUPTED)
            raise
        _close(self.record, outcome.status)
        if outcome.status != FAILED:
            interrupted, objective = outcome.status == INTERRUPTED, self._request.space.objective
            conclusion(
                self._shown, self.record, outcome.ranked, outcome.metrics, interrupted=interrupted, objective=objective
            )
        return outcome

    def _complete(self) -> dict[str, Any]:
        """Complete the request while Ray starts; return it as plain data."""
        importing = threading.Thread(target=importlib.import_module, args=("search.driver.tune",))
        self._held.enter_context(self._preparation)
        self._held.enter_context(self._cluster)
        self._preparation.start()
        found = request.find(self._request, Steps(self._shown))
        self._cluster.start()
        importing.start()
        self._request = request.complete(self._request, found, self._preparation, Steps(self._shown))
        if self._request.resources.address:
            self._cluster.wait()
            self._demand_nodes()
        return summary.described(self._request)

    def _demand_nodes(self) -> None:
        from search.cluster import nodes

        self._request = replace(self._request, question=nodes.demand_ready(self._request))

    def _mirror(self) -> Mirror | None:
        asked = self._request
        return self._held.enter_context(Mirror(asked.uri, asked.folder)) if asked.uri else None

    def _tell(self, record: Record) -> None:
        lines = summary.about_images(self._request)
        if record.damaged:
            lines.append(f"{record.history.path}: {record.damaged} damaged lines are left out")
        for line in [*lines, *self._request.notes, summary.summary(self._request)]:
            self._shown.print(line, markup=False, highlight=False, soft_wrap=True)

    def _run(self, record: Record) -> Outcome:
        log, space = record.files.log, self._request.space
        with quiet(log) as user:
            try:
                from search.driver.tune import Trials

                longest = replace(space.budget, epochs=space.longest)
                display = Display(user, longest, record.rows, space.objective)
                return Trials(self._request, record, display, self._preparation, self._cluster).run()
            except StorageError as error:
                _close(record, FAILED)
                hint = f"what was recorded is kept; to go on, once it is back: {again(record)}"
                raise StorageError(f"{error}\n{hint}") from error
            except SearchError:
                _close(record, FAILED)
                raise
            except Exception:  # noqa: BLE001 a bug: it is shown whole, and the record says so
                said = (
                    f"{traceback.format_exc()}\nThe search failed; its log is {log}\nto go on with it: {again(record)}"
                )
                user.print(said, markup=False, highlight=False, soft_wrap=True)
                return Outcome(FAILED, [], 0, {})


def _close(record: Record, status: str) -> None:
    with contextlib.suppress(OSError, StorageError):  # a lost storage has been reported already
        record.write_search(status=status, ended=now())
