"""The signals that ask a process to end: this process handles them, and the processes that it starts do not get them.

They come from a terminal, a batch system or a service manager, which send them to one process, to its process group or
to all its child processes; some send two at once.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

ALWAYS = (signal.SIGINT, signal.SIGTERM)
UNLESS_IGNORED = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
TOGETHER_S = 0.25

Answer = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def answered(answer: Answer) -> Iterator[None]:
    """Call `answer` when a signal asks this process to end; several signals within `TOGETHER_S` count as one.

    A signal of `UNLESS_IGNORED` that was ignored before, such as SIGHUP under `nohup`, stays ignored. Only the main
    thread may call this.
    """
    asked_at = -math.inf

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        before, asked_at = asked_at, time.monotonic()
        if asked_at - before > TOGETHER_S:
            answer(number, frame)

    numbers = [*ALWAYS, *(one for one in UNLESS_IGNORED if signal.getsignal(one) != signal.SIG_IGN)]
    handlers = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept_away() -> Iterator[None]:
    """Block these signals in all processes and threads that this thread starts meanwhile, and in their descendants."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*ALWAYS, *UNLESS_IGNORED])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
