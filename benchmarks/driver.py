"""What a search costs its driver beside the trials: trials that do nothing, on nodes that declare many CPUs.

    python -m benchmarks.driver --trials 100 2000 --slots 200

Each line is a process of its own: this project's searcher, scheduler, recorder and record, or bare Ray Tune with the
same searcher and no scheduler. CPU time is the driver's, per trial.
"""

import argparse
import json
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

KINDS = ("this project", "bare Ray Tune")
SAMPLERS = ("random", "tpe")
NODES = 4


def metrics(config: dict[str, Any]) -> dict[str, Any]:
    """What a trial of one epoch reports."""
    value = 1 - abs(config.get("learning_rate", 0.1) - 0.01)
    best = {"objective": value, "best_epoch": 1, "val_accuracy": value, "val_loss": 1 - value}
    last = {"last_val_accuracy": value, "last_val_loss": 1 - value}
    ending = {"ending": "completed", "reason": "all epochs"}
    state = {"seconds": 0.0, **ending, "paused": False, "note": "", "crowded": False}
    return {"epoch": 1, **best, **last, **state}


def no_trial(config: dict[str, Any], **_: Any) -> None:
    """A trial that does nothing."""
    from ray import tune

    tune.report(metrics(config))


def measure(kind: str, sampler: str, trials: int, slots: int) -> dict[str, Any]:
    """Run trials that do nothing; give the driver's figures."""
    from search.cluster.connection import OWN, Fleet

    os.environ.update(OWN, RAY_AUTH_TOKEN=secrets.token_hex(32))
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # Ray looks at it when it is imported
    import ray
    from ray.cluster_utils import Cluster

    from search import run
    from search.components.samplers import SAMPLERS as TABLE
    from search.driver import tune, worker
    from search.driver.faults import Faults
    from search.driver.recorder import Recorder
    from search.driver.scheduler import Scheduler
    from search.driver.searcher import Searcher
    from search.record.record import Record
    from search.report.console import Display, console
    from search.request import request

    with tempfile.TemporaryDirectory() as folder:
        given = ["--storage", folder, "--name", "none", "--trials", str(trials), "--epochs", "1"]
        asked = request.check(run.parser().parse_args(given))
        one = replace(asked.resources, cpus_per_trial=1)
        asked = replace(asked, space=asked.space.resolve(7), resources=one)
        record = Record(asked.folder)
        record.folder.mkdir()
        record.create(status="running")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(NODES):
            cluster.add_node(num_cpus=slots // NODES)
        ray.init(cluster.address, log_to_driver=False)
        searcher = Searcher(asked.space, TABLE[sampler], 0, record, lambda: slots)
        began, cpu = time.monotonic(), time.process_time()
        if kind == KINDS[0]:
            worker.run_trial = no_trial  # type: ignore[assignment]
            recorder = Recorder(
                record,
                asked.space,
                Display(console(), asked.space.budget, record.rows, asked.space.objective),
                searcher=searcher,
                scheduler=Scheduler(asked.rule, record),
                ask_to_pause=_nothing,
                trials_left=_nothing,
                faults=Faults(record, Fleet(one), _nothing, 0),
            )
            seconds = asked.space.budget.time_s
            tune.tuner(asked, recorder, worker.Pause(), folder=Path(folder), trials=trials, seconds=seconds).fit()
            done = len(record.ended)
        else:
            done = _bare(searcher, trials, folder)
        found = {
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.monotonic() - began,
            "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "done": done,
        }
        ray.shutdown()
        cluster.shutdown()
        return found


def _nothing(*_: Any) -> None:
    pass


def _bare(searcher: Any, trials: int, folder: str) -> int:
    from ray import tune

    tuner = tune.Tuner(
        tune.with_resources(no_trial, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=trials, reuse_actors=True),
        run_config=tune.RunConfig(name="bare", storage_path=folder, verbose=0),
    )
    return sum(result.error is None for result in tuner.fit())


def apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function of this module in a process of its own."""
    code = f"import json; from benchmarks import driver; print(json.dumps(driver.{function.__name__}(*{arguments!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--slots", type=int, default=200, help="trials at a time, on 4 nodes (default: 200)")
    options = parser.parse_args()
    print("| searcher | tool | trials | driver's CPU, ms per trial | driver's memory, MiB | wall, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for sampler in SAMPLERS:
        for trials in options.trials:
            for kind in KINDS:
                found = apart(measure, kind, sampler, trials, options.slots)
                if found["done"] != trials:
                    sys.exit(f"only {found['done']} of {trials} trials ended")
                each = 1000 * found["cpu_s"] / trials
                row = [sampler, kind, trials, f"{each:.1f}", f"{found['mib']:.0f}", f"{found['wall_s']:.0f}"]
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
