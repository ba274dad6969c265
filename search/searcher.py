"""What to try next: Optuna behind Ray's Searcher, told the truth about every trial.

Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped was complete, and leaves diverged ones running.
Here a stopped trial is PRUNED at its last epoch, one that ended by itself COMPLETE, a diverged or failed one FAIL. The
study stays in memory, saved with Ray's snapshot, and is mirrored to an Optuna journal as it grows.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search.optuna import OptunaSearch

from search.space import Space


def build_sampler(sampler: str, seed: int) -> BaseSampler:
    """The Optuna sampler of that name, with every option that changes its proposals pinned.

    `tpe`: multivariate tree-structured Parzen estimator (Falkner et al. 2018, https://arxiv.org/abs/1807.01774); trials
    still running repel new ones. `qmc`: scrambled Sobol points. `gp`: Gaussian process; it learns from completed trials
    alone. Parameters that exist only under a condition are sampled on their own.
    """
    match sampler:
        case "tpe":
            return TPESampler(
                multivariate=True,
                group=False,
                constant_liar=True,
                n_startup_trials=10,
                n_ei_candidates=24,
                seed=seed,
            )
        case "random":
            return RandomSampler(seed=seed)
        case "qmc":
            return QMCSampler(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=10, deterministic_objective=False)
        case _:
            raise ValueError(f"unknown sampler {sampler!r}")


class Searcher(OptunaSearch):  # type: ignore[misc]
    """Proposes configurations of a space; each carries its number as `trial`.

    Args:
        space: resolved for the backbone.
        sampler: `tpe`, `random`, `qmc` or `gp`.
        seed: of the sampler.
        journal: the file the study is mirrored to.
    """

    def __init__(self, space: Space, sampler: str, seed: int, journal: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space=space.suggest,
            metric="objective",
            mode=space.objective.mode,
            points_to_evaluate=[dict(point) for point in space.start],
            sampler=build_sampler(sampler, seed),
            study_name=space.name,
        )
        self._journal = Journal(journal, self._ot_study)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration."""
        configuration = super().suggest(trial_id)
        self._journal.update(self._frozen(trial_id))
        return {**configuration, "trial": f"{self._ot_trials[trial_id].number:04d}"}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna the best objective so far, at its epoch."""
        self._report(trial_id, result)
        self._journal.update(self._frozen(trial_id))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended."""
        if trial_id in self._completed_trials:
            return
        ending = (result or {}).get("ending", "")
        if error or not result or ending.startswith("diverged"):
            self._tell(trial_id, TrialState.FAIL)
        else:
            self._report(trial_id, result)
            if ending:
                self._tell(trial_id, TrialState.COMPLETE, result["objective"])
            else:
                self._tell(trial_id, TrialState.PRUNED)

    def close(self) -> None:
        """Leave no trial running: one that was cut off is PRUNED at its last epoch, or FAIL if it has none."""
        for trial_id in self._ot_trials:
            if trial_id not in self._completed_trials:
                seen = self._frozen(trial_id).intermediate_values
                self._tell(trial_id, TrialState.PRUNED if seen else TrialState.FAIL)

    def _report(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch once: Ray tells of a last one twice, a resumed trial may run one again."""
        known = self._frozen(trial_id).intermediate_values
        if math.isfinite(result["objective"]) and result["epoch"] not in known:
            self._ot_trials[trial_id].report(result["objective"], result["epoch"])

    def _tell(self, trial_id: str, state: TrialState, value: float | None = None) -> None:
        self._ot_study.tell(self._ot_trials[trial_id], value, state=state)
        self._completed_trials.add(trial_id)
        self._journal.update(self._frozen(trial_id))

    def _frozen(self, trial_id: str) -> FrozenTrial:
        trial: FrozenTrial = self._ot_study._storage.get_trial(self._ot_trials[trial_id]._trial_id)
        return trial

    def save(self, checkpoint_path: str) -> None:
        """Save all but the journal's handle."""
        state = {name: value for name, value in self.__dict__.items() if name != "_journal"}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Restore the study, and write the journal anew from it."""
        super().restore(checkpoint_path)
        self._journal = Journal(self._journal.path, self._ot_study)


class Journal:
    """An Optuna journal file that follows a study held in memory, for optuna-dashboard."""

    def __init__(self, path: Path, study: optuna.Study) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        self._study = self._storage.create_new_study([study.direction], study.study_name)
        self._ids: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        for trial in study.get_trials(deepcopy=False):
            if trial.state != TrialState.WAITING:
                self.update(trial)

    def update(self, trial: FrozenTrial) -> None:
        """Add what is new about a trial."""
        if trial.number not in self._ids:
            self._ids[trial.number] = self._storage.create_new_trial(self._study, template_trial=trial)
        else:
            steps = list(trial.intermediate_values.items())[self._seen[trial.number] :]
            for step, value in steps:
                self._storage.set_trial_intermediate_value(self._ids[trial.number], step, value)
            if trial.state.is_finished():
                self._storage.set_trial_state_values(self._ids[trial.number], trial.state, trial.values)
        self._seen[trial.number] = len(trial.intermediate_values)
