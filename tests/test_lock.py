"""The lock on a search's folder: who holds it, and that nobody has to remove it by hand."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.errors import RequestError
from search.record.lease import SILENT_AFTER_S
from search.record.lock import Lock

HOLDER = """
import sys, time
from pathlib import Path
from search.record.lock import Lock

with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """Two commands would write one search."""
    who = rf"in use by process {os.getpid()} on {socket.gethostname()}"
    with Lock(tmp_path):
        for _ in range(2):
            with pytest.raises(RequestError, match=who), Lock(tmp_path):
                pass
    with Lock(tmp_path):
        pass


def test_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    """After a crash the search could not be resumed until somebody removes a file."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RequestError, match=f"process {holder.pid}"), Lock(tmp_path):
        pass
    holder.kill()
    holder.communicate()

    with Lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


def test_a_holder_on_another_machine_counts_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    """Where locks do not reach, two machines would write one search; or none could after a crash."""
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "process": 7, "at": 0.0}))
    for _ in range(2):
        with pytest.raises(RequestError, match="process 7 on elsewhere"), Lock(tmp_path):
            pass
    silent = time.time() - 2 * SILENT_AFTER_S
    os.utime(path, (silent, silent))

    with Lock(tmp_path):
        assert json.loads(path.read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_lock_names_nobody(tmp_path: Path, text: str) -> None:
    """A file that a crash spoilt would end the command in a traceback, or lock the search for ever."""
    (tmp_path / "lock").write_text(text)

    with Lock(tmp_path):
        pass
