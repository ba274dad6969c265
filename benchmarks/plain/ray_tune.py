"""Ray Tune as its documentation shows it: OptunaSearch, ASHA, checkpoints, `max_failures`, `Tuner.restore`.

    python -m benchmarks.plain.ray_tune FOLDER [resume]

https://docs.ray.io/en/latest/tune/tutorials/tune-fault-tolerance.html
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.plain.curve import BUDGET_S, EPOCHS, TRIALS, epoch_of, note

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}

folder = Path(sys.argv[1]).absolute()


def train(config: dict[str, Any]) -> None:
    """One trial."""
    first = 1
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as saved:
            first = json.loads(Path(saved, "state.json").read_text())["epoch"] + 1
    for epoch in range(first, EPOCHS + 1):
        value = epoch_of(config["x"], epoch)
        with tempfile.TemporaryDirectory() as made:
            Path(made, "state.json").write_text(json.dumps({"epoch": epoch, "ballast": "0" * 200_000}))
            note(folder, config["x"], epoch)
            tune.report({"value": value}, checkpoint=tune.Checkpoint.from_directory(made))


def start_ray() -> None:
    """An own Ray, or where `NODES` is set a cluster whose second node may be lost; its raylet is noted."""
    if "NODES" not in os.environ:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        return
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    first, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    (folder / "raylet").write_text(str(first.all_processes["raylet"][0].process.pid))
    ray.init(cluster.address, log_to_driver=False)


def main() -> None:
    """Run, or go on, and print what is known at the end."""
    start_ray()
    storage = folder / "storage"
    if "resume" in sys.argv:
        tuner = tune.Tuner.restore(str(storage / "search"), train, resume_unfinished=True)
    else:
        tuner = tune.Tuner(
            train,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="value",
                mode="max",
                search_alg=OptunaSearch(seed=0),
                scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=EPOCHS),
                num_samples=TRIALS,
                time_budget_s=BUDGET_S,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=3),
                verbose=0,
            ),
        )
    results = tuner.fit()
    ends = [(result.metrics or {}).get("training_iteration", 0) for result in results]
    found = {"trials": len(results), "whole": ends.count(EPOCHS), "errors": results.num_errors}
    (folder / "end.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
