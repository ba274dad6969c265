"""Faults of disks and files, caused for real: full, read-only, gone, damaged. See docs/faults.md."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import TRIALS, at_work, demand_whole, ended, events, known, leave_out_what_is_damaged, resume
from PIL import Image
from searches import ONE_BY_ONE, PATIENCE_S, rows, run, running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, where storage lies."""
    folder, mount = tmp_path / "results", shutil.which("mount")
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=100m", "none"]
    if not mount or subprocess.run([mount, *options, folder], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_disk_full(tmp_path: Path, disk: Path) -> None:
    """A full disk is told as trials that failed, or as success; or what lay there is spoilt."""
    with at_work(tmp_path, "full") as (process, search):
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        output, errors = process.communicate(timeout=PATIENCE_S)
    before = ended(known(search))

    assert process.returncode == 1, output + errors
    assert f"error: {search}" in errors, output
    assert "No space left on device" in errors
    assert "--resume full" in errors
    assert "failed" not in {row["state"] for row in before.values()}
    (disk / "ballast").unlink()
    resume(tmp_path, "full")
    leave_out_what_is_damaged(search)  # a line that did not fit on the disk
    demand_whole(search, TRIALS, before)


def test_disk_too_small(tmp_path: Path, disk: Path) -> None:
    """A search ends for want of space after hours, which could have been known before."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while file.tell() < 60 << 20:
            file.write(bytes(1 << 20))
    done = run(tmp_path, "--space", "smoke", "--name", "small")

    assert done.returncode == 2
    assert "MiB of storage" in done.stderr
    assert "MiB free" in done.stderr
    assert not (disk / "small").exists()


def immutable(folder: Path, on: bool) -> bool:
    """Let no file in these folders be made, changed by name or removed, by root neither; whether that could be done."""
    folders = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    program = shutil.which("chattr")
    command = [program or "", "+i" if on else "-i", *folders]
    return bool(program) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_storage_read_only(tmp_path: Path) -> None:
    """Storage that cannot be written any more ends as success, as plain Tune does; or trials are told as failed."""
    with at_work(tmp_path, "frozen") as (process, search):
        if not immutable(search, True):
            pytest.skip("this file system has no immutable folders")
        try:
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            immutable(search, False)
    before = ended(known(search))

    assert process.returncode == 1, output + errors
    assert f"error: {search}" in errors, output + errors
    assert "cannot be written" in errors
    assert "failed" not in {row["state"] for row in before.values()}
    assert "--resume frozen" in errors
    assert {event["trial"] for event in events(search)} >= set(before)


def test_storage_gone(tmp_path: Path) -> None:
    """A search goes on into nowhere, or makes a new folder where the old one was."""
    with at_work(tmp_path, "gone") as (process, search):
        search.rename(tmp_path / "elsewhere")
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 1, output + errors
    assert f"error: {search}" in errors, output + errors
    assert not (search / "search.json").exists()
    shutil.rmtree(search, ignore_errors=True)
    (tmp_path / "elsewhere").rename(search)
    before = ended(known(search))
    resume(tmp_path, "gone")
    demand_whole(search, TRIALS, before)


def test_image_damaged_after_the_scan(tmp_path: Path) -> None:
    """One image that is spoilt while the search runs ends trials, or the search."""
    for name, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (32, 32), (grey, grey, index)).save(tmp_path / "photos" / name / f"{index}.png")
    options = ["--space", "smoke", "--trials", "2", *ONE_BY_ONE, "--set", "max_bad_files=0.1"]
    with running(tmp_path, *options, "--data", str(tmp_path / "photos"), "--name", "images") as process:
        search = tmp_path / "results" / "images"
        wait_for(lambda: (search / "search.json").exists() or None, process)
        for path in (tmp_path / "photos").glob("*/1*.png"):
            path.write_bytes(b"no image any more")
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, output + errors
    assert {row["state"] for row in rows(search)} <= {"completed", "stopped"}
