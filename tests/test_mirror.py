"""Searches in object storage: against a real server that speaks S3."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Toy
from ended import ended
from objects_server import Service
from searches import PATIENCE_S, accuracy_of_the_model, long_space

from search import predict, run
from search.driver import resume
from search.errors import CheckpointError, RequestError, StorageError
from search.export import __main__ as export
from search.record import lease, mirror, objects, stored
from search.record.mirror import Mirror
from search.record.objects import Objects, joined
from search.trial.tensorboard import Events

pytestmark = pytest.mark.slow

TRIALS = 4
NONE = run.parser().parse_args([])


def command(service: Service, cache: Path, *options: str) -> list[str]:
    """The real command on a machine whose cache this is."""
    return [sys.executable, "-m", "search.run", "--storage", service.storage, "--cache", str(cache), *options]


def test_what_is_sent_can_be_fetched(service: Service, tmp_path: Path) -> None:
    """Files are lost on the way, are sent again and again, or old ones stay where they are fetched."""
    uri = joined(service.storage, "one")
    here, there = Mirror(uri, tmp_path / "here"), Mirror(uri, tmp_path / "there")
    assert mirror.empty(uri)
    (tmp_path / "here" / "trials" / "0000").mkdir(parents=True)
    (tmp_path / "here" / "trials.csv").write_text("rows")
    (tmp_path / "here" / "trials" / "0000" / "last.npz").write_bytes(bytes(9_000_000))
    here.send()
    assert service.names("one") == ["trials.csv"]
    here.send("trials/0000")
    (tmp_path / "there" / "trials" / "0000").mkdir(parents=True)
    (tmp_path / "there" / "trials" / "0000" / "best.npz").write_bytes(b"of another time")
    there.fetch("trials/0000")

    assert sorted(path.name for path in (tmp_path / "there" / "trials" / "0000").iterdir()) == ["last.npz"]
    assert (tmp_path / "there" / "trials" / "0000" / "last.npz").read_bytes() == bytes(9_000_000)
    assert not mirror.empty(uri)


def test_a_process_that_lost_its_trial_sends_nothing_more(service: Service, tmp_path: Path) -> None:
    """What was cut off spoils the trial of the process that goes on with it."""
    uri = joined(service.storage, "two")
    first, second = Mirror(uri, tmp_path / "first"), Mirror(uri, tmp_path / "second")
    for name, one in (("first", first), ("second", second)):
        one.fetch("trials/0000")
        one.send_trial("trials/0000")  # what it goes on from is reported before it is taken
        (tmp_path / name / "trials" / "0000" / "owner").write_text(name)
        (tmp_path / name / "trials" / "0000" / "last.npz").write_text(name)
        one.send_trial("trials/0000")
    (tmp_path / "first" / "trials" / "0000" / "last.npz").write_text("first, later")
    with pytest.raises(CheckpointError, match="belongs to another process"):
        first.send_trial("trials/0000")
    (tmp_path / "second" / "trials" / "0000" / "last.npz").write_text("second, later")
    second.send_trial("trials/0000")

    assert Objects(uri).read("trials/0000/last.npz") == b"second, later"


def test_one_machine_alone_writes_a_search(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines write one search; or a search stays locked by a machine that is gone."""
    uri = joined(service.storage, "three")
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    with Mirror(uri, tmp_path / "here"):
        monkeypatch.setattr(lease.socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(RequestError, match="is in use by process"), Mirror(uri, tmp_path / "there"):
            pass
        monkeypatch.setattr(lease, "SILENT_AFTER_S", -1.0)
        with Mirror(uri, tmp_path / "there"):
            pass


def test_machines_that_begin_at_once(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find no lock, and both take it."""
    monkeypatch.setattr(lease.socket, "gethostname", lambda: threading.current_thread().name)
    at_once, over = threading.Barrier(3), threading.Barrier(3)

    def begin(name: str) -> bool:
        (tmp_path / name).mkdir()
        machine = Mirror(joined(service.storage, "raced"), tmp_path / name)
        at_once.wait()
        try:
            with machine:
                over.wait()
                return True
        except RequestError:
            over.wait()
            return False

    with ThreadPoolExecutor(3) as threads:
        assert sorted(threads.map(begin, ("one", "two", "three"))) == [False, False, True]


def test_a_machine_that_slept_writes_no_more(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that wakes up writes a search that another machine goes on with."""
    uri = joined(service.storage, "slept")
    for name in ("asleep", "awake"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(mirror, "BEAT_EVERY_S", 0.0)
    with Mirror(uri, tmp_path / "asleep") as asleep:
        Objects(uri).write("lock", json.dumps({"host": "awake", "process": 1, "id": "another"}).encode())
        until = time.monotonic() + PATIENCE_S
        while not asleep.fault:
            assert time.monotonic() < until
            time.sleep(0.1)
        (tmp_path / "asleep" / "late").write_text("too late")

    assert "another process has taken the search" in str(asleep.fault)
    assert service.names("slept") == ["lock"]


def test_storage_that_cannot_be_written(service: Service, tmp_path: Path) -> None:
    """It shows after the first trial; or a server that went away is told as success."""
    assert objects.fault(service.storage) is None
    assert "cannot be written" in str(objects.fault(service.storage.replace("bucket", "no-such-bucket")))
    assert "cannot be written" in str(objects.fault("nothing://bucket"))
    (tmp_path / "trials.csv").write_text("rows")
    one = Mirror(joined(service.storage, "four"), tmp_path)
    one.__enter__()
    service.process.kill()
    (tmp_path / "trials.csv").write_text("more rows")
    with pytest.raises(StorageError, match="cannot be written"):
        one.__exit__(None, None, None)


def test_a_search_that_cannot_be_read(service: Service, tmp_path: Path) -> None:
    """A traceback, or a search that seems to be gone."""
    for storage in (service.storage, service.storage.replace("bucket", "no-such-bucket")):
        asked = ["--resume", "x", "--storage", storage, "--cache", str(tmp_path)]
        with pytest.raises(RequestError, match="there is no search 'x' in s3://"):
            resume.options(run.parser().parse_args(asked), NONE)
    service.process.kill()
    with pytest.raises(StorageError, match="cannot be read"):
        stored.opened(service.storage, ["x"])


@pytest.mark.cluster
def test_a_search_in_object_storage(service: Service, tmp_path: Path) -> None:
    """A search there is not whole; or it is lost with the machine that it was begun on."""
    space = long_space(tmp_path, TRIALS, 80)
    options = ["--space", space, "--name", "away"]
    with subprocess.Popen(command(service, tmp_path / "cache", *options), start_new_session=True) as process:
        until = time.monotonic() + PATIENCE_S
        while not (ended := [row for row in service.rows("away") if row["state"] == "completed"]):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.5)
        meanwhile = command(service, tmp_path / "cache", "--resume", "away")
        busy = subprocess.run(meanwhile, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    kept = command(service, tmp_path / "cache", *options)
    again = subprocess.run(kept, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    other = command(service, tmp_path / "another cache", "--resume", "away")
    done = subprocess.run(other, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    assert busy.returncode == 2
    assert "is in use by process" in busy.stderr
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    rows = service.rows("away")
    assert [row["trial"] for row in rows] == [f"{number:04d}" for number in range(TRIALS)]
    assert [row for row in rows if row in ended] == ended
    assert "model: s3://bucket/results/away/best/model.keras" in done.stdout
    names = service.names("away")
    for name in ("search.json", "history.jsonl", "optuna.journal", "best/model.keras", "best/metrics.json"):
        assert name in names
    for trial in range(TRIALS):
        for part in (
            f"trials/{trial:04d}/best.npz",
            f"tensorboard/{trial:04d}_.*/train/",
            f"tensorboard/{trial:04d}_.*/ev",
        ):
            assert any(re.match(part, name) for name in names), part
    assert "lock" not in names
    folder = objects.local(service.storage, tmp_path / "another cache") / "away"
    metrics = json.loads(Objects(joined(service.storage, "away")).read("best/metrics.json"))
    assert accuracy_of_the_model(folder) == pytest.approx(metrics["test_accuracy"])
    report = [sys.executable, "-m", "search.report", "away", "--storage", service.storage]
    told = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    assert "Leaderboard" in told
    assert "Where does the model fail?" in Path(told.strip().rpartition("report: ")[2]).read_text("utf-8")
    assert any(re.match("tensorboard/.*/best/projector_config.pbtxt", name) for name in names)
    finished = subprocess.run(other, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert finished.returncode == 2
    assert "this search is done" in finished.stderr


@pytest.mark.cluster
def test_the_service_goes_away(service: Service, tmp_path: Path) -> None:
    """The search goes on for hours, into nowhere."""
    asked = command(service, tmp_path / "cache", "--space", long_space(tmp_path, TRIALS, 200), "--name", "gone")
    pipe = subprocess.PIPE
    with subprocess.Popen(asked, stdout=pipe, stderr=pipe, text=True) as process:
        until = time.monotonic() + PATIENCE_S
        while not [row for row in service.rows("gone") if int(row["epochs"]) > 2]:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.5)
        service.process.kill()
        output, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 1, output + errors
    assert "s3://bucket/results/gone" in errors
    assert "cannot be written" in errors


@pytest.mark.cluster
def test_tensorboard_reads_it(service: Service, tmp_path: Path) -> None:
    """The trials are there, and nobody can look at them."""
    board, folder = tmp_path / "board", tmp_path / "search"
    subprocess.run([sys.executable, "-m", "venv", board], check=True)
    packages = ["tensorboard", "fsspec", "s3fs", "setuptools<81"]
    subprocess.run([board / "bin" / "pip", "install", "--quiet", *packages], check=True)
    with Events(folder / "tensorboard" / "0000" / "validation") as events:
        events.scalars({"epoch_accuracy": 0.5}, step=1)
    Mirror(joined(service.storage, "shown"), folder).send()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shown = ["--logdir", "s3://bucket/results/shown/tensorboard", "--load_fast=false", "--port", str(port)]
    environment = {**os.environ, "AWS_ENDPOINT_URL": service.address}
    with subprocess.Popen([board / "bin" / "tensorboard", *shown], env=environment) as process:
        try:
            until = time.monotonic() + PATIENCE_S
            tags: dict[str, object] = {}
            while "0000/validation" not in tags:
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.5)
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/scalars/tags", timeout=5) as answer,
                ):
                    tags = json.loads(answer.read())
        finally:
            process.kill()

    assert "epoch_accuracy" in str(tags["0000/validation"])


def test_a_model_in_object_storage_predicts_and_is_exported(
    service: Service, tmp_path: Path, toy: Toy, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever keeps searches in object storage would have to fetch them by hand, and bring exported models back."""
    folder = ended(tmp_path, toy) / "toy"
    Mirror(joined(service.storage, "toy"), folder).send()
    image = next(toy.folder.rglob("light/*.png"))
    predicted = predict.main(["toy", str(image), "--storage", service.storage])
    told = capfd.readouterr().out
    done = export.main(["toy", "--to", "savedmodel", "--storage", service.storage])
    said = capfd.readouterr().out

    assert (predicted, done) == (0, 0)
    assert f"{image.name},light," in told
    assert "exported: s3://bucket/results/toy/best/export/savedmodel" in said
    assert "best/export/savedmodel/model/saved_model.pb" in service.names("toy")
    metrics = json.loads(Objects(joined(service.storage, "toy")).read("best/metrics.json"))
    assert metrics["exports"]["savedmodel"]["same"] == 1
