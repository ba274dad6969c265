"""Optuna with Keras: one process, one trial after another, all cores.

    python -m benchmarks.rivals.optuna_keras WORKLOAD.json OUT.json

As in https://github.com/optuna/optuna-examples/blob/main/keras/keras_integration.py, with Keras's `ModelCheckpoint`.
Given configurations are enqueued; a whole search uses `TPESampler` and the pruner that Optuna's documentation finds
best with it, `HyperbandPruner`.
"""

from pathlib import Path
from typing import Any

import keras
import optuna
from optuna_integration import KerasPruningCallback

from benchmarks.rivals import transfer
from benchmarks.rivals.log import Log, arguments, grid
from benchmarks.rivals.watch import Watch


def objective(trial: optuna.Trial, workload: dict[str, Any], data: tuple[Any, Any], log: Log) -> float:
    """Train one configuration; give the accuracy of its best epoch."""
    keras.utils.clear_session()
    depths, rates = workload["unfreeze_depths"], workload["learning_rates"]
    depth = trial.suggest_int("unfreeze_depth", depths[0], depths[-1])
    rate = trial.suggest_float("learning_rate", rates[0], rates[-1], log=True)
    row = log.begin({"unfreeze_depth": depth, "learning_rate": rate})
    model = transfer.model(workload, depth, rate)
    path = Path("checkpoints", f"{trial.number:04d}.keras")
    callbacks = [
        *transfer.callbacks(workload),
        keras.callbacks.ModelCheckpoint(path, monitor="val_accuracy", mode="max", save_best_only=True),
        Watch(log, lambda: [path]),
    ]
    if workload["kind"] == "search":
        callbacks.append(KerasPruningCallback(trial, "val_accuracy"))
    images, validation = data
    try:
        history = model.fit(
            images, validation_data=validation, epochs=workload["epochs"], callbacks=callbacks, verbose=0
        )
    finally:
        log.end(row)
        log.look_at(path)
    return max(history.history["val_accuracy"])


def main() -> None:
    """Run the workload."""
    workload, out = arguments(__doc__)
    transfer.use_threads(workload["cores"])
    keras.utils.set_random_seed(workload["seed"])
    Path("checkpoints").mkdir()
    log, data = Log(), transfer.images(workload)
    pruner = optuna.pruners.NopPruner()
    if workload["kind"] == "search":
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=workload["first_rung"],
            max_resource=workload["epochs"],
            reduction_factor=workload["reduction_factor"],
        )
    sampler = optuna.samplers.TPESampler(seed=workload["seed"])
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    if workload["kind"] == "equal":
        for configuration in grid(workload):
            study.enqueue_trial(configuration)
    study.optimize(lambda trial: objective(trial, workload, data, log), n_trials=workload["trials"])
    log.write(out)


if __name__ == "__main__":
    main()
