"""What a search needs of Ray that Ray does not promise. Ray is imported when it is used."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def start(folder: Path, **options: Any) -> None:
    """Start a Ray of this process's own, whose files lie in a folder."""
    import ray

    ray.init("local", _temp_dir=str(folder), **options)


def started() -> list[Any]:
    """The processes of the Ray that this process started, as `subprocess.Popen`."""
    from ray._private import worker

    node = worker._global_node
    return [each.process for kind in node.all_processes.values() for each in kind] if node else []


def forget_token() -> None:
    """Have Ray read its token anew."""
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


def check_cluster_file(config: Mapping[str, Any]) -> None:
    """Check what `ray up` is given.

    Raises:
        Exception: of many kinds: it is refused.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def write(key: bytes, value: bytes) -> None:
    """Write to the key-value store that a cluster's processes share."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(key, value)


def read(key: bytes) -> bytes | None:
    """Read from the cluster's store."""
    from ray.experimental import internal_kv

    value: bytes | None = internal_kv._internal_kv_get(key)
    return value


def remove(key: bytes) -> None:
    """Remove from the cluster's store, where there is a cluster."""
    from ray.experimental import internal_kv

    if internal_kv._internal_kv_initialized():
        internal_kv._internal_kv_del(key)


def keys(prefix: bytes) -> list[bytes]:
    """The keys in the cluster's store that begin so."""
    from ray.experimental import internal_kv

    return list(internal_kv._internal_kv_list(prefix))


def take_any_end_for_a_death() -> None:
    """Have Tune begin a trial again whatever ended its process.

    Ray's memory monitor gives an error of its own when it ends a process, at which Tune ends the search whatever
    `max_failures` is (https://github.com/ray-project/ray/issues/29736).
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import RayActorError, RayTaskError

    failed = RayActorManager._actor_task_failed
    if failed.__module__ == __name__:
        return

    def died(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            first, _, _ = str(exception).partition(". ")
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {first}")
        failed(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = died


def leave_signals_alone() -> None:
    """Have Tune not answer SIGUSR1 itself; the event that would tell of it is never set."""
    from ray.tune import tune

    tune._setup_signal_catching = threading.Event


def use_process_again(controller: Any, again: bool) -> None:
    """Decide about the process of a trial that ends, when Tune asks for the scheduler's last word."""
    controller._reuse_actors = again


def without_process(controller: Any) -> Iterator[Any]:
    """The trials that wait, but for those whose own process starts: Tune would end that one."""
    tune = controller._tune_controller
    started = tune._actor_manager.is_actor_started
    return (trial for trial in tune._pending_trials if not started(tune._trial_to_actor.get(trial)))
