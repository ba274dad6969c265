"""Proposes the next configuration: a Ray Searcher that uses Optuna and reports the true state of every trial to it.

Ray's own OptunaSearch reports a trial that ASHA stopped to Optuna as complete, and leaves diverged trials running.
Here a stopped trial is PRUNED at its last epoch, one that ended by itself is COMPLETE, a diverged or failed one FAIL.
The study is held in memory, rebuilt from the record when a search is resumed, and copied to an Optuna journal.
"""

import functools
import itertools
import sys
from collections import deque
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from ray import tune

from search.components.samplers import Sampler
from search.internals import of_optuna
from search.parameters import ends, sample
from search.record import reports
from search.record.record import Record, Row
from search.record.reports import Report
from search.record.states import COMPLETED, DIVERGED, RUNNING, STOPPED
from search.setting import Value
from search.space.space import Space

Key = tuple[tuple[str, Value], ...]


class Fresh(BaseSampler):
    """Proposes what another sampler proposes, but no configuration twice: random ones replace repeated ones.

    Args:
        sampler: the other sampler.
        seed: of the random replacements.
        space: resolved for the backbone.
        point: the given parameters of the configuration to propose; the sampler chooses the others.
        taken: the configurations that trials already have.
    """

    def __init__(
        self, sampler: BaseSampler, seed: int, space: Space, point: Mapping[str, Value], taken: Container[Key]
    ) -> None:
        self._sampler, self._seed, self._space, self._point, self._taken = sampler, seed, space, point, taken

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:  # noqa: ARG002
        """All parameters, because a configuration is proposed as a whole."""
        return dict(self._space.search)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:  # noqa: ARG002
        """A configuration that is not taken; without a free one this never returns."""
        chance = RandomSampler(self._seed)
        proposals = [(self._sampler, self._point), *([(self._sampler, {})] if self._point else [])]
        for sampler, point in itertools.chain(proposals, itertools.repeat((chance, {}))):
            configuration = self._space.suggest(_choosing(sampler, point, study, trial))
            if _key(configuration) not in self._taken:
                break
        return configuration

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What the other sampler proposes."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def _choosing(
    sampler: BaseSampler, point: Mapping[str, Value], study: optuna.Study, trial: FrozenTrial
) -> Callable[[str, Any], Value]:
    """A function that chooses each parameter as Optuna does for a trial with some parameters given by `point`."""

    @functools.cache
    def together() -> dict[str, Any]:
        return sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))

    def choose(name: str, distribution: BaseDistribution) -> Any:
        if name in point:
            return point[name]
        if distribution.single():
            return ends(distribution)[0]
        known = together()
        return known[name] if name in known else sampler.sample_independent(study, trial, name, distribution)

    return choose


class Searcher(tune.search.Searcher):  # type: ignore[misc]
    """Proposes configurations of a space; each holds the number of its trial as `trial`.

    A proposal depends only on the space, the seed, the trial's number and the trials so far, so that a resumed search
    proposes what the uninterrupted one would have. No configuration is proposed twice.

    Args:
        space: resolved for the backbone.
        sampler: builds the Optuna sampler.
        seed: of the sampler.
        record: of the search; its trials are added to the study, and those that have not ended are proposed first.
        room: returns how many trials may run now.
    """

    def __init__(
        self, space: Space, sampler: Sampler, seed: int, record: Record, room: Callable[[], int] = lambda: sys.maxsize
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(metric="objective", mode=space.objective.mode)
        self._space, self._sampler, self._seed = space, sampler, seed
        direction = StudyDirection.MAXIMIZE if space.objective.mode == "max" else StudyDirection.MINIMIZE
        self._study = optuna.create_study(direction=direction, study_name=space.name)
        self._taken = {row.configuration for row in record.rows.values()}
        self._lasting = sampler.build(seed) if sampler.lasting else None
        self._trials: dict[str, optuna.Trial] = {}
        self._waiting: deque[optuna.Trial] = deque()
        self._live: set[str] = set()
        self._room = room
        self.pausing = False
        self._know(record)
        self._journal = Journal(record.files.journal, self._study)

    @property
    def fault(self) -> OSError | None:
        """Why the journal cannot be written; `None` if it can."""
        return self._journal.fault

    def too_many(self) -> bool:
        """Whether more trials run than are allowed now, because nodes have left or other searches have started."""
        return len(self._live) > self._room()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; `None` while no more trials may run now, `FINISHED` when no more will begin."""
        if self.pausing or (not self._waiting and len(self._taken) >= self._space.size):
            return str(self.FINISHED)
        if len(self._live) >= self._room():
            return None
        trial = self._waiting.popleft() if self._waiting else self._ask()
        configuration = self._chosen(trial)
        self._trials[trial_id] = trial
        self._live.add(trial_id)
        self._journal.update(self._frozen(trial_id))
        return {**configuration, "trial": f"{trial.number:04d}"}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna the best objective so far, at its epoch."""
        told = reports.read(result)
        if isinstance(told, Report):
            self._report(trial_id, told)
        self._journal.update(self._frozen(trial_id))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended; a paused trial has not ended."""
        self._live.discard(trial_id)
        if self._frozen(trial_id).state.is_finished():
            return
        told = reports.read(result) if result and not error else None
        if not isinstance(told, Report):
            self._tell(trial_id, TrialState.FAIL)
            return
        if told.ending != DIVERGED:
            self._report(trial_id, told)
        if told.ending:
            self._tell(trial_id, *_told(told.ending, told.objective))
        elif not told.paused:
            whole = told.epoch >= self._space.budget.epochs
            self._tell(trial_id, *((TrialState.COMPLETE, told.objective) if whole else (TrialState.PRUNED,)))

    def close(self) -> None:
        """Leave no trial running in the study: one that was cut off is PRUNED at its last epoch, FAIL without one."""
        self._trials |= {f"waiting {trial.number}": trial for trial in self._waiting}
        for trial_id in self._trials:
            frozen = self._frozen(trial_id)
            if not frozen.state.is_finished():
                self._tell(trial_id, TrialState.PRUNED if frozen.intermediate_values else TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search is resumed from its own record, not from Ray's snapshot."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _know(self, record: Record) -> None:
        """Add the trials of the record to the study."""
        numbers = [int(row.trial) for row in record.rows.values() if not row.confirms]
        for number in range(max(numbers, default=-1) + 1):
            row = record.rows.get(f"{number:04d}")
            trial = self._ask(row)
            if not row:  # it was proposed but never started
                self._waiting.append(trial)
                continue
            for epoch, point in record.curves.get(row.trial, {}).items():
                trial.report(point.objective, epoch)
            if row.state == RUNNING:
                self._waiting.append(trial)
            elif row.state == COMPLETED:
                self._study.tell(trial, max(record.curves[row.trial].items())[1].objective)
            else:
                pruned = row.state == STOPPED and record.curves.get(row.trial)
                self._study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def _ask(self, known: Row | None = None) -> optuna.Trial:
        """The study's next trial: a known trial as it was, a start point, or what the sampler proposes."""
        number = len(self._study.get_trials(deepcopy=False))
        begun = dict(enumerate(self._space.start)).get(number)
        if known:
            self._study.enqueue_trial(dict(known.parameters))
            self._study.sampler = self._lasting or RandomSampler(self._seed)
        else:
            seed = _mixed(self._seed, number)
            sampler = self._lasting or self._sampler.build(seed)
            self._study.sampler = Fresh(sampler, seed, self._space, begun or {}, self._taken)
        trial = self._study.ask()
        if self._lasting and known and begun is None:
            _ = trial.relative_params  # advances the sequence past the point of this trial
        self._taken.add(_key(self._chosen(trial)))
        return trial

    def _chosen(self, trial: optuna.Trial) -> dict[str, Value]:
        """The configuration of one of the study's trials; every call returns the same."""
        return self._space.suggest(functools.partial(sample, trial))

    def _report(self, trial_id: str, told: Report) -> None:
        """Report each epoch only once: Ray reports a last epoch twice, and a resumed trial may repeat one."""
        known = self._frozen(trial_id).intermediate_values
        if told.known and told.epoch not in known:
            self._trials[trial_id].report(told.objective, told.epoch)

    def _tell(self, trial_id: str, state: TrialState, value: float | None = None) -> None:
        self._study.tell(self._trials[trial_id], value, state=state)
        self._journal.update(self._frozen(trial_id))

    def _frozen(self, trial_id: str) -> FrozenTrial:
        return of_optuna.frozen(self._study, self._trials[trial_id])


def _key(configuration: Mapping[str, Value]) -> Key:
    return Row("", configuration).configuration


def _told(ending: str, objective: float) -> tuple[TrialState, float | None]:
    return (TrialState.FAIL, None) if ending == DIVERGED else (TrialState.COMPLETE, objective)


def _mixed(seed: int, number: int) -> int:
    """A seed for one trial, mixed from the seed of the search and the trial's number."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Journal:
    """An Optuna journal file that copies a study held in memory, for optuna-dashboard.

    Attributes:
        fault: why it cannot be written, else `None`; after a fault nothing more is written.
    """

    def __init__(self, path: Path, study: optuna.Study) -> None:
        self.fault: OSError | None = None
        self._ids: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        path.unlink(missing_ok=True)
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        self._study = self._storage.create_new_study([study.direction], study.study_name)
        for trial in study.get_trials(deepcopy=False):
            self.update(trial)

    def update(self, trial: FrozenTrial) -> None:
        """Add the new epochs and the end of a trial."""
        if not self.fault:
            try:
                self._update(trial)
            except OSError as error:
                self.fault = error
            except RuntimeError as error:  # Optuna raises it when its lock file is gone with the folder
                if not isinstance(error.__context__, OSError):
                    raise
                self.fault = error.__context__

    def _update(self, trial: FrozenTrial) -> None:
        if trial.number not in self._ids:
            self._ids[trial.number] = self._storage.create_new_trial(self._study, template_trial=trial)
        else:
            steps = list(trial.intermediate_values.items())[self._seen[trial.number] :]
            for step, value in steps:
                self._storage.set_trial_intermediate_value(self._ids[trial.number], step, value)
            if trial.state.is_finished():
                self._storage.set_trial_state_values(self._ids[trial.number], trial.state, trial.values)
        self._seen[trial.number] = len(trial.intermediate_values)
