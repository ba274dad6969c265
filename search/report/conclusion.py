"""What a search says at its end: the leaderboard, the model on the test images, where everything lies, what next."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.record.ranking import Confirmed, confirmed
from search.record.record import Record, Row
from search.record.states import COMPLETED
from search.report.console import described
from search.task.classification import CLASSIFICATION
from search.task.metric import LOSS, figure
from search.task.objective import Objective

LEADERS = 5
NAMED = 5  # classes


def conclusion(
    shown: Console,
    record: Record,
    rows: Sequence[Row],
    metrics: Mapping[str, Any],
    *,
    interrupted: bool,
    objective: Objective,
) -> None:
    """Print the leaderboard, where everything lies, and what to do next.

    Args:
        metrics: of the model; empty where there is none.
    """
    shown.print()
    shown.print(leaderboard(rows, record.rows.values(), objective))
    lines = []
    if metrics:
        lines.append(tested(metrics, objective))
        lines += [told] if (told := unfinished(rows[0])) else []
        lines.append(f"model: {_at(record, record.files.model)}{needs(metrics)}")
    lines += [
        f"record: {record.home}",
        f"compare the trials: tensorboard --logdir {shlex.quote(_at(record, record.files.tensorboard))}",
        f"report: python -m search.report {_named(record)}",
    ]
    if interrupted:
        lines.append(f"interrupted and saved; to go on: {again(record)}")
    for line in lines:
        shown.print(line, markup=False, highlight=False, soft_wrap=True)


def tested(metrics: Mapping[str, Any], objective: Objective) -> str:
    """What the model is worth on the test images; one class of many images does not hide the others."""
    main = objective.task.objective
    told = [f"{_on_tests(main, objective)} of {model(metrics)}: {metrics[_of_tests(main)]:.4f}"]
    if objective.task is CLASSIFICATION:
        told.append(f"balanced over the classes {metrics['balanced_accuracy']:.4f}")
    others = [name for name in objective.task.metrics if name not in (main, LOSS)]
    shown = [objective.metric] if objective.task is CLASSIFICATION else others
    shown += [objective.metric] * (objective.metric in objective.own)
    for name in dict.fromkeys(shown):
        value = metrics.get(_of_tests(name))
        if name not in (main, LOSS, "val_balanced_accuracy") and value is not None:
            told.append(f"{_on_tests(name, objective)} {value:.4f}")
    never = missed(*recalls(metrics))
    found = ", ".join(told) + (f"; {never}" if never else "")
    return f"{found}; {alone(metrics, objective)}" if "soup" in metrics else found


def _of_tests(name: str) -> str:
    return name.replace("val_", "test_")


def _on_tests(name: str, objective: Objective) -> str:
    return objective.metrics[name].words.replace("validation", "test")


def recalls(metrics: Mapping[str, Any]) -> tuple[list[str], list[float | None]]:
    """The classes or labels, and the recall of each on the test images; both empty where images have neither."""
    if "recall" in metrics:
        return metrics["classes"], metrics["recall"]
    labels = metrics.get("labels", [])
    return [one["label"] for one in labels], [one["recall"] for one in labels]


def needs(metrics: Mapping[str, Any]) -> str:
    """What plain Keras must be given to load the model, in a few words; empty where it needs nothing."""
    classes = ", ".join(metrics.get("custom_objects", ()))
    return f"; to load it, give keras.models.load_model your own {classes} as custom_objects" if classes else ""


def unfinished(best: Row) -> str:
    """That the winner might have become better still, in a few words; empty where it had stopped to."""
    if best.state != COMPLETED or best.best_epoch != best.epochs:
        return ""
    return (
        f"trial {best.trial} was still getting better at its last epoch, {best.epochs}: more --epochs may pay, "
        f"or --set finish_epochs={2 * best.epochs}, which gives more to the best trials alone"
    )


def model(metrics: Mapping[str, Any]) -> str:
    """What the exported model is, in a few words."""
    if "soup" not in metrics:
        return f"trial {metrics['trial']}"
    return f"the mean of trials {', '.join(metrics['soup']['trials'])}"


def alone(metrics: Mapping[str, Any], objective: Objective) -> str:
    """What the best trial of a mean has by itself, in a few words."""
    figures, main = metrics["soup"]["alone"], objective.task.objective
    return (
        f"{objective.metrics[main].words} {metrics[main]:.4f} (trial {metrics['trial']} alone: "
        f"{figures[main]:.4f}, on the test images {figures[_of_tests(main)]:.4f})"
    )


def missed(classes: Sequence[str], recalls: Sequence[float | None]) -> str:
    """The classes that a model never finds, in a few words; empty where there are none.

    Args:
        recalls: of each class, in [0, 1]; `None` for one without an image.
    """
    never = [name for name, recall in zip(classes, recalls, strict=True) if recall == 0]
    more = f" and {len(never) - NAMED} more" if len(never) > NAMED else ""
    return f"it never finds {', '.join(never[:NAMED])}{more}" if never else ""


def leaderboard(rows: Sequence[Row], every: Iterable[Row], objective: Objective, limit: int = LEADERS) -> Table:
    """The best trials, best first.

    Args:
        rows: ranked already.
        every: all trials, for the means of configurations that were confirmed.
    """
    means = confirmed(every, objective)
    own, *others = objective.leading
    table = Table(title=f"Leaderboard: best {min(limit, len(rows))} of {len(rows)} trials with a model")
    table.title_justify = "left"
    seeds = ("mean of seeds",) if means else ()
    for column in ("", "trial", own, *seeds, *others, "best epoch", "state", "parameters"):
        table.add_column(column, overflow="fold")
    for place, row in enumerate(rows[:limit], 1):
        state = f"{row.state}: {row.reason}"
        mean = [averaged(means.get(row.configuration))] if means else []
        figures = [figure(row.value(name)) for name in others]
        cells = [str(place), row.trial, figure(row.value(own)), *mean, *figures, str(row.best_epoch)]
        table.add_row(*cells, escape(state), escape(described(row)))
    return table


def averaged(found: Confirmed | None) -> str:
    """The mean over seeds with its spread, or nothing."""
    return f"{found.mean:.4f} ± {found.spread:.4f} ({found.seeds})" if found else ""


def again(record: Record) -> str:
    """The command that goes on with a search."""
    return f"python -m search.run --resume {_named(record)}"


def _named(record: Record) -> str:
    storage = record.mirror.storage if record.mirror else str(record.folder.parent)
    return f"{record.folder.name} --storage {shlex.quote(storage)}"


def _at(record: Record, path: Path) -> str:
    """Where people find a file of a search."""
    return record.mirror.at(path) if record.mirror else str(path)
