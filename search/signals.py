"""The signals by which somebody asks a process to end: answered by this process, and kept from those that it starts.

They come from a terminal, a batch system or a service manager, which send them to a process, to its whole group or to
all that it started; some send two at once.
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
    """Have `answer` called when this process is asked to end; signals that come together ask once.

    What was to be ignored, as SIGHUP under `nohup`, stays ignored. The main thread alone may call this.
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
    """Keep these signals from the processes, and the threads, that this thread starts meanwhile, and from theirs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*ALWAYS, *UNLESS_IGNORED])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
