"""What a search meets on somebody's machine: folders, settings and limits that others chose."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from searches import PATIENCE_S, command, long_space, rows

from search import machine

LONG = "a-temporary-folder-of-a-batch-system-0123456789"
KERAS = '{"image_data_format": "channels_first", "floatx": "float64", "epsilon": 0.5, "backend": "jax"}'


# CPUs


def tree(root: Path, member: str, mounts: str, files: dict[str, str]) -> Path:
    """What the kernel shows of control groups, as files."""
    for name, text in {"proc/self/cgroup": member, "proc/self/mountinfo": mounts, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


V1 = "35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_SET = "36 30 0:32 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset"
V1_CONTAINER = "35 30 0:31 /docker/1f /sys/fs/cgroup/cpu ro,nosuid - cgroup cgroup rw,cpu"
V2 = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V2_BESIDE = "29 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 none rw"
CPU, CPU_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("member", "mounts", "files", "expected"),
    [
        ("0::/", V2, {}, None),
        ("0::/job", V2, {"sys/fs/cgroup/job/cpu.max": "max 100000"}, None),
        ("0::/job", V2, {"sys/fs/cgroup/job/cpu.max": "50000 100000"}, 0.5),
        (
            "0::/job/step/task",
            V2,
            {"sys/fs/cgroup/job/cpu.max": "150000 100000", "sys/fs/cgroup/job/step/cpu.max": "800000 100000"},
            1.5,
        ),
        ("0::/../outside", V2, {"sys/fs/cgroup/cpu.max": "20000 10000"}, 2.0),
        (
            "5:cpuset:/other\n3:cpu,cpuacct:/job\n0::/",
            f"{V1}\n{V1_SET}\n{V2_BESIDE}",
            {
                f"sys/fs/cgroup/cpu,cpuacct/{CPU}": "-1",
                f"sys/fs/cgroup/cpu,cpuacct/{CPU_PERIOD}": "100000",
                f"sys/fs/cgroup/cpu,cpuacct/job/{CPU}": "25000",
                f"sys/fs/cgroup/cpu,cpuacct/job/{CPU_PERIOD}": "50000",
            },
            0.5,
        ),
        (
            "3:cpu:/docker/1f/below",
            V1_CONTAINER,
            {f"sys/fs/cgroup/cpu/{CPU}": "300000", f"sys/fs/cgroup/cpu/{CPU_PERIOD}": "100000"},
            3.0,
        ),
    ],
)
def test_quota(tmp_path: Path, member: str, mounts: str, files: dict[str, str], expected: float | None) -> None:
    """A quota is overlooked: of an older or newer kernel, of a group above, or in a container."""
    assert machine.quota(tree(tmp_path, member, mounts, files)) == (expected or float("inf"))


def test_no_control_groups(tmp_path: Path) -> None:
    """A machine that is no Linux, or hides them, has no CPUs."""
    assert machine.quota(tmp_path) == float("inf")


@pytest.fixture
def half() -> Iterator[Path]:
    """A control group of this machine that may take half a CPU's time."""
    for root, limits in (
        ("/sys/fs/cgroup", {"cpu.max": "50000 100000"}),
        ("/sys/fs/cgroup/cpu", {CPU_PERIOD: "100000", CPU: "50000"}),
    ):
        group = Path(root, f"finetune-search-test-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                for name, text in limits.items():
                    if not (group / name).exists():
                        raise FileNotFoundError(name)
                    (group / name).write_text(text)
                (group / "below").mkdir()
                yield group / "below"
                (group / "below").rmdir()
                return
            finally:
                group.rmdir()
    pytest.skip("this user may not make a control group that limits CPUs")


def test_half_a_cpu(half: Path) -> None:
    """A container's quota counts as all CPUs of its machine: trials and threads starve each other."""
    program = (
        "from threading import get_ident; from search import machine; from search.data import scan; "
        "threads = scan.in_threads(lambda one: get_ident(), range(999), '', lambda *said: None); "
        "print(machine.cpus(), len({*threads}))"
    )
    join = f'echo $$ > {half}/cgroup.procs && exec "$@"'
    done = subprocess.run(["bash", "-c", join, "", sys.executable, "-c", program], capture_output=True, check=False)

    assert done.stdout.split() == [b"1", b"1"], done.stderr


# folders


def among(mounts: str, arguments: list[str]) -> list[str]:
    """A command that sees other mounts than everybody else; the test is left out where this user may not mount."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    return ["unshare", "--mount", "bash", "-ec", f'{mounts}; exec "$@"', "", *arguments]


NOWHERE = "mount --bind {0} {0}; for one in /tmp /var/tmp /dev/shm; do mount --rbind $one $one; mount -o {1} $one; done"


@pytest.mark.parametrize(
    ("temporary", "said"),
    [(LONG, "error: Ray needs a folder that can be written"), ("none", "error: temporary files have no place: ")],
)
def test_no_place_for_temporary_files(tmp_path: Path, temporary: str, said: str) -> None:
    """It ends in a traceback, and in advice to go on with what never began."""
    (tmp_path / LONG).mkdir()
    mounts = NOWHERE.format(tmp_path, "remount,ro,bind")
    environment = {**os.environ, "TMPDIR": str(tmp_path / temporary)}
    arguments = among(f"{mounts}; cd /proc", command(tmp_path, "--space", "smoke"))
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(said)
    assert "TMPDIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_folder_of_everybody(tmp_path: Path) -> None:
    """Where a mount gives everybody all rights, the advice is of no use: no copy is another, and no mode stays."""
    search = tmp_path / "results" / "open"
    search.mkdir(parents=True)
    (search / "search.json").write_text('{"status": "running"}')
    search.chmod(0o777)
    done = subprocess.run(command(tmp_path, "--resume", "open"), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "can be written by everybody" in done.stderr
    assert "to a place where files keep their owner and their mode, and go on there with --storage" in done.stderr


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("bindfs"), reason="needs root and bindfs, to mount a folder")
def test_a_mount_that_is_open_to_everybody(tmp_path: Path) -> None:
    """The advice for a mount on which `chmod` has no effect does not lead on from there."""
    (tmp_path / "kept" / "open").mkdir(parents=True)
    (tmp_path / "kept" / "open" / "search.json").write_text('{"status": "running"}')
    (tmp_path / "results").mkdir()
    mounted = subprocess.run(
        ["bindfs", "-p", "0777", "--chmod-ignore", tmp_path / "kept", tmp_path / "results"], check=False
    )
    if mounted.returncode:
        pytest.skip("no folder can be mounted here")
    try:
        (tmp_path / "results" / "open").chmod(0o700)
        done = subprocess.run(command(tmp_path, "--resume", "open"), capture_output=True, text=True, check=False)
        subprocess.run(["cp", "-r", tmp_path / "results" / "open", tmp_path / "mine"], check=True)
    finally:
        subprocess.run(["umount", tmp_path / "results"], check=True)

    assert done.returncode == 2
    assert "can be written by everybody" in done.stderr
    (tmp_path / "mine").rename(tmp_path / "results" / "open")
    again = subprocess.run(command(tmp_path, "--resume", "open"), capture_output=True, text=True, check=False)
    assert "can be written by everybody" not in again.stderr


@pytest.mark.slow
def test_somebody_elses_machine(tmp_path: Path) -> None:
    """A search needs a home that it can write, a short TMPDIR, a strict umask or settings of Keras that are its own."""
    home, temporary = tmp_path / "home", tmp_path / LONG
    for folder in (home / ".keras", temporary):
        folder.mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(KERAS)
    arguments = command(tmp_path, "--space", long_space(tmp_path, trials=2, epochs=2), "--name", "away")
    if os.getuid():
        home.chmod(0o500)
        arguments = ["bash", "-c", 'umask 0; exec "$@"', "", *arguments]
    else:
        arguments = among(f"mount --bind {home} {home}; mount -o remount,ro,bind {home}; umask 0", arguments)
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "KERAS_MAX_EPOCHS": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    written = [*(tmp_path / "results").rglob("*"), *(tmp_path / "cache").rglob("*")]

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert {(row["state"], row["epochs"]) for row in rows(tmp_path / "results" / "away")} == {("completed", "2")}
    assert written
    assert [path for path in written if path.stat().st_mode & stat.S_IWOTH] == []
    assert [*temporary.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "epochs"), [(KERAS, "1"), ('{"epsilon": 1, "floatx": "half"}', "few")])
def test_what_keras_is_set_to(settings: str, epochs: str, tmp_path: Path) -> None:
    """Trials run with numbers, a layout or a backend that their user has chosen for other work, or not at all."""
    (tmp_path / "keras.json").write_text(settings)
    (tmp_path / "weights").write_text("weights")
    program = (
        "from search.process import importing_keras\n"
        "with importing_keras(1): import keras\n"
        "of = keras.config; print(of.backend(), of.floatx(), of.epsilon(), of.image_data_format(), of.max_epochs())\n"
        f"print(keras.utils.get_file('weights', '{(tmp_path / 'weights').as_uri()}', cache_subdir='models'))"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": epochs}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    answered, *_, weights = done.stdout.splitlines()

    assert answered.split() == ["tensorflow", "float32", "1e-07", "channels_last", "None"], done.stderr
    assert weights == str(tmp_path / "models" / "weights")
    assert (tmp_path / "keras.json").read_text() == settings


def test_nobodys_home(tmp_path: Path) -> None:
    """A user whom the machine does not know, as in a container, gets tracebacks of Ray's."""
    unknown = ["unshare", "--user", "--map-user=54321", "--map-group=54321", "env", "--unset=HOME"]
    if subprocess.run([*unknown, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not become another")
    arguments = [*unknown, *command(tmp_path, "--space", "smoke")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: HOME is not set, and this user has no home folder: set HOME to a folder\n"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """A search ends with a traceback when its record, which is UTF-8, is first written."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    options = ["--storage", "--cache", "--data", "--weights", "--space"]
    given = [sys.executable, "-m", "search.run", *(text for option in options for text in (option, str(folder)))]
    environment = {**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[1])}
    done = subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    shown = str(folder).encode("utf-8", "backslashreplace").decode()

    assert (done.returncode, done.stdout) == (2, "")
    for option in [*options, "the current folder"]:
        assert f"{option}: {shown}: this name is not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr
    assert [*folder.iterdir()] == []


def test_the_current_folder_is_gone(tmp_path: Path) -> None:
    """Somebody has removed the folder of another window, and the search ends with a traceback."""
    (tmp_path / "gone").mkdir()
    given = ["bash", "-c", f'cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$@"', "", *command(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[1])}
    done = subprocess.run(given, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the current folder is gone: change into one that is there\n"


def test_a_lost_storage_is_known_by_number_or_by_trial(tmp_path: Path) -> None:
    """A search would end for words in an error of a library, or trials fail one by one on a disk that is full."""
    full = RuntimeError("it could not be saved")
    full.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert machine.storage_fault(full, tmp_path) == f"{tmp_path} cannot be written: No space left on device"
    assert machine.storage_fault(ValueError("No space left on device"), tmp_path) is None
    assert machine.storage_fault(ValueError("no"), tmp_path / "gone") is not None
