"""A file is there whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from search.atomic import replacing

ENDED = """
import os, sys
from pathlib import Path
from search.atomic import replacing

with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


def test_it_takes_its_place(tmp_path: Path) -> None:
    """What was written lies beside, or in part."""
    path = tmp_path / "one.json"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"

    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


def test_an_error_changes_nothing(tmp_path: Path) -> None:
    """A reader meets half a file, or the folder fills with halves."""
    path = tmp_path / "one.json"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]

    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_process_that_dies_changes_nothing(tmp_path: Path) -> None:
    """A crash leaves half a checkpoint."""
    path = tmp_path / "one.json"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", ENDED, path], check=False)

    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
    assert [*tmp_path.iterdir()] == [path]
