"""Faults of a search's own folder, caused for real: another search in it, another owner, damage. See docs/faults.md."""

import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from faults import PAIRS, at_work, copied, demand_whole, ended, known, resume
from searches import ONE_BY_ONE, PATIENCE_S, rows, run, running, wait_for, workers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cached")]


@dataclass(frozen=True)
class Asked:
    """A search that was asked to end in the middle; what was seen of it before, and what became of it.

    Args:
        open_to: the addresses on which its processes listened.
        environment: of one of its trials' processes.
        again: how it was resumed while it ran; `stood` says whether it ran then still.
    """

    search: Path
    process: int
    open_to: set[str]
    environment: bytes
    again: tuple[int, str]
    stood: bool
    status: int


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Asked:
    """A search that was looked at, resumed beside itself, and asked to end; it is copied, not changed."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "cache").symlink_to(shared_cache)
    with at_work(folder, "busy", trials=PAIRS) as (process, search):
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        open_to = {
            connection.laddr.ip
            for connection in psutil.net_connections("tcp")
            if connection.pid in family and connection.status == psutil.CONN_LISTEN
        }
        environment = Path(f"/proc/{workers(process)[0]}/environ").read_bytes()
        again = run(folder, "--resume", "busy")
        stood = process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    found = (again.returncode, again.stderr)
    return Asked(search, process.pid, open_to, environment, found, stood, process.returncode)


def test_what_ray_opens_is_for_this_machine_alone(asked: Asked) -> None:
    """Whoever reaches the machine's network could run code in the search."""
    assert asked.open_to
    assert asked.open_to <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert b"RAY_AUTH_MODE=token" in asked.environment


def test_resumed_while_it_runs(asked: Asked) -> None:
    """A search that seems to hang is resumed beside itself."""
    status, errors = asked.again

    assert asked.stood
    assert status == 2
    assert f"{asked.search} is in use by process {asked.process} on " in errors
    assert asked.status == 130


def test_damaged_checkpoint(tmp_path: Path, asked: Asked) -> None:
    """A trial whose state is spoilt silently starts afresh, or takes the search with it."""
    search = copied(asked.search, tmp_path)
    before = ended(known(search))
    states = sorted(path for path in search.glob("trials/*/last.npz") if path.parent.name not in before)
    assert asked.status == 130
    assert states, "the running trials were not saved"
    for path in (states[0], states[0].with_name("previous.npz")):  # there is one before where epochs take long
        if path.exists():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = resume(tmp_path, "busy", status=3)

    found = known(search)[states[0].parent.name]
    assert found["state"] == "failed"
    assert "CheckpointError" in found["reason"]
    assert str(states[0]) in found["reason"]
    assert found["reason"] in " ".join(done.stdout.split())
    demand_whole(search, PAIRS, before)


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


def test_a_folder_that_everybody_can_write_is_not_resumed(tmp_path: Path) -> None:
    """Whoever can write the folder could have the space file that he names run by whoever resumes.

    The search was killed before the first report, and goes on all the same once the folder is its owner's alone.
    """
    with running(tmp_path, "--space", "smoke", "--name", "open", "--trials", "2", *ONE_BY_ONE) as process:
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
    demand_whole(search, 2, {})
