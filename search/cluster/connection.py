"""Joins a Ray cluster or starts a local one, in the background while the request is completed."""

import contextlib
import logging
import math
import os
import secrets
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from search.errors import NodeError, RequestError, cause
from search.internals import of_ray
from search.request.resources import Resources
from search.signals import kept_away

OWN = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: Ray then opens its ports only on the loopback address
}
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 the name of the variable
PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 a folder of one's own is made there
SOCKET = "/ray-01234567/r/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST = 107 - len(SOCKET)  # bytes that the path of the folder above that one may have
PREFIX = b"finetune-search/search/"
SECONDS_BETWEEN_LOOKS, SILENT_AFTER_S, SECONDS_TO_DIE = 2.0, 30.0, 5.0


class Cluster:
    """The Ray cluster a search runs on: the one at an address, or a local one that ends with the context.

    A separate thread starts it and lives as long as the cluster, because Ray's processes end when the thread that
    started them ends.

    Args:
        resources: the address, if any, and what the trials may use of this machine.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start or join Ray. Call this before Ray is imported, because Ray then reads its environment.

        Raises:
            RequestError: there is no folder for the files of a local Ray.
        """
        os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_USAGE_STATS_ENABLED="0")
        if not self._resources.address:
            self._folder = _folder()
            os.environ.update(OWN, **{TOKEN: secrets.token_hex(32)})
        elif _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        self._thread.start()

    def restart(self) -> None:
        """Leave the cluster, or end a local one, and begin again; nothing of this search is left on the cluster."""
        self.close()
        self._renew()
        self.start()

    def wait(self) -> None:
        """Wait until Ray has started.

        Raises:
            RequestError: the cluster at the address cannot be joined.
            Exception: whatever a local Ray raised when it started.
        """
        self._up.wait()
        if self._fault and self._resources.address:
            raise RequestError([f"--address {self._resources.address} cannot be joined: {cause(self._fault)}"])
        if self._fault:
            raise self._fault

    def close(self) -> None:
        """Leave the cluster, or end a local one. A local one that is still starting ends when this process ends."""
        self._over.set()
        if self._up.is_set():
            self._thread.join()
        elif self._thread.is_alive():
            self._tidy()

    def _renew(self) -> None:
        self._up, self._over = threading.Event(), threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._live, daemon=True, name="ray")

    def _live(self) -> None:
        import ray  # noqa: F401 it sets the level of its logger

        logger = logging.getLogger("ray")
        level = logger.level
        logger.setLevel(logging.ERROR)  # it warns of its defaults
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 it is raised where it is waited for
            self._fault = error
        finally:
            logger.setLevel(level)
            self._up.set()
        self._over.wait()
        self._end()

    def _begin(self) -> None:
        import ray

        of_ray.forget_token()
        quiet = {"log_to_driver": False, "configure_logging": False}
        if self._resources.address:
            ray.init(self._resources.address, **quiet)
            return
        own = {"num_cpus": self._resources.cpus, "num_gpus": self._resources.gpus, "include_dashboard": False}
        with kept_away():
            of_ray.start(self._folder / "r", **own, **quiet)

    def _end(self) -> None:
        import ray

        if self._resources.address:
            ray.shutdown()
            return
        _kill()
        os.environ.pop(TOKEN)
        of_ray.forget_token()
        if not self._fault:
            self._tidy()

    def _tidy(self) -> None:
        """Remove the files of a local Ray, unless the user chose their folder with `RAY_TMPDIR`."""
        if not self._resources.address and str(self._folder.parent) != os.environ.get("RAY_TMPDIR"):
            shutil.rmtree(self._folder, ignore_errors=True)


def _has_token() -> bool:
    """Whether this user has a token for joining a cluster; works without a home folder, or with an unreadable one."""
    named = os.environ.keys() & {TOKEN, "RAY_AUTH_TOKEN_PATH"}
    return bool(named) or os.path.exists(os.path.expanduser("~/.ray/auth_token"))  # noqa: PTH110, PTH111 they never raise


def _folder() -> Path:
    """Create a folder for Ray's sockets and logs that only this user can enter; inside, Ray lets everybody write.

    It is created in `RAY_TMPDIR` or `TMPDIR`, unless socket paths would be too long there, else in one of `PLACES`. It
    is removed with the search, unless it is in `RAY_TMPDIR` or Ray did not start: then the user may want the logs.

    Raises:
        RequestError: the folder cannot be created anywhere.
    """
    places = [place for name in ("RAY_TMPDIR", "TMPDIR") if (place := os.environ.get(name))]
    for place in map(os.path.abspath, [*places, *PLACES]):
        if len(os.fsencode(place)) <= LONGEST:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="ray-", dir=place))
    tried = ", ".join([*places, *PLACES])
    raise RequestError(
        [
            f"Ray needs a folder that can be written and whose path has at most {LONGEST} bytes, for its sockets; "
            f"none of {tried} is one; name one with RAY_TMPDIR"
        ]
    )


def _kill() -> None:
    """End a local Ray by SIGKILL: its processes block other signals, and their children could live another minute."""
    import psutil
    import ray

    below: list[psutil.Process] = []
    for process in of_ray.started():
        process.terminate = process.kill
        with contextlib.suppress(psutil.NoSuchProcess):
            below += psutil.Process(process.pid).children(recursive=True)
    ray.shutdown()
    for child in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(below, timeout=SECONDS_TO_DIE)


class Fleet:
    """The nodes of the cluster that a search may use: all except those that were found unfit.

    Args:
        resources: what a trial takes.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._unfit: set[str] = set()

    def room(self) -> int:
        """How many trials the fit nodes have room for in all."""
        import ray

        fit = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._unfit]
        return sum(self.resources.room(node["Resources"]) for node in fit)

    def leave_out(self, error: NodeError, tell: Callable[[str], None]) -> None:
        """Run nothing of this search on a node any more."""
        if error.node not in self._unfit:
            self._unfit.add(error.node)
            tell(f"no more trials run on {error}")

    @property
    def selector(self) -> dict[str, str]:
        """Ray's label selector for the fit nodes."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self._unfit))})"} if self._unfit else {}


class Share:
    """How many trials a search may run now: as many as the cluster has room for, shared evenly with other searches.

    Searches on one cluster know of each other through Ray's key-value store: each search that lives increases a counter
    there again and again.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._key = PREFIX + uuid.uuid4().bytes
        self._counted = 0
        self._seen: dict[bytes, tuple[bytes | None, float]] = {}
        self._looked_at = -math.inf
        self._trials = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        of_ray.remove(self._key)

    def __call__(self) -> int:
        """How many trials may run now; the cluster is checked at most every `SECONDS_BETWEEN_LOOKS`."""
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            there, resources = self._fleet.room(), self._fleet.resources
            even = math.ceil(there / self._searches()) if resources.address else there
            self._trials = max(1, min(resources.max_concurrent or even, even))
            self._looked_at = time.monotonic()
        return self._trials

    def _searches(self) -> int:
        """How many searches run on the cluster; one whose counter stands still for `SILENT_AFTER_S` is dead."""
        self._counted += 1
        of_ray.write(self._key, str(self._counted).encode())
        alive = 0
        for key in of_ray.keys(PREFIX):
            value, now = of_ray.read(key), time.monotonic()
            before, since = self._seen.get(key, (None, now))
            if value != before:
                self._seen[key] = (value, now)
            elif now - since > SILENT_AFTER_S:
                of_ray.remove(key)
                continue
            alive += 1
        return max(1, alive)
