"""The command line: reads the options and calls `tune`."""

import argparse
import importlib
import shlex
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from rich.console import Console

from search import request, resume
from search.cluster import Cluster
from search.console import Display, Steps, complain, conclusion, console, quiet
from search.errors import RequestError, SearchError, unknown
from search.prepare import Preparation
from search.record import Record, now, read

DONE, FAILED, WRONG_REQUEST, SOME_TRIALS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
RECORDED_VERSIONS = (
    "finetune-search",
    "ray",
    "optuna",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "tensorboard",
    "numpy",
)


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
    add("--resume", metavar="NAME", help="go on with a search that was interrupted")
    add("--storage", default="results", metavar="DIR", help="where searches are kept (default: results)")
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
    try:
        options = _parse(given)
        if options.resume is not None:
            options = resume.options(options, parser().parse_args([]))
        return _search(request.check(options), options, given)
    except SearchError as error:
        complain(f"error: {error}")
        return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
    except KeyboardInterrupt:
        complain("interrupted at once; a search that had begun can go on with --resume NAME")
        return INTERRUPTED


def _search(asked: request.Request, options: argparse.Namespace, given: list[str]) -> int:
    shown = console()
    importing = threading.Thread(target=importlib.import_module, args=("search.tune",))
    with Preparation(asked.source, asked.cache) as preparation, Cluster(asked) as cluster:
        preparation.start()
        found = request.find(asked, Steps(shown))
        cluster.start()
        importing.start()
        asked = request.complete(asked, found, preparation, Steps(shown))
        record, about = _recorded(asked, options, given)
        skipped = [f"skipped {path}: {reason}" for path, reason in about["data"]["skipped"]]
        for line in [*skipped, *about["data"]["notes"], request.summary(asked)]:
            shown.print(line, markup=False, highlight=False, soft_wrap=True)
        return _run(asked, record, preparation, cluster, resumed=bool(options.resume), shown=shown)


def _recorded(asked: request.Request, options: argparse.Namespace, given: list[str]) -> tuple[Record, dict[str, Any]]:
    """The record of a new search, or of the one that goes on, and what is asked."""
    about = request.described(asked)
    if options.resume:
        resume.demand_unchanged(about, Record(asked.folder))
        record = read(asked.folder)
        record.write_search(status="running", ended=None)
        return record, about
    record = Record(asked.folder)
    command = shlex.join(["python", "-m", "search.run", *given])
    versions = {
        name: d.version for d in metadata.distributions() if (name := d.name.replace("_", "-")) in RECORDED_VERSIONS
    }
    about |= {"command": command, "versions": versions, "options": vars(options), "started": now()}
    record.write_search(status="running", **about)
    return record, about


def _run(
    asked: request.Request,
    record: Record,
    preparation: Preparation,
    cluster: Cluster,
    *,
    resumed: bool,
    shown: Console,
) -> int:
    log = record.ray / "driver.log"
    with quiet(log) as user:
        try:
            from search import tune

            display = Display(user, asked.space.budget, record.rows)
            outcome = tune.run(asked, record, display, preparation, cluster=cluster, resume=resumed)
        except KeyboardInterrupt:
            record.write_search(status="interrupted", ended=now())
            raise
        except SearchError:
            record.write_search(status="failed", ended=now())
            raise
        except Exception:  # noqa: BLE001 a bug: it is shown whole, and the record says so
            record.write_search(status="failed", ended=now())
            user.print(f"{traceback.format_exc()}\nThe search failed; its log is {log}", markup=False, highlight=False)
            return FAILED
    record.write_search(status="interrupted" if outcome.interrupted else "done", ended=now())
    conclusion(shown, record, outcome.ranked, outcome.metrics, outcome.interrupted)
    if outcome.interrupted:
        return INTERRUPTED
    return SOME_TRIALS_FAILED if outcome.failed else DONE


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
    sys.exit(main())
