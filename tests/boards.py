"""A real TensorBoard, asked over HTTP or opened in a real browser."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JSON = {"Content-Type": "application/json"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TensorBoard:
    """A TensorBoard process on a directory, asked over HTTP."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        program = Path(sys.executable).with_name("tensorboard")
        options = ["--logdir", folder, "--port", str(self._port), "--host", "127.0.0.1", "--reload_interval", "1"]
        silent = subprocess.DEVNULL
        self.process = subprocess.Popen([program, *options], stdout=silent, stderr=silent)

    def listens(self) -> bool | None:
        """Whether it has started; `None` while it has not."""
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self._port)) == 0 or None

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self._port}"

    def ask(self, path: str, **body: Any) -> Any:
        """The answer of the HParams page's server; `None` while it gives none."""
        url = f"{self.address}/data/plugin/hparams/{path}"
        request = urllib.request.Request(url, json.dumps({"experimentName": "", **body}).encode(), JSON)
        return answer(request)

    def session_groups(self) -> list[dict[str, Any]] | None:
        """One for each trial."""
        if (experiment := self.ask("experiment")) is None:
            return None
        asked = {
            "allowedStatuses": [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")],
            "colParams": [{"metric": info["name"]} for info in experiment["metricInfos"]],
        }
        found = self.ask("session_groups", **asked, startIndex=0, sliceSize=1000)
        return found and found["sessionGroups"]


@contextmanager
def tensorboard(folder: Path) -> Iterator[TensorBoard]:
    """TensorBoard on a folder that need not be there yet."""
    board = TensorBoard(folder)
    try:
        yield board
    finally:
        board.process.kill()
        board.process.wait()


@contextmanager
def optuna_dashboard(journal: Path) -> Iterator[str]:
    """The address of an optuna-dashboard on a journal; it may not listen yet."""
    port, silent = free_port(), subprocess.DEVNULL
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [program, journal, "--port", str(port), "--host", "127.0.0.1"]
    with subprocess.Popen(command, stdout=silent, stderr=silent) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def answer(asked: str | urllib.request.Request) -> Any:
    """The JSON that a server answers; `None` while there is none."""
    try:
        with urllib.request.urlopen(asked, timeout=10) as found:
            return json.loads(found.read())
    except (urllib.error.URLError, OSError):
        return None
