"""What this machine has: its CPUs and GPUs, and whether its folders can be written."""

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
TRIED = 1 << 20  # bytes that a folder must have room for to count as writable


def versions() -> dict[str, str]:
    """The versions of Python and of all packages that influence the results of a search."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cpus() -> int:
    """How many CPUs this process may use, at least 1: those of its affinity mask, or fewer by its container's quota."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(there, quota())))


def quota(root: Path = Path("/")) -> float:
    """The CPU time this process may use, in CPUs: the smallest quota of its control groups; infinite without one.

    Args:
        root: the folder below which `proc` and the control groups are mounted.
    """
    return min((_allowed(group) for group in _control_groups(root)), default=math.inf)


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups (version 1 or 2) that may limit CPUs, each with its parents."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (root / "proc/self/mountinfo").read_text().splitlines()]
    except OSError:  # not Linux
        return
    paths = {
        "cgroup2" if number == "0" else "cgroup": path for number, kinds, path in groups if _of_cpus(number, kinds)
    }
    for mount in mounts:
        above, at, kind, options = mount[3], mount[4], mount[mount.index("-") + 1], mount[-1]
        if kind in paths and _of_cpus("0" if kind == "cgroup2" else "", options):
            mounted, inside = root / at.lstrip("/"), os.path.relpath(paths[kind], above)
            group = mounted if inside.startswith("..") else mounted / inside  # the group may be outside this container
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mounted))


def _of_cpus(number: str, kinds: str) -> bool:
    """Whether a hierarchy may limit CPUs: that of version 2, whose number is 0, or one of version 1 of kind `cpu`."""
    return number == "0" or "cpu" in kinds.split(",")


def _allowed(group: Path) -> float:
    """The quota of one control group, in CPUs."""
    with contextlib.suppress(OSError, ValueError):  # no such file, or no limit ("max")
        most, period = (group / "cpu.max").read_text().split()
        return int(most) / int(period)
    with contextlib.suppress(OSError, ValueError):
        most, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf
    return math.inf


def gpus() -> int:
    """How many GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(_memories())


@functools.cache
def gpu_memory() -> int:
    """Bytes of memory of the smallest GPU; 0 without a GPU, or if the driver does not tell."""
    return min(_memories(), default=0) if gpus() else 0


def _memories() -> list[int]:
    """Bytes of memory of each NVIDIA GPU; 0 if the driver does not tell."""
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
    except pynvml.NVMLError:  # a partitioned GPU (MIG) may refuse to tell
        return 0


def free(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def unwritable(folder: Path) -> str | None:
    """Why a folder cannot be written or created; `None` when it can."""
    try:
        existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
        if not existing.is_dir():
            return f"{existing} is not a folder"
        with tempfile.TemporaryDirectory(dir=existing):  # permissions do not prove it, least of all for root
            return None
    except OSError as error:
        return f"no folder can be made there: {error.strerror}"


def storage_fault(error: BaseException, folder: Path) -> str | None:
    """If a lost folder caused an error, one sentence that says so; else `None`.

    TensorFlow's errors have no `errno`: where no error number tells, the folder is tested by writing to it.
    """
    for each in _origins(error):
        if isinstance(each, OSError) and each.errno in LOST:
            return f"{folder} cannot be written: {each.strerror}"
    return lost(folder)


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that caused it."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def lost(folder: Path) -> str | None:
    """If a folder is gone, full or read-only, one sentence that says so; else `None`."""
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
