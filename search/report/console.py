"""What the user sees while a search runs: progress, a live table on a terminal, one line for every trial that ends."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from search.budget import Budget
from search.record.record import Row
from search.record.states import COMPLETED, DIVERGED, FAILED, RUNNING, STOPPED
from search.task.metric import figure
from search.task.objective import Objective

COLOURS = {COMPLETED: "green", STOPPED: "yellow", DIVERGED: "red", FAILED: "red", RUNNING: "cyan"}


class _Voice(io.FileIO):
    """Where somebody listens, or nobody any more: what cannot be written is left unsaid, for the record has it."""

    def write(self, said: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(said) or len(said)
        return len(said)


def steady() -> None:
    """Have nothing that is printed end this command, whose standard streams are changed for good.

    What a stream cannot take any more is lost, what its encoding cannot show is escaped, and one that was closed from
    the start leads nowhere.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    encodings = [getattr(stream, "encoding", "utf-8") for stream in (sys.stdout, sys.stderr)]
    sys.stdout, sys.stderr = (_stream(number, encodings[number - 1]) for number in (1, 2))


def _stream(descriptor: int, encoding: str, owned: bool = False) -> io.TextIOWrapper:
    """Text to a descriptor, which is closed with it if it is `owned`."""
    bytewise = io.BufferedWriter(_Voice(descriptor, "w", closefd=owned))
    return io.TextIOWrapper(bytewise, encoding, errors="backslashreplace", line_buffering=True)


def console(file: IO[str] | None = None) -> Console:
    """The user's console; where it is no terminal, lines may be as long as they are."""
    file = file or sys.stdout
    found = Console(file=file)
    return found if found.is_terminal else Console(file=file, width=200)


def complain(message: str) -> None:
    """Tell the user what is wrong."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)


class Display:
    """Shows a search on a console; on anything but a terminal it prints plain lines.

    Args:
        shown: where to.
        budget: what the search may spend.
        rows: the trials of a search that goes on.
    """

    def __init__(self, shown: Console, budget: Budget, rows: Mapping[str, Row], objective: Objective) -> None:
        self._console, self._budget, self._metric = shown, budget, objective.metric
        self._rows = {trial: row for trial, row in rows.items() if row.state != RUNNING}
        self._best: Row | None = None
        self._began = time.monotonic()
        live = Live(console=shown, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live = live if shown.is_terminal else None
        self.steps = Steps(shown, self._refresh if self._live else None)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.update(Group(), refresh=True)
            self._live.stop()

    def extend(self, budget: Budget) -> None:
        """There are more trials to come."""
        self._budget = budget

    def tell(self, line: str) -> None:
        """Say something."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, row: Row, best: Row | None) -> None:
        """Show how a trial stands; `best` is the best trial so far."""
        self._rows[row.trial], self._best = row, best
        if row.state != RUNNING:
            self._console.print(self._line(row), highlight=False, soft_wrap=True)
        self._refresh()

    def _refresh(self) -> None:
        if self._live:
            self._live.update(Group(self._table(), *self.steps.shown), refresh=True)

    def _line(self, row: Row) -> str:
        star = " [bold]best so far[/bold]" if self._best and self._best.trial == row.trial else ""
        state = f"[{COLOURS[row.state]}]{row.state}[/]"
        counted = f"{len([r for r in self._rows.values() if r.state != RUNNING])}/{self._budget.trials}"
        value = f"  {self._metric} {known}" if (known := figure(row.value(self._metric))) else ""
        epochs = f"{row.epochs}/{self._budget.epochs} epochs, {row.seconds:.0f} s"
        reason, parameters = escape(row.reason), escape(described(row))
        return f"{counted}  trial {row.trial} {state}: {reason}{value}  {epochs}  {parameters}{star}"

    def _figure(self, row: Row) -> str:
        return figure(row.value(self._metric))

    def _table(self) -> Table:
        table = Table(title=self._progress_line(), title_justify="left", expand=False)
        for column in ("trial", "epoch", self._metric, "parameters"):
            table.add_column(column, overflow="fold")
        for row in self._rows.values():
            if row.state == RUNNING:
                table.add_row(
                    row.trial, f"{row.epochs}/{self._budget.epochs}", self._figure(row), escape(described(row))
                )
        if self._best:
            table.add_section()
            table.add_row(f"best {self._best.trial}", "", self._figure(self._best), escape(described(self._best)))
        return table

    def _progress_line(self) -> str:
        ended = len([row for row in self._rows.values() if row.state != RUNNING])
        spent = time.monotonic() - self._began
        left = [spent / ended * (self._budget.trials - ended)] if ended else []
        left += [self._budget.time_s - spent] if self._budget.time_s else []
        remaining = f", about {max(0.0, min(left)):.0f} s left" if left else ""
        return f"{ended} of {self._budget.trials} trials ended, {spent:.0f} s{remaining}"


class Steps:
    """Progress bars of what comes before the trials, with rate and time left; off a terminal a line now and then.

    Args:
        shown: where to.
        refresh: shows anew the display that the bars are a part of; `None`: they are shown by themselves.
    """

    LINE_EVERY_S = 30.0

    def __init__(self, shown: Console, refresh: Callable[[], None] | None = None) -> None:
        self._console, self._refresh = shown, refresh
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=shown,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._line_at = time.monotonic()

    @property
    def shown(self) -> list[Progress]:
        """The bars, while there is something to do."""
        return [] if self._bars.finished else [self._bars]

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        now = time.monotonic()
        rate = done / max(1e-3, now - self._began.setdefault(what, now))
        if self._console.is_terminal:
            self._bar(what, done, total, f"{rate:.0f}/s" if rate < done else "")
        elif done == total:
            self._console.print(f"{what}: {total}", highlight=False)
        elif now - self._line_at >= self.LINE_EVERY_S:
            self._line_at = now
            left = (total - done) / max(rate, 1e-9)
            self._console.print(f"{what}: {done} of {total}, {rate:.0f}/s, about {left:.0f} s left", highlight=False)

    def _bar(self, what: str, done: int, total: int, rate: str) -> None:
        if what not in self._tasks:
            if not self._refresh:
                self._bars.start()
            self._tasks[what] = self._bars.add_task(what, total=total, rate="")
        self._bars.update(self._tasks[what], completed=done, total=total, rate=rate)
        if self._refresh:
            self._refresh()
        elif done == total:
            self._bars.stop()


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[Console]:
    """Send what any library of this process prints to a log file; give a console that still reaches the user."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("ab") as file, _stream(os.dup(1), sys.stdout.encoding, owned=True) as user:
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield console(user)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):  # the log's disk may be full
                    stream.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


@contextlib.contextmanager
def aside() -> Iterator[Console]:
    """A console on the standard error, which still reaches the user within `quiet`."""
    with _stream(os.dup(2), sys.stderr.encoding, owned=True) as user:
        yield console(user)


def described(row: Row) -> str:
    """The parameters in a few words."""
    return " ".join(f"{name}={_short(value)}" for name, value in row.parameters.items())


def _short(value: object) -> str:
    try:
        return f"{float(value):.3g}" if not isinstance(value, bool) else str(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
