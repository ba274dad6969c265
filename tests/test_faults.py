"""Faults, caused for real: what a search that meets them says, keeps, and does when it goes on. See docs/faults.md."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from optuna.trial import TrialState
from PIL import Image
from searches import PATIENCE_S, command, in_the_middle, long_space, rows, run, running, study, wait_for, workers

from search.record import record
from search.signals import TOGETHER_S

pytestmark = pytest.mark.slow

Rows = dict[str, dict[str, str]]
TRIALS, EPOCHS = 4, 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache for all of these tests."""
    shared = tmp_path_factory.getbasetemp() / "faults-cache"
    shared.mkdir(exist_ok=True)
    (tmp_path / "cache").symlink_to(shared)


def known(search: Path) -> Rows:
    """Trial → its row."""
    return {row["trial"]: row for row in rows(search)}


def ended(found: Rows) -> Rows:
    """The rows of trials that have ended."""
    return {trial: row for trial, row in found.items() if row["state"] != "running"}


def events(search: Path) -> list[dict[str, Any]]:
    """What happened to the trials."""
    found, damaged = record.History(search / "history.jsonl").read()
    assert not damaged
    return found


def demand_whole(search: Path, trials: int, before: Rows) -> None:
    """Check that a search is over, with every trial once, and those that had ended before as they were."""
    found = known(search)
    assert sorted(found) == [f"{number:04d}" for number in range(trials)]
    assert {trial: found[trial] for trial in before} == before
    assert "running" not in {row["state"] for row in found.values()}
    told = {f"{trial.number:04d}": trial.state for trial in study(search).trials}
    words = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    expected = {trial: words.get(row["state"], TrialState.FAIL) for trial, row in found.items()}
    expected |= {trial: TrialState.FAIL for trial, row in found.items() if row["epochs"] == "0"}
    assert told == expected
    assert json.loads((search / "search.json").read_text())["status"] == "done"
    metrics = json.loads((search / "best" / "metrics.json").read_text())
    best = max(float(row["val_accuracy"] or 0) for row in found.values() if row["state"] == "completed")
    assert metrics["val_accuracy"] >= best
    starts = [event["trial"] for event in events(search) if event["event"] == "started"]
    assert all(starts.count(trial) == 1 for trial in before), "a trial that had ended ran again"


def resume(folder: Path, name: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Go on with a search."""
    done = run(folder, "--resume", name)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def at_work(folder: Path, name: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A search in the middle of its trials, and its folder."""
    search = folder / "results" / name
    with running(folder, "--space", long_space(folder, TRIALS, EPOCHS), "--name", name, *options) as process:
        wait_for(lambda: in_the_middle(search), process)
        yield process, search


# processes that die


def trial_process(search: Path) -> int:
    """The process id of a trial that is in the middle."""
    begun = wait_for(lambda: in_the_middle(search))
    (*_, last) = [event for event in events(search) if event["trial"] == begun[0] and event["event"] == "epoch"]
    return int(last["process"].split()[-1])


def all_ended(search: Path) -> bool | None:
    """Whether every trial has; the winner is exported then."""
    found = known(search)
    return (len(found) == len(ended(found)) == TRIALS) or None


MOMENTS = {
    "in the middle": in_the_middle,
    "before the export": all_ended,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_driver_killed(tmp_path: Path, moment: str) -> None:
    """What was learned is lost with the process that collects it; or trials are run again, or twice."""
    search = tmp_path / "results" / "killed"
    with running(tmp_path, "--space", long_space(tmp_path, TRIALS, EPOCHS), "--name", "killed") as process:
        wait_for(lambda: MOMENTS[moment](search), process)
        process.kill()
        process.wait()
    before = ended(known(search))
    with (search / "history.jsonl").open("ab") as history:
        history.write(b'{"event": "epo')  # as a machine that loses power may leave it
    shutil.rmtree(search / "ray")  # nothing is read from there
    done = resume(tmp_path, "killed")

    assert "1 damaged lines are left out" in done.stdout
    demand_known(search, TRIALS, before)


def demand_known(search: Path, trials: int, before: Rows) -> None:
    """As `demand_whole`, of a history that was damaged on purpose."""
    path = search / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if line.strip() != b'{"event": "epo'))
    demand_whole(search, trials, before)


def test_worker_killed(tmp_path: Path) -> None:
    """A trial whose process dies is lost, or the search ends with it."""
    with at_work(tmp_path, "killed") as (process, search):
        os.kill(trial_process(search), signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, output + errors
    assert output.count("goes on from its last checkpoint") == 1
    assert [event["event"] for event in events(search)].count("died") == 1
    demand_whole(search, TRIALS, {})


def test_worker_killed_too_often(tmp_path: Path) -> None:
    """A trial that kills its process is tried for ever; or is not told as failed."""
    with at_work(tmp_path, "killed", "--set", "max_failures=0") as (process, search):
        os.kill(trial_process(search), signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE_S)
    (failed,) = [row for row in rows(search) if row["state"] == "failed"]

    assert process.returncode == 3, output + errors
    assert "died" in failed["reason"]
    demand_whole(search, TRIALS, {})


def test_host_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's memory monitor ends a trial's process, and with plain Tune the whole search."""
    memory, spared, portion = psutil.virtual_memory(), 8 << 30, 256 << 20
    limit = 1 - (memory.available - spared) / memory.total
    if memory.available < 2 * spared:
        pytest.skip("this machine has too little memory to spare")
    held = [np.ones(spared // 2, np.uint8)]
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit:.4f}")
    said, longer = tmp_path / "said", long_space(tmp_path, TRIALS, 3 * EPOCHS)
    with (
        said.open("w") as out,
        subprocess.Popen(
            command(tmp_path, "--space", longer, "--name", "oom"),
            stdout=out,
            stderr=out,
        ) as process,
    ):
        search = tmp_path / "results" / "oom"
        wait_for(lambda: in_the_middle(search), process)
        while "goes on from its last checkpoint" not in said.read_text() and process.poll() is None:
            held.append(np.ones(portion, np.uint8))
        held.clear()
        process.wait(PATIENCE_S)

    assert process.returncode == 0, said.read_text()
    assert "OutOfMemoryError" in said.read_text()
    demand_whole(search, TRIALS, {})


# nodes


HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def nodes() -> Iterator[list[Any]]:
    """A Ray cluster on this machine: a head without trials, and two nodes that take one each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield [cluster, *(cluster.add_node(num_cpus=1) for _ in range(2))]
    finally:
        cluster.shutdown()


def family(node: Any) -> list[psutil.Process]:
    """The processes of a node: its raylet, and all below it."""
    (raylet,) = [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]
    return [raylet, *raylet.children(recursive=True)]


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_node_lost(tmp_path: Path, nodes: list[Any], how: str) -> None:
    """Trials are lost with their machine; or one that was cut off spoils what another goes on with."""
    cluster, lost, _ = nodes
    said, search = tmp_path / "said", tmp_path / "results" / "nodes"
    options = ["--space", long_space(tmp_path, TRIALS, 2 * EPOCHS), "--name", "nodes", "--address", cluster.address]
    with said.open("w") as out, subprocess.Popen(command(tmp_path, *options), stdout=out, stderr=out) as process:
        wait_for(lambda: in_the_middle(search), process)
        processes = family(lost)
        for one in processes:
            one.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        wait_for(lambda: "goes on from its last checkpoint" in said.read_text() or None, process)
        if how == "cut off":
            for one in processes:
                one.send_signal(signal.SIGCONT)
        process.wait(PATIENCE_S)

    assert process.returncode == 0, said.read_text()
    demand_whole(search, TRIALS, {})


# signals


def test_ctrl_c_twice(tmp_path: Path) -> None:
    """Somebody in a hurry waits for the end of an epoch; or what was recorded is lost."""
    with at_work(tmp_path, "hurry") as (process, search):
        before = ended(known(search))
        process.send_signal(signal.SIGINT)
        time.sleep(2 * TOGETHER_S)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130, errors
    assert "--resume hurry" in output + errors
    assert before.items() <= known(search).items()
    assert events(search)


@pytest.mark.parametrize(("sent", "seconds"), [(signal.SIGINT, 1.5), (signal.SIGTERM, 4), (signal.SIGINT, 7)])
def test_interrupted_while_it_starts(tmp_path: Path, sent: signal.Signals, seconds: float) -> None:
    """Ray dies of it with a signal of its own, processes are left, or the exit status says nothing."""
    with running(tmp_path, "--space", "smoke", "--name", "early") as process:
        time.sleep(seconds)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(sent)
        output, errors = process.communicate(timeout=PATIENCE_S)
    search = tmp_path / "results" / "early"

    assert process.returncode == 130, output + errors
    assert "Traceback" not in output + errors
    if search.exists():
        assert "--resume early" in output + errors
        assert json.loads((search / "search.json").read_text())["status"] == "interrupted"
    else:
        assert "nothing was changed" in errors
    _, alive = psutil.wait_procs(children, timeout=90)  # two of Ray's agents need a minute to notice that it is gone
    assert not alive


# storage


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
    demand_kept(search, before)


def demand_kept(search: Path, before: Rows) -> None:
    """As `demand_whole`; a line that did not fit on the disk is left out."""
    lines = []
    for line in (search / "history.jsonl").read_bytes().splitlines(keepends=True):
        with contextlib.suppress(ValueError):
            lines.append((json.loads(line), line)[1])
    (search / "history.jsonl").write_bytes(b"".join(lines))
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


# files


def test_damaged_checkpoint(tmp_path: Path) -> None:
    """A trial whose state is spoilt silently starts afresh, or takes the search with it."""
    with at_work(tmp_path, "spoilt") as (process, search):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    before = ended(known(search))
    states = sorted(path for path in search.glob("trials/*/last.npz") if path.parent.name not in before)
    assert process.returncode == 130
    assert states, "the running trials were not saved"
    for path in (states[0], states[0].with_name("previous.npz")):  # there is one before where epochs take long
        if path.exists():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = resume(tmp_path, "spoilt", status=3)

    found = known(search)[states[0].parent.name]
    assert found["state"] == "failed"
    assert "CheckpointError" in found["reason"]
    assert str(states[0]) in found["reason"]
    assert found["reason"] in " ".join(done.stdout.split())
    demand_whole(search, TRIALS, before)


def test_image_damaged_after_the_scan(tmp_path: Path) -> None:
    """One image that is spoilt while the search runs ends trials, or the search."""
    for name, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (32, 32), (grey, grey, index)).save(tmp_path / "photos" / name / f"{index}.png")
    options = ["--space", "smoke", "--data", str(tmp_path / "photos"), "--set", "max_bad_files=0.1"]
    with running(tmp_path, *options, "--name", "images") as process:
        search = tmp_path / "results" / "images"
        wait_for(lambda: (search / "search.json").exists() or None, process)
        for path in (tmp_path / "photos").glob("*/1*.png"):
            path.write_bytes(b"no image any more")
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, output + errors
    assert {row["state"] for row in rows(search)} <= {"completed", "stopped"}


# two at once


def test_same_name_at_once(tmp_path: Path) -> None:
    """Two searches write one folder, and neither is true any more."""
    options = ["--space", "smoke", "--name", "twice", "--trials", "1"]
    with running(tmp_path, *options) as one, running(tmp_path, *options) as other:
        said = [process.communicate(timeout=PATIENCE_S) for process in (one, other)]
    statuses = sorted(process.returncode for process in (one, other))
    errors = "".join(error for _, error in said)

    assert statuses == [0, 2], said
    assert "is in use by process" in errors or "exists already" in errors or "holds a search already" in errors
    demand_whole(tmp_path / "results" / "twice", len(rows(tmp_path / "results" / "twice")), {})


def test_resumed_while_it_runs(tmp_path: Path) -> None:
    """A search that seems to hang is resumed beside itself."""
    with at_work(tmp_path, "busy") as (process, search):
        again = run(tmp_path, "--resume", "busy")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)

    assert again.returncode == 2
    assert f"{search} is in use by process {process.pid} on " in again.stderr
    assert process.returncode == 130


# time


def test_time_budget_counts_what_was_used(tmp_path: Path) -> None:
    """Every resume grants the whole budget again; or a search whose time is up cannot be brought to its end."""
    with at_work(tmp_path, "short", "--time-budget", "60") as (process, search):
        process.kill()
        process.wait()
    used = events(search)[-1]["at"]
    with (search / "history.jsonl").open("a") as history:
        history.write(json.dumps({"event": "alive", "trial": "", "at": 1000.0}) + "\n")
    before = ended(known(search))
    resume(tmp_path, "short")
    later = [event["at"] for event in events(search) if event["at"] > used]

    assert 0 < used < 60
    assert min(later) == 1000.0
    assert "started" not in [event["event"] for event in events(search) if event["at"] >= 1000]
    assert {row["reason"] for row in known(search).values() if row["trial"] not in before} == {"time budget used up"}
    demand_whole(search, len(known(search)), before)


# trust


def test_a_folder_that_everybody_can_write_is_not_resumed(tmp_path: Path) -> None:
    """Whoever can write the folder could have the space file that he names run by whoever resumes.

    The search was killed before the first report, and goes on all the same once the folder is its owner's alone.
    """
    with running(tmp_path, "--space", "smoke", "--name", "open") as process:
        search = tmp_path / "results" / "open"
        wait_for(lambda: (search / "search.json").exists() or None, process)
        process.kill()
        process.wait()
    search.chmod(0o777)
    refused = run(tmp_path, "--resume", "open")
    search.chmod(0o755)

    assert refused.returncode == 2
    assert "can be written by everybody" in refused.stderr
    resume(tmp_path, "open")
    demand_whole(search, 4, {})


def test_what_ray_opens_is_for_this_machine_alone(tmp_path: Path) -> None:
    """Whoever reaches the machine's network could run code in the search."""
    with at_work(tmp_path, "ports") as (process, _):
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        open_to = {
            connection.laddr.ip
            for connection in psutil.net_connections("tcp")
            if connection.pid in family and connection.status == psutil.CONN_LISTEN
        }
        environment = Path(f"/proc/{workers(process)[0]}/environ").read_bytes()
        process.kill()

    assert open_to
    assert open_to <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert b"RAY_AUTH_MODE=token" in environment
