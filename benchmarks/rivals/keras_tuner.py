"""KerasTuner: `GridSearch` for given configurations, `Hyperband` for a whole search.

    python -m benchmarks.rivals.keras_tuner WORKLOAD.json OUT.json

As in https://keras.io/guides/keras_tuner/getting_started/. One process, one trial after another, all cores.
"""

from pathlib import Path
from typing import Any

import keras
import keras_tuner

from benchmarks.rivals import transfer
from benchmarks.rivals.log import Log, arguments
from benchmarks.rivals.watch import Watch

FOLDER = "keras_tuner"


class Model(keras_tuner.HyperModel):
    """The model of a trial, and its row in the benchmark's log."""

    def __init__(self, workload: dict[str, Any], log: Log) -> None:
        super().__init__()
        self._workload, self._log = workload, log

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Declare the parameters; build the model for their values."""
        depths, rates = self._workload["unfreeze_depths"], self._workload["learning_rates"]
        if self._workload["kind"] == "equal":
            depth, rate = hp.Choice("unfreeze_depth", depths), hp.Choice("learning_rate", rates)
        else:
            depth = hp.Int("unfreeze_depth", depths[0], depths[-1])
            rate = hp.Float("learning_rate", *rates, sampling="log")
        return transfer.model(self._workload, depth, rate)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Train as KerasTuner does."""
        self._log.begin({name: hp.get(name) for name in ("unfreeze_depth", "learning_rate")})
        history = super().fit(hp, model, *args, **kwargs)
        self._log.end()
        return history


def iterations(workload: dict[str, Any]) -> int:
    """How often Hyperband must run to try about as many configurations as the workload has."""
    tuner = keras_tuner.oracles.HyperbandOracle(
        "val_accuracy", max_epochs=workload["epochs"], factor=workload["reduction_factor"]
    )
    brackets = range(tuner._get_num_brackets())
    return max(1, round(workload["trials"] / sum(tuner._get_size(bracket, 0) for bracket in brackets)))


def tuner_of(workload: dict[str, Any], log: Log) -> keras_tuner.Tuner:
    """The tuner for this kind of workload."""
    common = {"objective": "val_accuracy", "seed": workload["seed"], "directory": ".", "project_name": FOLDER}
    if workload["kind"] == "equal":
        return keras_tuner.GridSearch(Model(workload, log), **common)
    return keras_tuner.Hyperband(
        Model(workload, log),
        max_epochs=workload["epochs"],
        factor=workload["reduction_factor"],
        hyperband_iterations=iterations(workload),
        **common,
    )


def main() -> None:
    """Run the workload."""
    workload, out = arguments(__doc__)
    transfer.use_threads(workload["cores"])
    keras.utils.set_random_seed(workload["seed"])
    log = Log()
    images, validation = transfer.images(workload)
    watch = Watch(log, lambda: list(Path(FOLDER).glob("trial_*/checkpoint*")))
    tuner_of(workload, log).search(
        images,
        validation_data=validation,
        epochs=workload["epochs"],
        callbacks=[*transfer.callbacks(workload), watch],
        verbose=0,
    )
    log.write(out)


if __name__ == "__main__":
    main()
