"""What this machine has: CPUs, GPUs, and folders that can be written; and what spares it."""

import contextlib
import errno
import functools
import gc
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

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


def versions() -> dict[str, str]:
    """The versions of Python and of all that decides what a search gives."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cpus() -> int:
    """The CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """The GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    if not (program := shutil.which("nvidia-smi")):
        return 0
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


@contextlib.contextmanager
def importing_keras() -> Iterator[None]:
    """Halve what the import takes.

    The garbage collector rests, for what is made then stays. Packages that Keras would import for its wrappers and
    plots, which a search has no use for, count as missing meanwhile.
    """
    hidden = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name in hidden:
            del sys.modules[name]


@functools.cache
def gpu_memory() -> int:
    """Bytes of memory of the smallest GPU; 0 without one."""
    if not gpus():
        return 0
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return min(int(mebibytes) for mebibytes in listed.split()) << 20
    except (OSError, ValueError, subprocess.CalledProcessError):
        return 0


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
    """That a folder is lost, as one sentence, where that is why an error came; else `None`."""
    said = str(error)
    if any(os.strerror(number) in said for number in LOST):
        return f"{folder} cannot be written: {said.splitlines()[0]}"
    return lost(folder)


def lost(folder: Path) -> str | None:
    """That a folder is gone or cannot be written, as one sentence; else `None`."""
    if not folder.is_dir():
        return f"{folder} cannot be written: {os.strerror(errno.ENOENT)}"
    fault = unwritable(folder)
    return fault and f"{folder} cannot be written: {fault}"
