"""A cluster launched on several machines by the repository's own `cluster.yaml`, and searches on it.

    make test-cluster

Machines are namespaces with an sshd each, see `tests/hosts.py`.
"""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hosts import PROJECT, SHARED, Host, Hosts, possible
from searches import accuracy_of_the_model

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not possible(), reason="only root can make machines, with ip, sshd and rsync installed"),
]

TRIALS, EPOCHS = 12, 30
SPACE = f"""
from search.space import Budget, Depth, Float, Space

space = Space(
    search={{"unfreeze_depth": Depth(0, 1), "learning_rate": Float(1e-3, 1e-2, log=True)}},
    fixed={{"batch_size": 64, "stop_patience": 1000}},
    budget=Budget(trials={TRIALS}, epochs={EPOCHS}, first_rung={EPOCHS}),
)
"""
PATIENCE_S = 300
RUN = f"python -m search.run --address auto --storage {SHARED}/results --space twelve.py"
RESUME = f"python -m search.run --address auto --storage {SHARED}/results --resume"
RAY = "RAY_AUTH_MODE=token .venv/bin/ray"
COUNT = """
import ray
ray.init("auto", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
"""
ON_HEAD = RAY + " exec {option} cluster.yaml 'cd ~/finetune-search && {command}'"
KEY = "~/.ssh/finetune_cluster"


def wait_for(what: Callable[[], bool]) -> None:
    """Poll until it is so."""
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.5)


# An agent holds the key that opens the machines already, as a password would.
LET_IN = """
set -e
eval $(ssh-agent) && trap "ssh-agent -k" EXIT
ssh-add ~/key
ssh-keygen -t ed25519 -N '' -f {key}
for machine in {machines}; do ssh-copy-id -i {key} -o StrictHostKeyChecking=no root@$machine; done
"""


class Launched:
    """A cluster that was launched from a laptop.

    Args:
        folder: for the machines' files.
        workers: name → whether it has the shared folder.
    """

    def __init__(self, hosts: Hosts, folder: Path, workers: dict[str, bool]) -> None:
        self.hosts = hosts
        self.laptop, self.head = hosts.add("laptop", shared=False), hosts.add("head")
        self.workers = {name: hosts.add(name, shared=shared) for name, shared in workers.items()}
        self.results = hosts.shared / "results"
        self.project = folder / "laptop" / "finetune-search"
        copied = shutil.ignore_patterns(".venv", ".git", "results", "__pycache__", ".*_cache", "*.egg-info")
        shutil.copytree(PROJECT, self.project, ignore=copied, dirs_exist_ok=True)
        (self.project / "twelve.py").write_text(SPACE)
        self._configure()

    def _configure(self) -> None:
        """Put the machines' addresses where the file says that they go."""
        path = self.project / "cluster.yaml"
        text = path.read_text("utf-8")
        addresses = ", ".join(host.address for host in self.workers.values())
        for pattern, value in {
            r"(head_ip: )\S+": self.head.address,
            r"(worker_ips: )\[.*?\]": f"[{addresses}]",
            r"(ssh_user: )\S+": "root",
        }.items():
            text, count = re.subn(pattern, rf"\g<1>{value}", text)
            assert count == 1, f"{pattern} is not once in cluster.yaml"
        path.write_text(text)

    def up(self, nodes: int | None = None) -> None:
        """Launch it, and wait until its nodes have joined."""
        machines = " ".join(host.address for host in (self.head, *self.workers.values()))
        self.do(self.laptop, LET_IN.format(key=KEY, machines=machines))
        self.do(self.laptop, ".venv/bin/ray get-auth-token --generate")
        self.do(self.laptop, f"{RAY} up -y --no-config-cache cluster.yaml")
        wanted = 1 + len(self.workers) if nodes is None else nodes
        wait_for(lambda: self.nodes() == wanted)

    def join(self, name: str, shared: bool = True) -> None:
        """Have a machine more join."""
        machine = self.hosts.add(name, shared=shared)
        self.do(self.head, f"rsync -a -e '{SSH}' ~/.ray ~/finetune-search root@{machine.address}:")
        self.do(machine, f"RAY_AUTH_MODE=token .venv/bin/ray start --address={self.head.address}:6379")

    def nodes(self) -> int:
        """How many nodes have joined."""
        return int(self.head.run(f"RAY_AUTH_MODE=token .venv/bin/python -c '{COUNT}'").stdout.split()[-1])

    def do(self, host: Host, command: str, status: int = 0) -> str:
        """Run a command that is to end with a status; return what it says."""
        done = host.run(command, PATIENCE_S)
        assert done.returncode == status, done.stdout
        return done.stdout

    def rows(self, name: str) -> list[dict[str, str]]:
        """The record's rows of a search."""
        path = self.results / name / "trials.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def is_over(self, name: str) -> bool:
        """Whether a search has come to its end."""
        path = self.results / name / "search.json"
        return path.exists() and json.loads(path.read_text())["status"] != "running"

    def machines(self, name: str) -> set[str]:
        """Where a search's trials ran."""
        lines = (self.results / name / "history.jsonl").read_text().splitlines()
        return {event["process"].split()[0] for line in lines if (event := json.loads(line)).get("process")}

    def in_the_middle(self, name: str) -> bool:
        """Whether trials have ended, others run, and each worker has had one."""
        states = [row["state"] for row in self.rows(name)]
        return "completed" in states and "running" in states and self.machines(name) >= set(self.workers)

    def demand_whole(self, name: str) -> None:
        """Check that a search is over, with every trial once, and a best model that gives what its figures say."""
        rows = self.rows(name)
        assert [row["trial"] for row in rows] == [f"{number:04d}" for number in range(TRIALS)]
        assert {(row["state"], row["epochs"]) for row in rows} == {("completed", str(EPOCHS))}
        metrics = json.loads((self.results / name / "best" / "metrics.json").read_text())
        assert accuracy_of_the_model(self.results / name) == pytest.approx(metrics["test_accuracy"])


def traces() -> list[set[str]]:
    """What machines could leave behind: namespaces with their processes, network interfaces, mounts."""
    namespaces = set()
    for process in Path("/proc").glob("[0-9]*/ns/pid"):
        with suppress(OSError):  # it ended meanwhile
            namespaces.add(str(process.readlink()))
    interfaces = {entry.name for entry in Path("/sys/class/net").iterdir()}
    return [namespaces, interfaces, set(Path("/proc/mounts").read_text().splitlines())]


@contextmanager
def launched(folder: Path, **workers: bool) -> Iterator[Launched]:
    """A cluster that is up; it leaves nothing behind."""
    before = traces()
    with Hosts(folder) as hosts:
        cluster = Launched(hosts, folder, workers)
        cluster.up()
        yield cluster
    wait_for(lambda: all(now <= then for now, then in zip(traces(), before, strict=True)))


def test_a_run_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    """These tests fail on a machine on which a run of them was killed."""
    folders = [tmp_path / "killed", tmp_path / "next"]
    for folder in folders:
        folder.mkdir()
    killed = f"""
import os, pathlib, hosts
hosts.Hosts(pathlib.Path({str(folders[0])!r})).__enter__().add("one")
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    command = [sys.executable, "-c", killed]
    assert subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode == -signal.SIGKILL
    with Hosts(folders[1]) as hosts:
        assert hosts.add("one").run("hostname").stdout == "one\n"


def running(host: Host) -> str:
    """The processes of Ray on a machine."""
    return host.run("pgrep -af 'ray|gcs_server' | grep -v pgrep || true").stdout


def test_a_search_across_machines(tmp_path: Path) -> None:
    """What works on one machine does not on three: files, names, versions, tokens; or `ray down` leaves workers."""
    with launched(tmp_path, one=True, two=True) as cluster:
        assert "Total Usage" in cluster.do(cluster.laptop, ON_HEAD.format(option="", command="ray status"))
        cluster.do(cluster.laptop, ON_HEAD.format(option="--tmux", command=f"{RUN} --name whole"))
        wait_for(lambda: cluster.is_over("whole"))
        cluster.demand_whole("whole")
        assert cluster.machines("whole") == {"one", "two"}

        board = f"tensorboard --logdir {SHARED}/results/whole/tensorboard --host 127.0.0.1 --port 6006"
        tunnel = cluster.laptop.begin(ON_HEAD.format(option="--port-forward 6006", command=board))
        wait_for(lambda: cluster.laptop.run(f"{RUNS} | grep -o 0011").returncode == 0)
        cluster.laptop.let_go(tunnel)

        cluster.do(cluster.laptop, SUBMIT.format(key=KEY, head=cluster.head.address, run=f"{RUN} --name job"))
        cluster.demand_whole("job")

        cluster.do(cluster.laptop, f"{RAY} down -y cluster.yaml")
        for host in (cluster.head, *cluster.workers.values()):
            wait_for(lambda host=host: not running(host))  # type: ignore[misc]


RUNS = "curl --silent --fail http://127.0.0.1:6006/data/runs"
SUBMIT = """
ssh -q -i {key} -o StrictHostKeyChecking=no -N -L 8265:127.0.0.1:8265 root@{head} & tunnel=$!
trap "kill $tunnel" EXIT
until (echo > /dev/tcp/127.0.0.1/8265) 2> /dev/null; do sleep 0.2; done
export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
.venv/bin/ray job submit --no-wait --submission-id one -- bash -c 'cd ~/finetune-search && .venv/bin/{run}'
.venv/bin/ray job logs --follow one
.venv/bin/ray job status one | grep -i succeeded
"""


def test_machines_come_and_go(tmp_path: Path) -> None:
    """Trials are lost with their machine, one that is cut off spoils them, or a new machine stays idle."""
    with launched(tmp_path, one=True, two=True) as cluster:
        process = cluster.head.begin(f"RAY_AUTH_MODE=token .venv/bin/{RUN} --name faults")
        try:
            wait_for(lambda: cluster.in_the_middle("faults"))
            cluster.workers["two"].trials(go=False)
            cluster.workers["one"].cable(plugged=False)
            cluster.join("three")
            wait_for(lambda: "three" in cluster.machines("faults"))
            cluster.workers["two"].lose()
            cluster.workers["one"].cable(plugged=True)
            output, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            cluster.head.let_go(process)

        assert process.returncode == 0, output
        cluster.demand_whole("faults")


SSH = "ssh -q -i ~/key -o StrictHostKeyChecking=no"


def test_a_machine_without_the_shared_folder_is_left_out(tmp_path: Path) -> None:
    """One that joins without it, or loses it, fails every trial, or ends the search, or keeps results to itself."""
    with launched(tmp_path, one=True, two=True) as cluster:
        process = cluster.head.begin(f"RAY_AUTH_MODE=token .venv/bin/{RUN} --name folder > said 2>&1")
        said = tmp_path / "head" / "finetune-search" / "said"
        try:
            wait_for(lambda: cluster.in_the_middle("folder"))
            for worker in cluster.workers.values():
                worker.trials(go=False)
            cluster.join("three", shared=False)
            wait_for(lambda: "no more trials run on three" in said.read_text("utf-8"))
            cluster.workers["two"].run(f"umount --lazy {SHARED}")
            for worker in cluster.workers.values():
                worker.trials(go=True)
            process.wait(timeout=PATIENCE_S)
        finally:
            cluster.head.let_go(process)

        output = said.read_text("utf-8")
        assert process.returncode == 0, output
        assert re.search(r"no more trials run on three \(.*not the shared folder there", output), output
        assert re.search(r"no more trials run on two \(", output), output
        cluster.demand_whole("folder")


def test_what_is_wrong_on_a_node_is_said_before_the_first_trial(tmp_path: Path) -> None:
    """Trials fail on one machine of many, each after its start, and nobody knows why."""
    with launched(tmp_path, one=True, two=False) as cluster:
        said = cluster.do(cluster.head, f"RAY_AUTH_MODE=token .venv/bin/{RUN} --name wrong", status=2)

        assert "two (" in said
        assert f"storage {SHARED}/results is not the shared folder there" in said
        assert "one (" not in said
        assert not (cluster.results / "wrong").exists()


def test_going_on_from_another_machine(tmp_path: Path) -> None:
    """A search is lost with the machine that it was begun on; or two machines write it at once."""
    with launched(tmp_path, one=True) as cluster:
        process = cluster.head.begin(f"exec env RAY_AUTH_MODE=token .venv/bin/{RUN} --name moved")
        wait_for(lambda: any(row["state"] == "completed" for row in cluster.rows("moved")))
        resume = f"RAY_AUTH_MODE=token .venv/bin/{RESUME} moved"
        at_once = cluster.do(cluster.workers["one"], resume, status=2)
        cluster.head.run("pkill -KILL -f '[-]-name moved'")
        cluster.head.let_go(process)
        until = time.monotonic() + PATIENCE_S
        while (done := cluster.workers["one"].run(resume)).returncode == 2:  # its heartbeat is waited for
            assert "is in use by process" in done.stdout
            assert time.monotonic() < until
            time.sleep(5)

        assert re.search(r"is in use by process \d+ on head", at_once), at_once
        assert done.returncode == 0, done.stdout
        cluster.demand_whole("moved")


METADATA = """
import json, pathlib, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_PUT(self):
        self.answer("token")

    def do_GET(self):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 20))
        self.answer(json.dumps({"action": "terminate", "time": at}) if pathlib.Path("/tmp/notice").exists() else None)

    def answer(self, text):
        self.send_response(200 if text else 404)
        self.end_headers()
        self.wfile.write((text or "").encode())

HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_a_spot_machine_is_taken_away(tmp_path: Path) -> None:
    """Every notice costs a trial one of its failures; here it may have none."""
    with launched(tmp_path, one=True, two=True) as cluster:
        spot = cluster.workers["two"]
        service = spot.begin(f"exec .venv/bin/python -c '{METADATA}'")
        asking = "RAY_AUTH_MODE=token AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:8000"
        watcher = spot.begin(f"exec env {asking} .venv/bin/python -m search.spot aws")
        process = cluster.head.begin(f"RAY_AUTH_MODE=token .venv/bin/{RUN} --name spot --set max_failures=0")
        try:
            wait_for(lambda: cluster.in_the_middle("spot"))
            spot.trials(go=False)
            spot.run("touch /tmp/notice")
            said, _ = watcher.communicate(timeout=60)
            assert watcher.returncode == 0, said
            spot.lose()
            output, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            for one in (service, watcher, process):
                spot.let_go(one)

        assert "is taken away in" in said
        assert process.returncode == 0, output
        cluster.demand_whole("spot")


def overlay(folder: Path, requirement: str) -> None:
    """Install another version of a package alone."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(folder), requirement]
    subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True)


def test_a_machine_that_does_not_fit(tmp_path: Path) -> None:
    """A machine with other software, or without the token, spoils results, or nobody sees why it does not come."""
    with launched(tmp_path, one=True) as cluster:
        overlay(cluster.hosts.shared / "keras", "keras==3.14.0")
        overlay(cluster.hosts.shared / "ray", "ray==2.59.0")
        two = cluster.hosts.add("two")
        start = f"ray.scripts.scripts start --address={cluster.head.address}:6379"
        no_token = two.run(f"RAY_AUTH_MODE=token .venv/bin/python -m {start}")
        cluster.do(cluster.head, f"rsync -a -e '{SSH}' ~/.ray ~/finetune-search root@{two.address}:")
        other_ray = two.run(f"PYTHONPATH={SHARED}/ray RAY_AUTH_MODE=token .venv/bin/python -m {start}")
        cluster.do(two, f"PYTHONPATH={SHARED}/keras RAY_AUTH_MODE=token .venv/bin/python -m {start}")
        wait_for(lambda: cluster.nodes() == 3)
        said = cluster.do(cluster.head, f"RAY_AUTH_MODE=token .venv/bin/{RUN} --name wrong", status=2)

        assert no_token.returncode
        assert "token" in no_token.stdout
        assert other_ray.returncode
        assert re.search(r"2\.60\.0[\s\S]*2\.59\.0", other_ray.stdout), other_ray.stdout
        assert re.search(r"two \(.*keras is 3\.14\.0 there, 3\.1[5-9]", said), said
        assert "one (" not in said
