"""The command line: reads the options and calls the driver."""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from search import machine, signals
from search.driver import outcome, resume
from search.driver.outcome import Outcome
from search.driver.search import Search
from search.errors import RequestError, SearchError, unknown
from search.record.record import keep_others_out
from search.report.conclusion import again
from search.report.console import complain, console, steady
from search.request import request

DONE, FAILED, WRONG_REQUEST, SOME_TRIALS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class Parser(argparse.ArgumentParser):
    """An argument parser that raises an error where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise it as a `RequestError`."""
        raise RequestError([f"{message}; see --help"])


def parser() -> Parser:
    """The command's options. Add one only for what `--set` cannot express."""
    options = Parser(
        prog="python -m search.run",
        description="Hyperparameter search for fine-tuning image models.",
        epilog="Exit status: 0 done; 1 the search failed; 2 the request is wrong; 3 done, but some trials failed; "
        "130 interrupted.",
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--space", default="finetune", metavar="NAME|FILE.py", help="what may vary (default: finetune)")
    add(
        "--data",
        metavar="DIR|FILE|NAME",
        help="DIR/<class>/*, DIR/{train,val,test}/<class>/*, a table of images, an archive, or a built-in set",
    )
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
        search: Search | None = None
        try:
            options = _parse(given)
            if options.resume is not None:
                options = resume.options(options, parser().parse_args([]))
            with Search(request.check(options), console()) as search:
                if options.resume is not None:
                    search.resume(vars(options))
                else:
                    command = shlex.join(["python", "-m", "search.run", *given])
                    search.begin({"command": command, "versions": machine.versions(), "options": vars(options)})
                return _status(search.run())
        except SearchError as error:
            complain(f"error: {error}")
            return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
        except KeyboardInterrupt:
            if search and search.record:
                complain(f"interrupted at once; to go on: {again(search.record)}")
            else:
                complain("interrupted before the search began; nothing was changed")
            return INTERRUPTED


def _status(found: Outcome) -> int:
    if found.status == outcome.DONE:
        return SOME_TRIALS_FAILED if found.failed else DONE
    return INTERRUPTED if found.status == outcome.INTERRUPTED else FAILED


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
