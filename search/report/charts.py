"""The report's pictures, each of which answers one question; drawn by Plotly (https://plotly.com/python)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import BaseDistribution
from plotly.subplots import make_subplots

from search.record.record import Row
from search.record.states import COMPLETED, DIVERGED, FAILED, RUNNING, STOPPED
from search.report import outlook as gains
from search.report.analysis import Findings, front, importance, is_range, progress, rungs
from search.report.console import described

LEADERS = 5
LEADING = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito 2008: told apart by everybody
LOOKS = {
    COMPLETED: ("#0072b2", "circle"),
    STOPPED: ("#e69f00", "circle-open"),
    DIVERGED: ("#cc3311", "x"),
    FAILED: ("#000000", "x"),
    RUNNING: ("#009e73", "triangle-up"),
}
FAINT = "#b8b8b8"
DASHES = ("solid", "dash", "dot")
FEW, FENCE = 8, 1.5


def curves(found: Findings) -> go.Figure:
    """The objective of every trial, epoch by epoch: the best ones by name, the others faintly."""
    figure = blank("epoch", found.objective.words)
    leaders = {row.trial: row for row in found.best[:LEADERS]}
    for kind, others in _others(found, leaders).items():
        x, y = _broken(found, others)
        line = {"color": FAINT, "width": 1, "dash": "dot" if kind == STOPPED else "solid"}
        figure.add_scatter(x=x, y=y, mode="lines", name=f"{kind} ({len(others)})", line=line, hoverinfo="skip")
    for (trial, row), colour in zip(leaders.items(), LEADING, strict=False):
        x, y = _broken(found, [trial])
        about = {"name": f"trial {trial}", "line": {"color": colour, "width": 2.5}, "text": described(row)}
        figure.add_scatter(x=x, y=y, mode="lines+markers", hovertemplate=_hover(found), **about)
    return _near(figure, found)


def _others(found: Findings, leaders: Mapping[str, Row]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for row in found.rows:
        if row.trial not in leaders and row.trial in found.curves:
            kinds.setdefault(row.state, []).append(row.trial)
    return kinds


def _broken(found: Findings, trials: Sequence[str]) -> tuple[list[int | None], list[float | None]]:
    """The curves one after the other, with gaps between them: one line of the legend, and a small page."""
    x: list[int | None] = []
    y: list[float | None] = []
    for trial in trials:
        x += [epoch.epoch for epoch in found.curves.get(trial, [])] + [None]
        y += [epoch.value for epoch in found.curves.get(trial, [])] + [None]
    return x, y


def _hover(found: Findings) -> str:
    return f"epoch %{{x}}: {found.objective.words} %{{y:.4f}}<br>%{{text}}"


def best_so_far(found: Findings) -> go.Figure:
    """The best value over time, and over the epochs that all trials have trained together."""
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    steps = progress(found)
    for column, (name, title) in enumerate((("seconds", "seconds"), ("epochs", "epochs of all trials")), 1):
        figure.add_scatter(
            x=[getattr(step, name) for step in steps],
            y=[step.value for step in steps],
            text=[step.trial for step in steps],
            hovertemplate=f"%{{x:.0f}} {name}: %{{y:.4f}} (trial %{{text}})<extra></extra>",
            mode="lines+markers",
            line={"shape": "hv", "color": LEADING[0]},
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_yaxes(title=f"best {found.objective.words}", row=1, col=1)
    return styled(figure)


def worth(found: Findings) -> go.Figure | None:
    """The best value that so many trials would be expected to give; `None` where too few are known."""
    if (told := gains.worth(found)) is None:
        return None
    sign, values = (1 if found.up else -1), gains.values(found)
    counts = list(range(max(1, told.trials // 8), told.trials + 1))
    above, below = told.high - told.gain, told.gain - told.low
    figure = blank("trials", f"expected best {found.objective.words}")
    figure.add_scatter(
        x=counts,
        y=[sign * gains.expected(values, count) for count in counts],
        mode="lines",
        line={"color": LEADING[0]},
        name="of this search's trials",
        hovertemplate="%{x} trials: %{y:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=[told.trials, 2 * told.trials],
        y=[sign * max(values), sign * (max(values) + told.gain)],
        mode="lines+markers",
        line={"color": LEADING[1], "dash": "dash"},
        error_y={"array": [0, above if found.up else below], "arrayminus": [0, below if found.up else above]},
        name="extrapolated, with nine of ten estimates",
        hovertemplate="%{x} trials: %{y:.4f}<extra></extra>",
    )
    return figure


def compared(searches: Sequence[Findings]) -> go.Figure | None:
    """The best value so far of several searches with one objective; `None` where there is none."""
    if not searches:
        return None
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    for number, found in enumerate(searches):
        colour, dash = LEADING[number % len(LEADING)], DASHES[number // len(LEADING) % len(DASHES)]
        steps = progress(found)
        for column, name in enumerate(("seconds", "epochs"), 1):
            figure.add_scatter(
                x=[getattr(step, name) for step in steps],
                y=[step.value for step in steps],
                hovertemplate=f"%{{x:.0f}} {name}: %{{y:.4f}}",
                mode="lines+markers",
                line={"shape": "hv", "color": colour, "dash": dash},
                name=found.record.folder.name,
                legendgroup=str(number),
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(title="seconds", row=1, col=1).update_xaxes(title="epochs of all trials", row=1, col=2)
    return styled(figure.update_yaxes(title=f"best {searches[0].objective.words}", row=1, col=1))


def importances(found: Findings) -> go.Figure | None:
    """How much each parameter matters; `None` where too little is known."""
    shares, _ = importance(found)
    if not shares:
        return None
    figure = blank("share of the difference between good and bad trials", "")
    names = sorted(shares, key=lambda name: shares[name])
    text = [f"{shares[name]:.0%}" for name in names]
    values = [shares[name] for name in names]
    figure.add_bar(x=values, y=names, orientation="h", text=text, marker={"color": LEADING[0]}, showlegend=False)
    figure.update_xaxes(tickformat=".0%", range=[0, 1.1 * max(values)])
    return figure.update_layout(height=120 + 40 * len(names))


def against_parameters(found: Findings) -> go.Figure | None:
    """The objective against each parameter, one pane each; `None` where no parameter is known."""
    distributions = found.distributions
    if not distributions:
        return None
    columns = min(2, len(distributions))
    rows = -(-len(distributions) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, shared_yaxes="all", horizontal_spacing=0.06, vertical_spacing=0.28 / rows
    )
    for place, (name, distribution) in enumerate(distributions.items()):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        for state, (colour, symbol) in LOOKS.items():
            shown = [row for row in _valued(found) if row.state == state and name in row.parameters]
            figure.add_scatter(
                x=[_at(distribution, row.parameters[name]) for row in shown],
                y=[found.value(row) for row in shown],
                text=[f"trial {row.trial}: {described(row)}" for row in shown],
                hovertemplate="%{y:.4f}<br>%{text}<extra></extra>",
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 8},
                name=state,
                legendgroup=state,
                showlegend=place == 0,
                **at,
            )
        figure.update_xaxes(title=name, **_axis(distribution), **at)
    for row in range(1, rows + 1):
        figure.update_yaxes(title=found.objective.words, row=row, col=1)
    return _near(styled(figure), found).update_layout(height=110 + 250 * rows)


def _axis(distribution: Any) -> dict[str, Any]:
    """An axis over all that a parameter may be, so that one sees what lies at a bound."""
    if not is_range(distribution):
        return {"type": "category"}
    low, high, log = float(distribution.low), float(distribution.high), bool(distribution.log)
    low, high = (math.log10(low), math.log10(high)) if log else (low, high)
    edge = 0.04 * (high - low) or 0.5
    scale = {"type": "log", "dtick": 1, "exponentformat": "power"} if log else {}
    return {"range": [low - edge, high + edge], **scale}


def _at(distribution: BaseDistribution, value: object) -> object:
    return value if is_range(distribution) else str(value)


def _valued(found: Findings) -> list[Row]:
    return [row for row in found.rows if found.value(row) is not None]


def depths(found: Findings) -> go.Figure | None:
    """The objective of every trial, unfreeze depth by unfreeze depth; `None` where the depth does not vary."""
    if "unfreeze_depth" not in found.about["space"]["search"]:
        return None
    figure = blank("unfreeze depth (blocks trained below the head)", found.objective.words)
    known = [row for row in _valued(found) if row.state in (COMPLETED, STOPPED)]
    levels = sorted({found.depth(row) for row in known})
    for state, side in ((STOPPED, 1), (COMPLETED, -1)):
        shown = [row for row in known if row.state == state]
        figure.add_scatter(
            x=_spread([found.depth(row) for row in shown], side),
            y=[found.value(row) for row in shown],
            text=[f"trial {row.trial}: {described(row)}" for row in shown],
            hovertemplate="%{y:.4f}<br>%{text}<extra></extra>",
            mode="markers",
            marker={"color": LOOKS[state][0], "symbol": LOOKS[state][1], "size": 8},
            name=state,
        )
    choose = max if found.up else min
    best = [
        choose(v for row in known if found.depth(row) == level and (v := found.value(row)) is not None)
        for level in levels
    ]
    line = {"color": LOOKS[COMPLETED][0], "dash": "dot", "width": 1}
    figure.add_scatter(x=levels, y=best, mode="lines", name="best of the level", line=line)
    return _near(figure.update_xaxes(dtick=1), found)


def _spread(places: Sequence[int], side: int) -> list[float]:
    """The places, with those that are equal beside each other, to the right (1) or the left (-1)."""
    step = min(0.03, 0.36 / max([1, *Counter(places).values()]))
    seen: Counter[int] = Counter()
    spread = []
    for place in places:
        spread.append(place + side * (0.04 + step * seen[place]))
        seen[place] += 1
    return spread


def stopping(found: Findings) -> go.Figure | None:
    """What the stopping rule saw at each rung, and whom it stopped; `None` where there is no rung."""
    known = rungs(found)
    if not known:
        return None
    figure = blank("epoch of the rung", f"best {found.objective.words} until then")
    for name, state, side in (("went on", COMPLETED, -1), ("stopped there", STOPPED, 1)):
        shown = [
            (place, trial)
            for place, rung in enumerate(known)
            for trial in rung.reached
            if (trial in rung.stopped) == (state == STOPPED)
        ]
        figure.add_scatter(
            x=_spread([place for place, _ in shown], side),
            y=[_until(found, trial, known[place].epoch) for place, trial in shown],
            text=[f"trial {trial}" for _, trial in shown],
            hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            mode="markers",
            marker={"color": LOOKS[state][0], "symbol": LOOKS[state][1], "size": 8},
            name=name,
        )
    labels = [f"{rung.epoch}<br>{len(rung.stopped)} of {len(rung.reached)} stopped" for rung in known]
    figure.update_xaxes(
        tickvals=list(range(len(known))), ticktext=labels, range=[-0.6, len(known) - 0.4], showgrid=False
    )
    return _near(figure, found)


def _until(found: Findings, trial: str, epoch: int) -> float | None:
    values = [one.value for one in found.curves[trial] if one.epoch <= epoch and one.value is not None]
    return (max(values) if found.up else min(values)) if values else None


def costs(found: Findings) -> go.Figure | None:
    """The objective against what a trial costs: seconds for an epoch, and trained parameters; with the Pareto front."""
    shown = [row for row in _valued(found) if row.state in (COMPLETED, STOPPED) and row.epochs]
    trained = found.about.get("trained_parameters", {})
    panes = {"seconds for an epoch": {row.trial: row.seconds / row.epochs for row in shown}}
    if trained:
        panes["trained parameters"] = {row.trial: trained[str(found.depth(row))] for row in shown}
    if not shown:
        return None
    figure = make_subplots(cols=len(panes), shared_yaxes=True, horizontal_spacing=0.06)
    for column, (title, cost) in enumerate(panes.items(), 1):
        figure.add_scatter(
            x=[cost[row.trial] for row in shown],
            y=[found.value(row) for row in shown],
            text=[f"trial {row.trial}: {described(row)}" for row in shown],
            hovertemplate=f"{title}: %{{x:.3g}}<br>%{{y:.4f}}<br>%{{text}}<extra></extra>",
            mode="markers",
            marker={"color": FAINT, "size": 8},
            name="trial",
            showlegend=column == 1,
            row=1,
            col=column,
        )
        points = [(float(cost[row.trial]), value) for row in shown if (value := found.value(row)) is not None]
        edge = front(points, found.up)
        figure.add_scatter(
            x=[x for x, _ in edge],
            y=[y for _, y in edge],
            mode="lines+markers",
            line={"color": LEADING[1], "shape": "hv"},
            name="nothing cheaper is better (Pareto front)",
            hovertemplate=f"{title}: %{{x:.3g}}<br>%{{y:.4f}}<extra></extra>",
            showlegend=column == 1,
            row=1,
            col=column,
        )
        figure.update_xaxes(title=f"{title}, log scale", type="log", row=1, col=column)
    figure.update_yaxes(title=found.objective.words, row=1, col=1)
    return _near(styled(figure), found)


def _near(figure: go.Figure, found: Findings) -> go.Figure:
    """Show the values that are not far off (Tukey 1977's fence), and say how many more there are."""
    values = sorted(value for row in found.rows if (value := found.value(row)) is not None)
    if len(values) < FEW:
        return figure
    first, third = values[len(values) // 4], values[3 * len(values) // 4]
    fence = FENCE * (third - first)
    shown = [v for v in values if (v >= first - fence if found.up else v <= third + fence)]
    if len(shown) == len(values):
        return figure
    edge = 0.05 * (shown[-1] - shown[0])
    side = "below" if found.up else "above"
    figure.update_yaxes(range=[shown[0] - edge, shown[-1] + edge])
    told = f"{len(values) - len(shown)} of {len(values)} trials lie {side}; a double click shows them"
    place = {"xref": "paper", "yref": "paper", "x": 1, "y": 1.02, "xanchor": "right", "yanchor": "bottom"}
    return figure.add_annotation(text=told, showarrow=False, font={"size": 11}, **place)


def blank(x: str, y: str) -> go.Figure:
    """A figure with nothing in it, and the titles of its axes."""
    return styled(go.Figure()).update_xaxes(title=x).update_yaxes(title=y)


def styled(figure: go.Figure) -> go.Figure:
    """The figure in the report's looks."""
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.08, "x": 0}
    figure.update_layout(
        template="plotly_white",
        legend=legend,
        height=400,
        margin={"l": 60, "r": 20, "t": 50, "b": 60},
        font={"size": 13},
    )
    return figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
