"""Ray: started beside other work, and gone with it."""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from searches import in_the_middle, long_space, rows, running, wait_for

from search.cluster.connection import Cluster, Fleet
from search.errors import RequestError
from search.request.resources import Resources

pytestmark = pytest.mark.slow

LEFT_EARLY = """
import sys, time
from search.cluster.connection import Cluster
from search.request.resources import Resources

with Cluster(Resources(cpus=1, gpus=0, cpus_per_trial=1, gpus_per_trial=0)) as cluster:
    cluster.start()
    time.sleep(float(sys.argv[1]))
sys.exit(2)
"""
PATIENCE_S = 20


def processes(root: Path) -> list[str]:
    """The commands of the processes that Ray keeps below a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(root) in command:
            found.append(command)
    return found


def own(cpus_per_trial: float = 1, address: str | None = None) -> Resources:
    """What a request says of the cluster."""
    return Resources(cpus=3, gpus=0, cpus_per_trial=cpus_per_trial, gpus_per_trial=0, address=address)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder below which Ray keeps its own; the names of its sockets must be short."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.mark.parametrize("seconds", [2, 4])
def test_a_search_that_never_began_leaves_no_ray(root: Path, seconds: float) -> None:
    """A wrong request waits for Ray before it is refused, crashes, or leaves processes behind."""
    command = [sys.executable, "-c", LEFT_EARLY, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stderr
    assert list(root.glob("ray-*/r/session_*"))
    until = time.monotonic() + PATIENCE_S
    while processes(root) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes(root) == []


def test_an_own_ray_ends_with_its_context(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray dies while the search runs, for the thread that started it is gone, or stays for ever; or others get in."""
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(root))
    with Cluster(own()) as cluster:
        cluster.start()
        cluster.wait()
        (folder,) = root.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert processes(root)
        assert Fleet(own()).room() == 3
        assert Fleet(own(cpus_per_trial=2)).room() == 1

    assert processes(root) == []
    assert [*root.iterdir()] == []
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_an_own_ray_ends_with_its_driver(root: Path) -> None:
    """Ray's processes, which hear no signal but one, outlive a search that was killed."""
    command = [sys.executable, "-c", LEFT_EARLY.replace("time.sleep", "cluster.wait(), print(flush=True), time.sleep")]
    with subprocess.Popen([*command, "3600"], stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        assert driver.stdout.readline()
        assert processes(root)
        driver.kill()
    wait_for(lambda: processes(root) == [] or None)


def test_what_ray_says_is_raised_where_it_is_waited_for() -> None:
    """A cluster that cannot be joined ends in a thread that dies unseen, and a search that waits for ever."""
    with Cluster(own(address="nowhere")) as cluster:
        cluster.start()
        with pytest.raises(RequestError, match="--address nowhere cannot be joined"):
            cluster.wait()


SHARING = """
import sys, time
import ray
from search.cluster import connection
from search.cluster.connection import Fleet, Share
from search.request.resources import Resources

connection.SILENT_AFTER_S = 5
ray.init(sys.argv[1], log_to_driver=False, configure_logging=False)
asked = Resources(cpus=1, gpus=0, cpus_per_trial=1, gpus_per_trial=0, address=sys.argv[1])
with Share(Fleet(asked)) as share:
    while True:
        print(share(), flush=True)
        time.sleep(0.2)
"""


@contextmanager
def search_on(address: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[int], None]]]:
    """A search that says again and again how many trials it may run; and what waits until it says a number."""
    with subprocess.Popen([sys.executable, "-c", SHARING, address], stdout=subprocess.PIPE, text=True) as process:

        def wait_for(trials: int) -> None:
            assert process.stdout
            until = time.monotonic() + 2 * PATIENCE_S
            while time.monotonic() < until:
                if process.stdout.readline().strip() == str(trials):
                    return
            raise AssertionError("waited in vain")

        try:
            yield process, wait_for
        finally:
            process.kill()


@pytest.mark.cluster
@pytest.mark.usefixtures("token")
def test_searches_share_a_cluster_that_grows_and_shrinks() -> None:
    """The first search takes all and the second waits for it; a new node stays idle; a dead search keeps its share."""
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=3)
        with search_on(nodes.address) as (_, first_may):
            first_may(3)
            another = nodes.add_node(num_cpus=2)
            first_may(5)
            with search_on(nodes.address) as (second, second_may):
                second_may(3)
                first_may(3)
                second.kill()  # it cannot say that it ends
                first_may(5)
            nodes.remove_node(another)
            first_may(3)
    finally:
        nodes.shutdown()


FRACTIONS = """
import sys
from search import run
from search.driver.search import Search

Search._demand_nodes = lambda search: None  # it would say that TensorFlow does not see the GPUs that are declared
sys.exit(run.main(sys.argv[1:]))
"""


@pytest.mark.cluster
@pytest.mark.usefixtures("token")
def test_fractions_of_gpus_are_scheduled_as_asked(tmp_path: Path) -> None:
    """Half of the GPUs stay idle, or a trial waits for ever for a share of two."""
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=8, num_gpus=2)
        where = ["--storage", str(tmp_path), "--cache", str(tmp_path / "cache"), "--name", "halves"]
        options = [
            *where,
            "--address",
            nodes.address,
            "--gpus-per-trial",
            "0.5",
            "--space",
            long_space(tmp_path, 8, 60),
        ]
        command = [sys.executable, "-c", FRACTIONS, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    finally:
        nodes.shutdown()
    running, most = set(), 0
    for line in (tmp_path / "halves" / "history.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "started":
            running.add(event["trial"])
        elif event["event"] == "epoch" and event["metrics"]["ending"]:
            running.discard(event["trial"])
        most = max(most, len(running))

    assert done.returncode == 0, done.stdout + done.stderr
    assert most == 4


@pytest.mark.cluster
@pytest.mark.usefixtures("token")
def test_a_node_that_joins_and_does_not_fit_is_left_out(tmp_path: Path) -> None:
    """It fails one trial after another, each within a second, or ends the search; or its numbers are other ones."""
    from ray.cluster_utils import Cluster as Nodes

    other = tmp_path / "other" / "keras-3.0.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 3.0.0\n")
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        options = ["--address", nodes.address, "--space", long_space(tmp_path), "--name", "joined"]
        with running(tmp_path, *options) as process:
            search = tmp_path / "results" / "joined"
            wait_for(lambda: in_the_middle(search), process)
            nodes.add_node(num_cpus=4, env_vars={"PYTHONPATH": str(other.parent)})
            output, errors = process.communicate(timeout=300)
    finally:
        nodes.shutdown()

    assert process.returncode == 0, output + errors
    assert output.count("no more trials run on ") == 1
    assert re.search(r"no more trials run on \S+ \(\S+\): keras is 3\.0\.0 there, \S+ here", output)
    assert {(row["state"], row["epochs"]) for row in rows(search)} == {("completed", "40")}
