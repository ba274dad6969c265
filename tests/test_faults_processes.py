"""Faults of the processes and machines of trials, caused for real: they die, or are cut off. See docs/faults.md."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faults import EPOCHS, TRIALS, at_work, demand_whole, events
from searches import ONE_BY_ONE, PATIENCE_S, command, in_the_middle, rows, uneven_space, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]


def trial_process(search: Path) -> int:
    """The process id of a trial that is in the middle."""
    begun = wait_for(lambda: in_the_middle(search))
    (*_, last) = [event for event in events(search) if event["trial"] == begun[0] and event["event"] == "epoch"]
    return int(last["process"].split()[-1])


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
    said, search = tmp_path / "said", tmp_path / "results" / "oom"
    options = ["--space", uneven_space(tmp_path, TRIALS, 2 * EPOCHS), "--name", "oom", *ONE_BY_ONE]
    with said.open("w") as out, subprocess.Popen(command(tmp_path, *options), stdout=out, stderr=out) as process:
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
    """A Ray cluster on this machine: a head without trials, and three nodes that take one each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield [cluster, *(cluster.add_node(num_cpus=1) for _ in range(3))]
    finally:
        cluster.shutdown()


def family(node: Any) -> list[psutil.Process]:
    """The processes of a node: its raylet, and all below it."""
    (raylet,) = [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]
    return [raylet, *raylet.children(recursive=True)]


def busy(search: Path, nodes: list[Any]) -> Any:
    """One of these nodes, with a trial that is far from its end; `None` while there is none."""
    begun = {row["trial"] for row in rows(search) if row["state"] == "running" and 2 < int(row["epochs"]) <= EPOCHS}
    told = events(search) if begun else []
    pids = {event["trial"]: int(event["process"].split()[-1]) for event in told if event["event"] == "epoch"}
    for node in nodes:
        if {one.pid for one in family(node)} & {pids[trial] for trial in begun}:
            return node
    return None


@pytest.mark.usefixtures("token")
def test_node_lost(tmp_path: Path, nodes: list[Any]) -> None:
    """Trials are lost with their machine; or one that was cut off spoils what another goes on with.

    One is cut off and comes back, then another is killed; the third has both of their trials.
    """
    cluster, *alive = nodes
    said, search = tmp_path / "said", tmp_path / "results" / "nodes"
    space = uneven_space(tmp_path, TRIALS, 2 * EPOCHS)
    options = ["--space", space, "--name", "nodes", "--address", cluster.address, "--max-concurrent", "2"]
    with said.open("w") as out, subprocess.Popen(command(tmp_path, *options), stdout=out, stderr=out) as process:
        for count, (lose, find) in enumerate([(signal.SIGSTOP, signal.SIGCONT), (signal.SIGKILL, None)], 1):
            lost = wait_for(lambda: busy(search, alive), process)
            alive.remove(lost)
            processes = family(lost)
            for one in processes:
                one.send_signal(lose)
            wait_for(lambda n=count: said.read_text().count("goes on from its last checkpoint") >= n or None, process)
            for one in processes if find else []:
                one.send_signal(find)
        process.wait(PATIENCE_S)

    assert process.returncode == 0, said.read_text()
    demand_whole(search, TRIALS, {})
