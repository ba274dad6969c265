"""The ranking: single trials by their best epoch, confirmed configurations by their mean over seeds."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from search.record.record import Row
from search.record.states import COMPLETED, RUNNING, STOPPED
from search.setting import Value
from search.task.objective import Objective


def ranked(rows: Iterable[Row], objective: Objective) -> list[Row]:
    """The trials that can win, best first: by the objective at their best epoch, then by its task's, loss and number.

    A trial that diverged, failed or has not ended cannot win. Confirmed configurations come first, ranked by their mean
    over all seeds.
    """
    known = list(rows)
    means = {configuration: found.mean for configuration, found in confirmed(known, objective).items()}

    def key(row: Row) -> tuple[Any, ...]:
        mean = means.get(row.configuration)
        return (mean is None, objective.rank(mean), *objective.ranks(row.figures), row.trial)

    return sorted((row for row in known if row.state in (COMPLETED, STOPPED) and row.best_epoch), key=key)


@dataclass(frozen=True)
class Confirmed:
    """One configuration over several seeds: mean, sample standard deviation, and the number of seeds."""

    mean: float
    spread: float
    seeds: int


def confirmed(rows: Iterable[Row], objective: Objective) -> dict[tuple[tuple[str, Value], ...], Confirmed]:
    """The configurations that were run again with other seeds, with their statistics over all seeds.

    If a configuration produced no model with a seed, that seed counts with the worst possible value. A trial that was
    cut off before the end of its first epoch does not count.
    """
    known = [row for row in rows if row.state != RUNNING and (row.state != STOPPED or row.best_epoch)]
    again = {row.configuration for row in known if row.confirms}
    found = {}
    for configuration in again:
        values = [_counted(row, objective) for row in known if row.configuration == configuration]
        spread = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else 0.0
        found[configuration] = Confirmed(statistics.fmean(values), spread, len(values))
    return found


def _counted(row: Row, objective: Objective) -> float:
    value = row.value(objective.metric) if row.state in (COMPLETED, STOPPED) else None
    return objective.worst if value is None else value
