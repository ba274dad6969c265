"""How a search ends that others end: asked by a signal, or left without anybody who listens."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image
from ray import tune
from ray._private import worker
from ray._private.authentication import authentication_token_setup
from searches import ONE_BY_ONE, PATIENCE_S, in_the_middle, rows, running, uneven_space, wait_for

from search import signals
from search.record import record

ASKING = [*signals.ALWAYS, *signals.UNLESS_IGNORED]


def ask(*numbers: signal.Signals) -> list[int]:
    """Send signals to this process; give those that it answered."""
    answers: list[int] = []
    with signals.answered(lambda number, frame: answers.append(number)):  # noqa: ARG005
        for number in numbers:
            os.kill(os.getpid(), number)
    return answers


@pytest.mark.parametrize("number", ASKING)
def test_each_of_them_asks(number: signal.Signals) -> None:
    """A batch system, a terminal or a service manager has a search die unsaved."""
    before = signal.getsignal(number)

    assert ask(number) == [number]
    assert signal.getsignal(number) == before


def test_signals_that_come_together_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout`, which sends two, ends a search at once that was to be saved; or nobody can end one at once."""
    monkeypatch.setattr(signals, "TOGETHER_S", 3600.0)
    assert ask(signal.SIGTERM, signal.SIGTERM, signal.SIGHUP) == [signal.SIGTERM]

    monkeypatch.setattr(signals, "TOGETHER_S", 0.0)
    assert ask(signal.SIGINT, signal.SIGINT) == [signal.SIGINT] * 2


def test_what_is_ignored_from_the_start_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup` does not help; or a search that a script began in the background cannot be interrupted."""
    monkeypatch.setattr(signals, "TOGETHER_S", 0.0)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ASKING}
    try:
        assert ask(*ASKING) == list(signals.ALWAYS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_processes_from_which_they_are_kept_away() -> None:
    """A signal to a search's group ends the processes that it needs to save its trials; or it hears none any more."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals.kept_away():
        echo = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with echo:
        for number in ASKING:
            echo.send_signal(number)
        said, _ = echo.communicate(b"here")

    assert (echo.returncode, said) == (0, b"here")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize(
    ("arguments", "stream", "status"),
    [
        ("--space 猫", "", 2),
        ("--help", "> /dev/full", 0),
        pytest.param("--help", "", 0, marks=pytest.mark.slow),
        pytest.param("--space 猫", "2>&-", 2, marks=pytest.mark.slow),
        pytest.param("--help", "| true", 0, marks=pytest.mark.slow),
    ],
)
def test_a_command_that_nobody_hears(arguments: str, stream: str, status: int) -> None:
    """Who looks at the exit status is told of a fault in what was printed; or a traceback is all that is printed."""
    command = f"{sys.executable} -m search.run {arguments} {stream}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)

    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    if not stream:
        assert rb"\u" in done.stdout + done.stderr


def test_what_is_changed_in_ray_is_there() -> None:
    """A new Ray answers SIGUSR1 itself again, takes seconds to end, or knows an old token alone."""
    assert tune.tune._setup_signal_catching
    assert hasattr(worker, "_global_node")
    assert callable(authentication_token_setup.AuthenticationTokenLoader.reset_cache)


def everything(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A search's processes, those first that it started."""
    driver = psutil.Process(process.pid)
    return [*driver.children(recursive=True), driver]


def group(process: subprocess.Popen[str], terminal: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    """As `timeout` does; `kill -TERM -PGID` does it once."""
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)


def hung_up(process: subprocess.Popen[str], terminal: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    """As when a window is closed: who runs in it is told, and nothing can be written there any more."""
    terminal.kill()


def service(process: subprocess.Popen[str], terminal: subprocess.Popen[bytes]) -> None:  # noqa: ARG001
    """As service managers and batch systems do, which know every process that was started."""
    for each in everything(process):
        each.send_signal(signal.SIGUSR1)


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("end", [group, hung_up, service])
def test_asked_to_end(tmp_path: Path, end: Callable[[subprocess.Popen[str], subprocess.Popen[bytes]], None]) -> None:
    """Ray dies of what only asks the search to end, which then hangs, and loses what its trials had learned."""
    search = tmp_path / "results" / "asked"
    options = ["--space", uneven_space(tmp_path), "--name", "asked", *ONE_BY_ONE]
    mine, its = pty.openpty()
    streams = {"stdin": its, "stdout": its, "stderr": its, "start_new_session": True}
    with (
        subprocess.Popen(["cat"], stdin=mine, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as terminal,
        running(tmp_path, *options, **streams, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY)) as process,
    ):
        os.close(mine)
        os.close(its)
        wait_for(lambda: in_the_middle(search), process)
        family = everything(process)
        end(process, terminal)
        status = process.wait(PATIENCE_S)
    events, _ = record.History(search / "history.jsonl").read()
    unfinished = [row["trial"] for row in rows(search) if row["state"] == "running"]

    assert status == 130
    assert json.loads((search / "search.json").read_text())["status"] == "interrupted"
    assert "died" not in {event["event"] for event in events}
    assert unfinished
    assert all((search / "trials" / trial / "last.npz").exists() for trial in unfinished)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert not alive


@pytest.mark.slow
def test_nobody_listens(tmp_path: Path) -> None:
    """A search dies of what it cannot say: its reader has left, the log's disk is full, or a name has no letters here.

    It was begun with `nohup`, and its terminal is closed.
    """
    for name, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (32, 32), (grey, grey, index)).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "photos" / "dark" / "猫.png").write_text("no image")
    search = tmp_path / "results" / "alone"
    options = ["--space", "smoke", "--trials", "2", "--set", "max_bad_files=0.1", "--name", "alone", *ONE_BY_ONE]
    with (
        Path("/dev/full").open("w") as full,
        running(
            tmp_path,
            *options,
            "--data",
            str(tmp_path / "photos"),
            stderr=full,
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        ) as process,
    ):
        lines = iter(process.stdout or [])
        skipped = next(line for line in lines if line.startswith("skipped"))
        (process.stdout or full).close()
        wait_for(lambda: rows(search) or None, process)
        for each in everything(process):
            each.send_signal(signal.SIGHUP)
        status = process.wait(PATIENCE_S)

    assert status == 0
    assert r"\u732b.png" in skipped
    assert json.loads((search / "search.json").read_text())["status"] == "done"
