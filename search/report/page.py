"""The report as one page that needs no network: a question, its picture, and what the picture rests on."""

import base64
import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from search.record import files
from search.record.ranking import Confirmed, confirmed
from search.record.record import Row
from search.record.states import COMPLETED, DIVERGED, FAILED, RUNNING, STOPPED
from search.report import analysis, charts, outlook
from search.report.analysis import Findings
from search.report.console import alone, averaged, described, missed, model, needs, unfinished
from search.task.metrics import METRICS, leading

LONG = 24  # letters
SHOWN = 10
STATES = (COMPLETED, STOPPED, RUNNING, DIVERGED, FAILED)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 68rem; padding: 1rem; color: #222; }
h1 { margin: .5rem 0 0; } h2 { margin: 2.5rem 0 .3rem; font-size: 1.25rem; }
p { max-width: 46rem; margin: .4rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; white-space: nowrap; }
td.long { white-space: normal; min-width: 9rem; } th { white-space: normal; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.warning { border-left: 4px solid #d55e00; padding: .2rem .8rem; background: #fdf3ec; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; max-width: 11rem; font-size: .85rem; }
figure img { width: 100%; image-rendering: pixelated; } figcaption { overflow-wrap: anywhere; }
.key { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: 1rem 0; }
.key b { display: block; font-size: 1.5rem; }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; } details { margin: .6rem 0; }
"""
# One after the other, once the page is there to read.
DRAW = """
const charts = [...document.querySelectorAll(".plotly-graph-div")];
const options = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"]};
function draw() {
    const chart = charts.shift();
    if (!chart) return;
    const figure = JSON.parse(chart.nextElementSibling.textContent);
    Plotly.newPlot(chart, figure.data, figure.layout, options).then(() => setTimeout(draw));
}
requestAnimationFrame(() => setTimeout(draw));
"""


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
        ("What does accuracy cost?", _costs(found)),
        ("Where does the model fail?", _failures(found)),
        ("How did the search go?", _course(found)),
        ("How is it run again?", _again(found)),
    ]
    parts = [f"<section>{_head(question)}{''.join(body)}</section>" for question, body in sections if body]
    return document(found.record.folder.name, parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page, with Plotly inside."""
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            f"<script>{get_plotlyjs()}</script><script>{DRAW}</script>",
            "</body></html>\n",
        ]
    )


def _head(question: str) -> str:
    return f"<h2>{html.escape(question)}</h2>" if question else ""


def chart(figure: go.Figure | None, text: str = "") -> list[str]:
    """A figure with a sentence above it; nothing where there is nothing to draw."""
    if figure is None:
        return []
    data = str(figure.to_json()).replace("<", "\\u003c")  # nothing in it ends the script
    drawn = f'<div class="plotly-graph-div" style="height: {figure.layout.height}px"></div>'
    return [*([_said(text)] if text else []), drawn, f'<script type="application/json">{data}</script>']


def _said(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def _summary(found: Findings) -> list[str]:
    about = found.about
    images = "/".join(str(about["data"]["images"].get(split, 0)) for split in ("train", "val", "test"))
    settings = about["settings"]
    told = (
        f"{about['status']}: {counted(found.rows)}. Space {about['space']['name']}, backbone {settings['backbone']} "
        f"with weights {settings['weights']}, {images} images of {len(about['data']['classes'])} classes "
        f"(train/validation/test) at {settings['image_size']} pixels."
    )
    keys = []
    if found.best:
        best = found.best[0]
        keys += [(f"best {METRICS[found.metric].words}", f"{found.value(best):.4f}"), ("trial", best.trial)]
    if tested := metrics(found):
        keys.append(("test accuracy", f"{tested['test_accuracy']:.4f}"))
        keys.append(("balanced over the classes", f"{analysis.balanced(tested['confusion_matrix']):.4f}"))
    keys += [("seconds", f"{found.record.seconds:.0f}"), ("epochs trained", str(analysis.saved(found)[0]))]
    shown = "".join(f"<div>{html.escape(name)}<b>{html.escape(value)}</b></div>" for name, value in keys)
    return [_said(told), f'<div class="key">{shown}</div>']


def _leaders(found: Findings) -> list[str]:
    few = leading(found.metric)
    more = [name for name in METRICS if name not in few and any(row.value(name) is not None for row in found.rows)]
    means = confirmed(found.rows, found.metric)
    told = f"The best {len(means)} configurations were run again: mean ± spread (number of seeds)."
    body = [_chance(found), *[_said(told)] * bool(means), _trials(found, means, few, 10)]
    if more or len(found.rows) > 10:
        whole = _trials(found, means, [*few, *more])
        body.append(f"<details><summary>all {len(found.rows)} trials, with all metrics</summary>{whole}</details>")
    return body


def _trials(found: Findings, means: Mapping[Any, Confirmed], names: Sequence[str], limit: int | None = None) -> str:
    """A table of the trials, those first that can win, with some metrics, the objective first."""
    own, *others = names
    columns = ["", "trial", "state", own, *["mean of seeds"] * bool(means), *others]
    ordered = [*enumerate(found.best, 1), *((None, row) for row in found.rows if row not in found.best)]
    cells = [_cells(place, row, means, names) for place, row in ordered[:limit]]
    return table([*columns, "best epoch", "epochs", "seconds", "parameters"], cells)


def _cells(place: int | None, row: Row, means: Mapping[Any, Confirmed], names: Sequence[str]) -> tuple[object, ...]:
    state = f"{row.state}: {row.reason}" if row.reason else row.state
    mean = (averaged(means.get(row.configuration)),) if means else ()
    own, *others = (row.value(name) for name in names)
    ran = (row.best_epoch, row.epochs, round(row.seconds))
    return (place, row.trial, state, own, *mean, *others, *ran, described(row))


def _chance(found: Findings) -> str:
    """How much of the difference between trials is that of other validation images."""
    close = analysis.within_chance(found, lambda row: row.value("val_accuracy"))
    count = found.about["data"]["images"].get("val", 0)
    if not close or (accuracy := close[0].value("val_accuracy")) is None:
        return _said("No trial has ended with a model yet.") if not found.best else ""
    error = analysis.margin(accuracy, count)
    others = len(close) - 1
    which = f"and {others} other{'s' * (others > 1)} are" if others else "is the only one"
    return _said(
        f"With {count} validation images, chance alone moves an accuracy of {accuracy:.4f} by "
        f"{error:.4f} (one standard error): trial {close[0].trial} {which} within that of the best."
    )


def _worth(found: Findings) -> list[str]:
    """What more of the same would give, beside what chance alone moves a figure by."""
    told = outlook.worth(found)
    if told is None:
        return [_said(f"Too little is known: fewer than {outlook.ENOUGH} trials gave a value.")]
    unit, scale = ("points", 100) if found.up else ("", 1)
    gain, low, high = (f"{scale * value:.2g}" for value in (told.gain, told.low, told.high))
    text = f"As many trials again would be expected to make the best {METRICS[found.metric].words} better by {gain} "
    text += f"{unit} ({low} to {high}), if further doublings give less and less as the last two did. "
    text += "The sampler learns from its trials, so it may be a little more."
    rising = [row.trial for row in outlook.rising(found)]
    if rising:
        text += f" Of the trials that {found.rule.name} stopped, {len(rising)} had just had their best epoch: "
        text += f"{', '.join(rising[:SHOWN])}{', …' if len(rising) > SHOWN else ''}."
    if found.best and (more := unfinished(found.best[0])):
        text += f" {more[0].upper()}{more[1:]}."
    return chart(charts.worth(found), text)


def _importance(found: Findings) -> list[str]:
    shares, count = analysis.importance(found)
    if not shares:
        return [_said(f"Not enough is known: {count} trials were not stopped early, with values that differ.")]
    left_out = [name for name in found.about["space"]["search"] if name not in shares]
    text = f"PED-ANOVA over the {count} trials that were not stopped early."
    text += f" Left out, for not all of them have it: {', '.join(left_out)}." if left_out else ""
    few = f"{count} trials are few: at least {analysis.ENOUGH_FOR_IMPORTANCE} make this worth reading."
    warning = [_said(few, "warning")] if count < analysis.ENOUGH_FOR_IMPORTANCE else []
    return [*warning, *chart(charts.importances(found), text)]


def _parameters(found: Findings) -> list[str]:
    warnings = [
        _said(
            f"{bound.parameter} is at the {'lower' if bound.end == 'low' else 'upper'} end of its range "
            f"({bound.bound:g}) in {bound.trials} of the best tenth of trials: better values may lie beyond it.",
            "warning",
        )
        for bound in analysis.at_bounds(found)
    ]
    return [*warnings, *chart(charts.against_parameters(found))]


def _stopping(found: Findings) -> list[str]:
    spent, spared = analysis.saved(found)
    if not spent:
        return []
    if not found.rule.rungs:
        return [_said(f"No trial was stopped for the sake of others. {spent} epochs were trained.")]
    stopped = sum(row.rung is not None for row in found.rows)
    by = found.rule.name
    text = f"{by} stopped {stopped} of {len(found.rows)} trials. {spent} epochs were trained; up to {spared} more, had "
    text += f"every stopped trial gone on to epoch {found.epochs}."
    return chart(charts.stopping(found), text) or [_said(text)]


def _costs(found: Findings) -> list[str]:
    text = "Points on the line are not beaten by anything cheaper."
    if tested := metrics(found):
        size, latency = tested.get("model_bytes"), tested.get("latency_ms")
        if size and latency:
            text += f" The exported model has {size / 2**20:.1f} MiB and takes {latency:.1f} ms for one image"
            text += f" ({tested['latency_on']}){needs(tested)}."
    return chart(charts.costs(found), text)


def _failures(found: Findings) -> list[str]:
    tested = metrics(found)
    if not tested:
        return []
    classes, counts = tested["classes"], tested["confusion_matrix"]
    images = sum(map(sum, counts))
    error = analysis.margin(tested["test_accuracy"], images)
    said = model(tested)
    text = f"{said[0].upper()}{said[1:]} on {images} test images that no trial has seen: accuracy "
    text += f"{tested['test_accuracy']:.4f} ± {error:.4f} (one standard error), balanced over the classes (the mean "
    text += f"of their recall) {analysis.balanced(counts):.4f}."
    if "soup" in tested:
        text += f" The model is a mean of weights, with {alone(tested)}."
    figures = [(name, *row) for name, row in zip(classes, analysis.per_class(counts), strict=True)]
    never = missed(classes, [recall for _, _, recall, *_ in figures])
    figures.sort(key=lambda row: (row[3] is not None, row[3]))
    return [
        *([_said(f"With {images} test images, {never}.", "warning")] if never else []),
        *chart(charts.confusion(classes, counts), text),
        f"<details open><summary>figures of each class, worst first</summary>"
        f"{table(['class', 'precision', 'recall', 'F1', 'images'], figures)}</details>",
        *_mistakes(found.record.files.best),
    ]


def _mistakes(best: Path) -> list[str]:
    """The test images that the model was most sure of and wrong about."""
    path = best / files.MISTAKES
    if not path.exists():
        return []
    shown = []
    for mistake in json.loads(path.read_text("utf-8")):
        picture = base64.b64encode((best / files.PICTURES / mistake["picture"]).read_bytes()).decode()
        text = f"{mistake['true']} taken for {mistake['predicted']} ({mistake['confidence']:.0%})"
        about = f"<figcaption>{html.escape(text)}<br><small>{html.escape(mistake['image'])}</small></figcaption>"
        source = f"data:image/png;base64,{picture}"
        shown.append(f'<figure><img alt="{html.escape(text)}" src="{source}">{about}</figure>')
    text = "The surest mistakes. Beside each image: what spoke for the class that was predicted (class activation map)."
    return [_said(text), f'<div class="figures">{"".join(shown)}</div>'] if shown else []


def _course(found: Findings) -> list[str]:
    lines = [_said(f"{counted(found.rows)} of {found.about['space']['budget']['trials']}.")]
    ended = [(row.trial, row.state, row.reason) for row in found.rows if row.state in (DIVERGED, FAILED)]
    if ended:
        lines.append(table(["trial", "state", "reason"], ended))
    if skipped := found.about["data"]["skipped"]:
        files = table(["file", "reason"], skipped)
        lines.append(f"<details><summary>{len(skipped)} files were skipped</summary>{files}</details>")
    if found.record.damaged:
        lines.append(_said(f"{found.record.damaged} damaged lines of the history are left out.", "warning"))
    return [*lines, *(_said(note) for note in [*found.about["data"]["notes"], *found.about.get("notes", [])])]


def _again(found: Findings) -> list[str]:
    about = found.about
    settings = table(["setting", "value"], [(name, str(value)) for name, value in about["settings"].items()])
    varying = table(["parameter", "may be"], [(name, text) for name, text in about["space"]["search"].items()])
    versions = table(["package", "version"], sorted(about["versions"].items()))
    return [
        f"<pre>{html.escape(about['command'])}</pre>",
        _said(f"Seed {about['seed']}; data {about['data']['fingerprint']}; started {about['started']}."),
        f"<details><summary>parameters and settings</summary>{varying}{settings}</details>",
        f"<details><summary>versions</summary>{versions}</details>",
    ]


def counted(rows: Iterable[Row]) -> str:
    """How many trials ended how."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no trial yet"


def metrics(found: Findings) -> dict[str, Any]:
    """The winner's figures, once there is a winner."""
    path = found.record.files.metrics
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table that may be wider than the page."""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    return f'<div class="scroll"><table><tr>{names}</tr>{"".join(lines)}</table></div>'


def _cell(value: object) -> str:
    match value:
        case None:
            return "<td></td>"
        case float():
            return f'<td class="number">{value:.4f}</td>'
        case int():
            return f'<td class="number">{value}</td>'
        case _:
            kind = ' class="long"' if len(str(value)) > LONG else ""
            return f"<td{kind}>{html.escape(str(value))}</td>"
