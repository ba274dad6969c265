"""What to try next: Optuna behind Ray's Searcher, told the truth about every trial.

Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped was complete, and leaves diverged ones running.
Here a stopped trial is PRUNED at its last epoch, one that ended by itself COMPLETE, a diverged or failed one FAIL. The
study stays in memory, made anew from the record where a search goes on, and is mirrored to an Optuna journal.
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
    """Proposes what another sampler does, but no configuration twice: where it would, chance proposes others.

    Args:
        sampler: the other one.
        seed: of chance.
        space: resolved for the backbone.
        point: what is given of the configuration to propose; what it leaves out is for the sampler.
        taken: the configurations that trials have.
    """

    def __init__(
        self, sampler: BaseSampler, seed: int, space: Space, point: Mapping[str, Value], taken: Container[Key]
    ) -> None:
        self._sampler, self._seed, self._space, self._point, self._taken = sampler, seed, space, point, taken

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:  # noqa: ARG002
        """All parameters: a configuration is proposed as a whole."""
        return dict(self._space.search)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:  # noqa: ARG002
        """A configuration that is not taken; there must be one."""
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
        """What the other sampler does."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def _choosing(
    sampler: BaseSampler, point: Mapping[str, Value], study: optuna.Study, trial: FrozenTrial
) -> Callable[[str, Any], Value]:
    """Chooses as Optuna has a sampler choose for a trial whose parameters are given in part."""

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
    """Proposes configurations of a space; each carries its number as `trial`.

    What it proposes depends on the space, the seed, the trial's number and the trials so far, and on nothing else, so
    that a search that goes on proposes what the uninterrupted one would have. No configuration is proposed twice.

    Args:
        space: resolved for the backbone.
        sampler: makes what proposes.
        seed: of the sampler.
        record: of the search; the trials it knows are told to the study, those without an end proposed first.
        room: gives how many trials may run now.
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
        """Why the journal cannot be written."""
        return self._journal.fault

    def too_many(self) -> bool:
        """Whether more trials run than may now, for nodes have left or other searches have come."""
        return len(self._live) > self._room()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; `None` while no further trial may run, `FINISHED` where none is to begin any more."""
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
        """Tell Optuna how the trial ended; one that was paused has not."""
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
        """Leave no trial running: one that was cut off is PRUNED at its last epoch, or FAIL if it has none."""
        self._trials |= {f"waiting {trial.number}": trial for trial in self._waiting}
        for trial_id in self._trials:
            frozen = self._frozen(trial_id)
            if not frozen.state.is_finished():
                self._tell(trial_id, TrialState.PRUNED if frozen.intermediate_values else TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its own record, not from Ray's snapshot."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _know(self, record: Record) -> None:
        """Tell the study what the record holds."""
        numbers = [int(row.trial) for row in record.rows.values() if not row.confirms]
        for number in range(max(numbers, default=-1) + 1):
            row = record.rows.get(f"{number:04d}")
            trial = self._ask(row)
            if not row:  # it was proposed and never begun
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
        """The study's next trial: a known one as it was, or a start point, or what the sampler proposes."""
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
            _ = trial.relative_params  # the sequence goes on by the point that it gave this trial
        self._taken.add(_key(self._chosen(trial)))
        return trial

    def _chosen(self, trial: optuna.Trial) -> dict[str, Value]:
        """The configuration of one of the study's trials; it stays the same."""
        return self._space.suggest(functools.partial(sample, trial))

    def _report(self, trial_id: str, told: Report) -> None:
        """Report an epoch once: Ray tells of a last one twice, a resumed trial may run one again."""
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
    """A seed for each trial of a search."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Journal:
    """An Optuna journal file that follows a study held in memory, for optuna-dashboard.

    Attributes:
        fault: why it cannot be written; nothing more is tried then.
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
        """Add what is new about a trial."""
        if not self.fault:
            try:
                self._update(trial)
            except OSError as error:
                self.fault = error
            except RuntimeError as error:  # so Optuna tells that its lock is gone with the folder
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
