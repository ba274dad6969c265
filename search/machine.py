"""What this machine has: CPUs, GPUs, and folders that can be written."""

import contextlib
import errno
import functools
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "finetune-search",
    "ray",
    "optuna",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "tensorboard",
    "numpy",
)
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN)
TRIED = 1 << 20  # bytes that a folder must have room for


def versions() -> dict[str, str]:
    """The versions of Python and of all that decides what a search gives."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cpus() -> int:
    """The CPUs this process may use, at least 1: those it may run on, or fewer by the quota of its container."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(there, quota())))


def quota(root: Path = Path("/")) -> float:
    """How many CPUs' time this process may take, by the smallest quota of its control groups; infinite without one.

    Args:
        root: below which `proc` and the control groups are mounted.
    """
    return min((_allowed(group) for group in _control_groups(root)), default=math.inf)


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups that may limit CPUs, each with those above it (version 1 or 2)."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (root / "proc/self/mountinfo").read_text().splitlines()]
    except OSError:  # no Linux
        return
    paths = {
        "cgroup2" if number == "0" else "cgroup": path for number, kinds, path in groups if _of_cpus(number, kinds)
    }
    for mount in mounts:
        above, at, kind, options = mount[3], mount[4], mount[mount.index("-") + 1], mount[-1]
        if kind in paths and _of_cpus("0" if kind == "cgroup2" else "", options):
            mounted, inside = root / at.lstrip("/"), os.path.relpath(paths[kind], above)
            group = mounted if inside.startswith("..") else mounted / inside  # it may lie outside this container
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mounted))


def _of_cpus(number: str, kinds: str) -> bool:
    """Whether a hierarchy may limit CPUs: that of version 2, whose number is 0, or the one of this kind."""
    return number == "0" or "cpu" in kinds.split(",")


def _allowed(group: Path) -> float:
    """The quota of one control group, in CPUs."""
    with contextlib.suppress(OSError, ValueError):  # no limit there, or none that is a number
        most, period = (group / "cpu.max").read_text().split()
        return int(most) / int(period)
    with contextlib.suppress(OSError, ValueError):
        most, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf
    return math.inf


def gpus() -> int:
    """The GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(_memories())


@functools.cache
def gpu_memory() -> int:
    """Bytes of memory of the smallest GPU; 0 without one, or where the driver does not say."""
    return min(_memories(), default=0) if gpus() else 0


def _memories() -> list[int]:
    """Bytes of memory of each of NVIDIA's GPUs; 0 where the driver does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return []
    try:
        return [_memory(pynvml.nvmlDeviceGetHandleByIndex(number)) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _memory(device: Any) -> int:
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(device).total)
    except pynvml.NVMLError:  # a GPU that is divided (MIG) does not say to everybody
        return 0


def free(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def unwritable(folder: Path) -> str | None:
    """Why a folder cannot be written or made; `None` when it can."""
    try:
        existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
        if not existing.is_dir():
            return f"{existing} is not a folder"
        with tempfile.TemporaryDirectory(dir=existing):  # permissions alone do not tell, for root least of all
            return None
    except OSError as error:
        return f"no folder can be made there: {error.strerror}"


def storage_fault(error: BaseException, folder: Path) -> str | None:
    """That a folder is lost, as one sentence, where that is why an error came; else `None`.

    TensorFlow's errors do not have the system's number: then the folder is tried.
    """
    for each in _origins(error):
        if isinstance(each, OSError) and each.errno in LOST:
            return f"{folder} cannot be written: {each.strerror}"
    return lost(folder)


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def lost(folder: Path) -> str | None:
    """That a folder is gone, full or cannot be written, as one sentence; else `None`."""
    if not folder.is_dir():
        return f"{folder} cannot be written: {os.strerror(errno.ENOENT)}"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIED))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    return None
