"""Ray Tune: a function trainable with `TuneReportCheckpointCallback`, one CPU for each trial.

    python -m benchmarks.rivals.ray_tune WORKLOAD.json OUT.json
    python -m benchmarks.rivals.ray_tune_reuse WORKLOAD.json OUT.json    the same with reuse_actors=True

As in https://docs.ray.io/en/latest/tune/examples/tune_mnist_keras.html; a whole search with `ASHAScheduler` and
`OptunaSearch`, as in https://docs.ray.io/en/latest/tune/examples/optuna_example.html, at the rungs this project uses.
"""

from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.rivals.log import Log, arguments


def train(config: dict[str, Any], workload: dict[str, Any]) -> None:
    """Train one configuration, in a worker of its own."""
    import keras
    from ray.tune.integration.keras import TuneReportCheckpointCallback

    from benchmarks.rivals import transfer

    transfer.use_threads(1)
    keras.utils.clear_session()
    keras.utils.set_random_seed(workload["seed"])
    images, validation = transfer.images(workload)
    model = transfer.model(workload, config["unfreeze_depth"], config["learning_rate"])
    model.fit(
        images,
        validation_data=validation,
        epochs=workload["epochs"],
        callbacks=[*transfer.callbacks(workload), TuneReportCheckpointCallback()],
        verbose=0,
    )


class Follow(tune.Callback):
    """Tells the benchmark's log what the trials report."""

    def __init__(self, log: Log) -> None:
        self._log, self._rows = log, {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A row for each trial."""
        self._rows[trial.trial_id] = self._log.begin(dict(trial.config))

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """An epoch."""
        self._log.epoch(result["val_accuracy"], self._rows[trial.trial_id])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """The trial's time."""
        self._log.end(self._rows[trial.trial_id])


def choices(workload: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters' space, and how it is searched."""
    depths, rates = workload["unfreeze_depths"], workload["learning_rates"]
    if workload["kind"] == "equal":
        return {"unfreeze_depth": tune.grid_search(depths), "learning_rate": tune.grid_search(rates)}, {}
    scheduler = ASHAScheduler(
        max_t=workload["epochs"],
        grace_period=workload["first_rung"],
        reduction_factor=workload["reduction_factor"],
    )
    space = {"unfreeze_depth": tune.randint(depths[0], depths[-1] + 1), "learning_rate": tune.loguniform(*rates)}
    trials, at_a_time = workload["trials"], workload["cores"]
    searched = {"scheduler": scheduler, "search_alg": OptunaSearch(seed=workload["seed"])}
    return space, {**searched, "num_samples": trials, "max_concurrent_trials": at_a_time}


def main(reuse_actors: bool = False) -> None:
    """Run the workload."""
    workload, out = arguments(__doc__)
    log, storage = Log(), Path.cwd() / "ray"
    ray.init("local", num_cpus=workload["cores"])
    space, searched = choices(workload)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, workload=workload), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", reuse_actors=reuse_actors, **searched),
        run_config=tune.RunConfig(name="bench", storage_path=str(storage), callbacks=[Follow(log)]),
    )
    results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{results.num_errors} trials failed") from results.errors[0]
    for path in storage.rglob("checkpoint_*/*"):
        log.look_at(path)
    log.write(out)


if __name__ == "__main__":
    main()
