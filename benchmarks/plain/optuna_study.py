"""Optuna as its documentation shows it: a study in an SQLite file, a pruner, `load_if_exists`.

    python -m benchmarks.plain.optuna_study FOLDER [resume]

https://optuna.readthedocs.io/en/stable/tutorial/20_recipes/001_rdb.html
"""

import json
import sys
from pathlib import Path

import optuna
from optuna.trial import TrialState

from benchmarks.plain.curve import BUDGET_S, EPOCHS, TRIALS, epoch_of, note

folder = Path(sys.argv[1]).absolute()


def objective(trial: optuna.Trial) -> float:
    """One trial."""
    x, value = trial.suggest_float("x", 0, 1), 0.0
    for epoch in range(1, EPOCHS + 1):
        value = epoch_of(x, epoch)
        note(folder, x, epoch)
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def main() -> None:
    """Run, or go on, and print what is known at the end."""
    (folder / "storage").mkdir(exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/storage/study.db",
        study_name="search",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
        load_if_exists="resume" in sys.argv,
    )
    over = [trial for trial in study.trials if trial.state.is_finished()]
    study.optimize(objective, n_trials=TRIALS - len(over), timeout=BUDGET_S)
    states = [trial.state for trial in study.trials]
    found = {
        "trials": len(states),
        "whole": states.count(TrialState.COMPLETE),
        "running": states.count(TrialState.RUNNING),
    }
    (folder / "end.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
