"""The report as one page that needs no network: a question, its picture, and what the picture rests on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.record.ranking import Confirmed, confirmed
from search.record.record import Row
from search.record.states import COMPLETED, DIVERGED, FAILED, RUNNING, STOPPED
from search.report import analysis, charts, failures, outlook
from search.report.analysis import Findings
from search.report.conclusion import averaged, needs, unfinished
from search.report.console import described
from search.report.parts import Code, Details, Key, Paragraph, Part, Table, chart, render
from search.task.classification import CLASSIFICATION

SHOWN = 10
STATES = (COMPLETED, STOPPED, RUNNING, DIVERGED, FAILED)


def page(found: Findings) -> str:
    """The page of one search."""
    sections = [
        ("", _summary(found)),
        ("Which trial won, and by how much?", _leaders(found)),
        ("How did the trials learn?", chart(charts.curves(found), "The best trials by name; the others faintly.")),
        ("How fast was the best one found?", chart(charts.best_so_far(found))),
        ("Would more trials help?", _worth(found)),
        ("Which parameter mattered?", _importance(found)),
        ("Where are the good values?", _parameters(found)),
        ("How deep should one unfreeze?", chart(charts.depths(found))),
        ("What did early stopping cost, and save?", _stopping(found)),
        ("What does a better model cost?", _costs(found)),
        ("Where does the model fail?", failures.parts(found)),
        ("Can its probabilities be trusted?", failures.trust(found)),
        ("How did the search go?", _course(found)),
        ("How is it run again?", _again(found)),
    ]
    answered = [(question, parts) for question, parts in sections if parts]
    return render("page.html", found.record.folder.name, sections=answered)


def _summary(found: Findings) -> list[Part]:
    about = found.about
    images = "/".join(str(about["data"]["images"].get(split, 0)) for split in ("train", "val", "test"))
    settings, outputs = about["settings"], found.objective.task.counting(len(about["data"]["classes"]))
    told = (
        f"{about['status']}: {counted(found.rows)}. Space {about['space']['name']}, backbone {settings['backbone']} "
        f"with weights {settings['weights']}, {images} images of {outputs} "
        f"(train/validation/test) at {settings['image_size']} pixels."
    )
    keys = []
    if found.best:
        best = found.best[0]
        keys += [(f"best {found.objective.words}", f"{found.value(best):.4f}"), ("trial", best.trial)]
    keys += failures.keys(found)
    keys += [("seconds", f"{found.record.seconds:.0f}"), ("epochs trained", str(analysis.saved(found)[0]))]
    return [Paragraph(told), Key(keys)]


def _leaders(found: Findings) -> list[Part]:
    few, known = found.objective.leading, {name for row in found.rows for name in row.figures}
    more = [name for name in found.objective.metrics if name not in few and name in known]
    means = confirmed(found.rows, found.objective)
    told = f"The best {len(means)} configurations were run again: mean ± spread (number of seeds)."
    body = [*_chance(found), *[Paragraph(told)] * bool(means), _trials(found, means, few, 10)]
    if more or len(found.rows) > 10:
        whole = _trials(found, means, [*few, *more])
        body.append(Details(f"all {len(found.rows)} trials, with all metrics", [whole]))
    return body


def _trials(found: Findings, means: Mapping[Any, Confirmed], names: Sequence[str], limit: int | None = None) -> Table:
    """A table of the trials, those first that can win, with some metrics, the objective first."""
    own, *others = names
    columns = ["", "trial", "state", own, *["mean of seeds"] * bool(means), *others]
    ordered = [*enumerate(found.best, 1), *((None, row) for row in found.rows if row not in found.best)]
    cells = [_cells(place, row, means, names) for place, row in ordered[:limit]]
    return Table([*columns, "best epoch", "epochs", "seconds", "parameters"], cells)


def _cells(place: int | None, row: Row, means: Mapping[Any, Confirmed], names: Sequence[str]) -> tuple[object, ...]:
    state = f"{row.state}: {row.reason}" if row.reason else row.state
    mean = (averaged(means.get(row.configuration)),) if means else ()
    own, *others = (row.value(name) for name in names)
    ran = (row.best_epoch, row.epochs, round(row.seconds))
    return (place, row.trial, state, own, *mean, *others, *ran, described(row))


def _chance(found: Findings) -> list[Part]:
    """How much of the difference between trials is that of other validation images."""
    if not found.best:
        return [Paragraph("No trial has ended with a model yet.")]
    close = analysis.within_chance(found, lambda row: row.value("val_accuracy"))
    count = found.about["data"]["images"].get("val", 0)
    if found.objective.task is not CLASSIFICATION or not close:
        return []
    accuracy = close[0].figures["val_accuracy"]
    error = analysis.margin(accuracy, count)
    others = len(close) - 1
    which = f"and {others} other{'s' * (others > 1)} are" if others else "is the only one"
    text = f"With {count} validation images, chance alone moves an accuracy of {accuracy:.4f} by "
    text += f"{error:.4f} (one standard error): trial {close[0].trial} {which} within that of the best."
    return [Paragraph(text)]


def _worth(found: Findings) -> list[Part]:
    """What more of the same would give, beside what chance alone moves a figure by."""
    told = outlook.worth(found)
    if told is None:
        return [Paragraph(f"Too little is known: fewer than {outlook.ENOUGH} trials gave a value.")]
    unit, scale = ("points", 100) if found.up else ("", 1)
    gain, low, high = (f"{scale * value:.2g}" for value in (told.gain, told.low, told.high))
    text = f"As many trials again would be expected to make the best {found.objective.words} better by {gain} "
    text += f"{unit} ({low} to {high}), if further doublings give less and less as the last two did. "
    text += "The sampler learns from its trials, so it may be a little more."
    rising = [row.trial for row in outlook.rising(found)]
    if rising:
        text += f" Of the trials that {found.rule.name} stopped, {len(rising)} had just had their best epoch: "
        text += f"{', '.join(rising[:SHOWN])}{', …' if len(rising) > SHOWN else ''}."
    if found.best and (more := unfinished(found.best[0])):
        text += f" {more[0].upper()}{more[1:]}."
    return chart(charts.worth(found), text)


def _importance(found: Findings) -> list[Part]:
    shares, count = analysis.importance(found)
    if not shares:
        return [Paragraph(f"Not enough is known: {count} trials were not stopped early, with values that differ.")]
    left_out = [name for name in found.about["space"]["search"] if name not in shares]
    text = f"PED-ANOVA over the {count} trials that were not stopped early."
    text += f" Left out, for not all of them have it: {', '.join(left_out)}." if left_out else ""
    few = f"{count} trials are few: at least {analysis.ENOUGH_FOR_IMPORTANCE} make this worth reading."
    warning = [Paragraph(few, warning=True)] if count < analysis.ENOUGH_FOR_IMPORTANCE else []
    return [*warning, *chart(charts.importances(found), text)]


def _parameters(found: Findings) -> list[Part]:
    warnings = [
        Paragraph(
            f"{bound.parameter} is at the {'lower' if bound.end == 'low' else 'upper'} end of its range "
            f"({bound.bound:g}) in {bound.trials} of the best tenth of trials: better values may lie beyond it.",
            warning=True,
        )
        for bound in analysis.at_bounds(found)
    ]
    return [*warnings, *chart(charts.against_parameters(found))]


def _stopping(found: Findings) -> list[Part]:
    spent, spared = analysis.saved(found)
    if not spent:
        return []
    if not found.rule.rungs:
        return [Paragraph(f"No trial was stopped for the sake of others. {spent} epochs were trained.")]
    stopped = sum(row.rung is not None for row in found.rows)
    by = found.rule.name
    text = f"{by} stopped {stopped} of {len(found.rows)} trials. {spent} epochs were trained; up to {spared} more, had "
    text += f"every stopped trial gone on to epoch {found.epochs}."
    return chart(charts.stopping(found), text) or [Paragraph(text)]


def _costs(found: Findings) -> list[Part]:
    text = "Points on the line are not beaten by anything cheaper."
    if tested := analysis.metrics(found):
        size, latency = tested.get("model_bytes"), tested.get("latency_ms")
        if size and latency:
            text += f" The exported model has {size / 2**20:.1f} MiB and takes {latency:.1f} ms for one image"
            text += f" ({tested['latency_on']}){needs(tested)}."
    return chart(charts.costs(found), text)


def _course(found: Findings) -> list[Part]:
    parts: list[Part] = [Paragraph(f"{counted(found.rows)} of {found.about['space']['budget']['trials']}.")]
    ended = [(row.trial, row.state, row.reason) for row in found.rows if row.state in (DIVERGED, FAILED)]
    if ended:
        parts.append(Table(["trial", "state", "reason"], ended))
    if skipped := found.about["data"]["skipped"]:
        parts.append(Details(f"{len(skipped)} files were skipped", [Table(["file", "reason"], skipped)]))
    if found.record.damaged:
        parts.append(Paragraph(f"{found.record.damaged} damaged lines of the history are left out.", warning=True))
    return [*parts, *(Paragraph(note) for note in [*found.about["data"]["notes"], *found.about.get("notes", [])])]


def _again(found: Findings) -> list[Part]:
    about = found.about
    settings = Table(["setting", "value"], [(name, str(value)) for name, value in about["settings"].items()])
    varying = Table(["parameter", "may be"], [(name, text) for name, text in about["space"]["search"].items()])
    versions = Table(["package", "version"], sorted(about["versions"].items()))
    return [
        Code(about["command"]),
        Paragraph(f"Seed {about['seed']}; data {about['data']['fingerprint']}; started {about['started']}."),
        Details("parameters and settings", [varying, settings]),
        Details("versions", [versions]),
    ]


def counted(rows: Iterable[Row]) -> str:
    """How many trials ended how."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no trial yet"
