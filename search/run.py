"""The command line: reads the options and calls the driver."""

import argparse
import contextlib
import importlib
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from rich.console import Console

from search import machine, signals
from search.cluster.connection import Cluster
from search.driver import resume
from search.errors import RequestError, SearchError, StorageError, unknown
from search.record import mirror
from search.record.lock import Lock
from search.record.mirror import Mirror
from search.record.record import Record, keep_others_out, now
from search.report.console import Display, Steps, again, complain, conclusion, console, quiet, steady
from search.request import request, summary
from search.trial.preparation import Preparation

DONE, FAILED, WRONG_REQUEST, SOME_TRIALS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class Parser(argparse.ArgumentParser):
    """Raises what argparse finds wrong instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise RequestError([f"{message}; see --help"])


def parser() -> Parser:
    """The options. A new one needs a reason that `--set` cannot serve."""
    options = Parser(
        prog="python -m search.run",
        description="Hyperparameter search for fine-tuning image models.",
        epilog="Exit status: 0 done; 1 the search failed; 2 the request is wrong; 3 done, but some trials failed; "
        "130 interrupted.",
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--space", default="finetune", metavar="NAME|FILE.py", help="what may vary (default: finetune)")
    add("--data", metavar="DIR|NAME", help="DIR/<class>/*, DIR/{train,val,test}/<class>/*, or a built-in set")
    add("--backbone", metavar="NAME|FILE.keras", help="a keras.applications name, tiny, or a saved Keras model")
    add("--weights", metavar="imagenet|none|FILE", help="where the backbone's weights come from")
    add("--trials", metavar="N", help="how many trials")
    add("--epochs", metavar="N", help="how long each at most")
    add("--time-budget", metavar="SECONDS", help="how long in all at most")
    add("--name", metavar="NAME", help="the search's folder under --storage (default: space and time)")
    add("--resume", metavar="NAME", help="go on with a search, whatever ended it")
    add("--storage", default="results", metavar="DIR|URI", help="a folder or s3://… for searches (default: results)")
    add("--cache", metavar="DIR", help="this node's cache (default: below the user's cache folder)")
    add("--address", metavar="ADDR", help="join a Ray cluster: auto, or host:port (default: an own local Ray)")
    add("--cpus-per-trial", metavar="N", help="default: fits the machine")
    add("--gpus-per-trial", metavar="N", help="fractions allowed (default: fits the machine)")
    add("--max-concurrent", metavar="N", help="trials at a time (default: fits the machine)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a fixed setting (repeatable)")
    add("--seed", default="0", metavar="N", help="everything random follows from it (default: 0)")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    keep_others_out()
    with signals.answered(signal.default_int_handler):
        try:
            options = _parse(given)
            if options.resume is not None:
                options = resume.options(options, parser().parse_args([]))
            return _search(request.check(options), options, given)
        except SearchError as error:
            complain(f"error: {error}")
            return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
        except KeyboardInterrupt:
            complain("interrupted before the search began; nothing was changed")
            return INTERRUPTED


def _search(asked: request.Request, options: argparse.Namespace, given: list[str]) -> int:
    shown = console()
    importing = threading.Thread(target=importlib.import_module, args=("search.driver.tune",))
    with contextlib.ExitStack() as stack:
        if options.resume:
            stack.enter_context(Lock(asked.folder))
        preparation = stack.enter_context(Preparation(asked.source, asked.cache))
        cluster = stack.enter_context(Cluster(asked.resources))
        preparation.start()
        found = request.find(asked, Steps(shown))
        cluster.start()
        importing.start()
        asked = request.complete(asked, found, preparation, Steps(shown))
        if asked.resources.address:
            cluster.wait()
            asked = _demand_nodes(asked)
        about = summary.described(asked)
        if options.resume:
            record = resume.record(asked.folder, about)
            record.mirror = _mirror(asked, stack)
            summary.demand_room(asked, summary.trials(asked) - len(record.ended))
            record.write_search(status="running", ended=None, **resume.changes(options, about))
        else:
            summary.demand_room(asked, summary.trials(asked))
            asked.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(Lock(asked.folder))
            if asked.uri:
                mirror.forget(asked.folder)
            record = Record(asked.folder, mirror=_mirror(asked, stack))
            record.create(status="running", **about, **_origin(options, given))
        try:
            lines = summary.about_images(asked)
            if record.damaged:
                lines.append(f"{record.history.path}: {record.damaged} damaged lines are left out")
            for line in [*lines, *about["notes"], summary.summary(asked)]:
                shown.print(line, markup=False, highlight=False, soft_wrap=True)
            return _run(asked, record, preparation, cluster, resumed=bool(options.resume), shown=shown)
        except KeyboardInterrupt:
            _close(record, "interrupted")
            complain(f"interrupted at once; to go on: {again(record)}")
            return INTERRUPTED


def _mirror(asked: request.Request, stack: contextlib.ExitStack) -> Mirror | None:
    return stack.enter_context(Mirror(asked.uri, asked.folder)) if asked.uri else None


def _demand_nodes(asked: request.Request) -> request.Request:
    from search.cluster import nodes

    return replace(asked, question=nodes.demand_ready(asked))


def _origin(options: argparse.Namespace, given: list[str]) -> dict[str, Any]:
    """Where a search comes from, for the record."""
    command = shlex.join(["python", "-m", "search.run", *given])
    return {"command": command, "versions": machine.versions(), "options": vars(options), "started": now()}


def _run(
    asked: request.Request,
    record: Record,
    preparation: Preparation,
    cluster: Cluster,
    *,
    resumed: bool,
    shown: Console,
) -> int:
    log, metric = record.ray / "driver.log", asked.space.objective.metric
    with quiet(log) as user:
        try:
            from search.driver import tune

            display = Display(user, replace(asked.space.budget, epochs=asked.space.longest), record.rows, metric)
            outcome = tune.run(asked, record, display, preparation, cluster=cluster, resume=resumed)
        except StorageError as error:
            _close(record, "failed")
            raise StorageError(
                f"{error}\nwhat was recorded is kept; to go on, once it is back: {again(record)}"
            ) from error
        except SearchError:
            _close(record, "failed")
            raise
        except Exception:  # noqa: BLE001 a bug: it is shown whole, and the record says so
            _close(record, "failed")
            said = f"{traceback.format_exc()}\nThe search failed; its log is {log}\nto go on with it: {again(record)}"
            user.print(said, markup=False, highlight=False, soft_wrap=True)
            return FAILED
    _close(record, "interrupted" if outcome.interrupted else "done")
    conclusion(shown, record, outcome.ranked, outcome.metrics, interrupted=outcome.interrupted, metric=metric)
    if outcome.interrupted:
        return INTERRUPTED
    return SOME_TRIALS_FAILED if outcome.failed else DONE


def _close(record: Record, status: str) -> None:
    with contextlib.suppress(OSError, StorageError):  # a storage that is lost has been told of
        record.write_search(status=status, ended=now())


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = parser()
    known, others = options.parse_known_args(arguments)
    names = [name for action in options._actions for name in action.option_strings if name.startswith("--")]
    if others:
        wrong = [unknown("option", other.partition("=")[0], names) for other in others if other.startswith("-")]
        # a plain word may be the value of an unknown option
        raise RequestError(wrong or [f"'{other}' is no option" for other in others])
    return known


if __name__ == "__main__":
    steady()
    sys.exit(main())
