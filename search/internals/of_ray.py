"""What a search needs from Ray that is not part of Ray's public API. Ray is imported only when it is used."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def start(folder: Path, **options: Any) -> None:
    """Start a local Ray for this process, with its files in a folder."""
    import ray

    ray.init("local", _temp_dir=str(folder), **options)


def started() -> list[Any]:
    """The processes of the Ray that this process started, as `subprocess.Popen`."""
    from ray._private import worker

    node = worker._global_node
    return [each.process for kind in node.all_processes.values() for each in kind] if node else []


def forget_token() -> None:
    """Make Ray read its token again."""
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


def check_cluster_file(config: Mapping[str, Any]) -> None:
    """Check a configuration for `ray up`.

    Raises:
        Exception: of many types: Ray refuses the configuration.
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
    """Remove from the cluster's store, if this process is connected to a cluster."""
    from ray.experimental import internal_kv

    if internal_kv._internal_kv_initialized():
        internal_kv._internal_kv_del(key)


def keys(prefix: bytes) -> list[bytes]:
    """The keys in the cluster's store that begin with `prefix`."""
    from ray.experimental import internal_kv

    return list(internal_kv._internal_kv_list(prefix))


def take_any_end_for_a_death() -> None:
    """Make Tune start a trial again whatever ended its process.

    When Ray's memory monitor ends a process, it raises a special error, at which Tune ends the search whatever
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
    """Stop Tune from handling SIGUSR1; the event by which Tune would learn of the signal is never set."""
    from ray.tune import tune

    tune._setup_signal_catching = threading.Event


def use_process_again(controller: Any, again: bool) -> None:
    """Set whether Tune uses the process of an ending trial again; call it in the scheduler's `on_trial_complete`."""
    controller._reuse_actors = again


def without_process(controller: Any) -> Iterator[Any]:
    """The pending trials, without those whose own process is starting, because Tune would end that process."""
    tune = controller._tune_controller
    started = tune._actor_manager.is_actor_started
    return (trial for trial in tune._pending_trials if not started(tune._trial_to_actor.get(trial)))
