"""The report's pictures of the model on the test images; drawn by Plotly (https://plotly.com/python)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.report.charts import FAINT, LEADING, blank, styled

LABELLED_CLASSES = 24


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> go.Figure:
    """How often images of each true class (row) were taken for each class (column)."""
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    figure = blank("predicted class", "true class")
    figure.add_heatmap(
        z=shares,
        x=list(classes),
        y=list(classes),
        customdata=counts,
        text=[[str(count) if count else "" for count in row] for row in counts],
        texttemplate="%{text}" if len(classes) <= LABELLED_CLASSES else None,
        hovertemplate="true %{y}, predicted %{x}: %{customdata} images<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=1,
        colorbar={"title": "share of<br>the class", "tickformat": ".0%"},
    )
    figure.update_yaxes(autorange="reversed", type="category").update_xaxes(type="category")
    return figure.update_layout(height=max(380, 160 + 22 * len(classes)))


def labels(rows: Sequence[Sequence[Any]]) -> go.Figure:
    """What each label's average precision and F1 are, the worst first.

    Args:
        rows: of each label, its name, average precision and F1 (`None` where no image has it), and more.
    """
    figure = blank("in [0, 1]", "")
    names = [row[0] for row in rows]
    for place, (name, colour) in enumerate((("average precision", LEADING[0]), ("F1", LEADING[1])), 1):
        values = [row[place] for row in rows]
        figure.add_bar(x=values, y=names, name=name, orientation="h", marker={"color": colour})
    figure.update_yaxes(autorange="reversed", type="category").update_xaxes(range=[0, 1])
    return figure.update_layout(height=max(300, 140 + 34 * len(names)), barmode="group")


def predictions(numbers: Sequence[Mapping[str, Any]]) -> go.Figure:
    """What was predicted of each image against what is true, for each number, with the line where both agree."""
    figure = make_subplots(cols=len(numbers), horizontal_spacing=0.08)
    for column, one in enumerate(numbers, 1):
        ends = [min(*one["true"], *one["predicted"]), max(*one["true"], *one["predicted"])]
        at = {"row": 1, "col": column, "showlegend": False}
        figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": FAINT}, hoverinfo="skip", **at)
        figure.add_scatter(
            x=one["true"],
            y=one["predicted"],
            mode="markers",
            marker={"color": LEADING[0], "size": 6, "opacity": 0.6},
            hovertemplate="true %{x:.4g}, predicted %{y:.4g}<extra></extra>",
            **at,
        )
        figure.update_xaxes(title=f"true {one['name']}", row=1, col=column)
        figure.update_yaxes(title=f"predicted {one['name']}", row=1, col=column)
    return styled(figure)


def reliability(bins: Sequence[tuple[float, float, int]]) -> go.Figure:
    """How often the model is right against how sure it is.

    A reliability diagram (Niculescu-Mizil and Caruana 2005, doi:10.1145/1102351.1102430).

    Args:
        bins: (mean confidence, accuracy, images) of each bin.
    """
    figure = blank("confidence: probability of the predicted class", "accuracy")
    line = {"color": FAINT, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, name="as sure as right", hoverinfo="skip")
    figure.add_scatter(
        x=[sure for sure, _, _ in bins],
        y=[right for _, right, _ in bins],
        customdata=[count for *_, count in bins],
        mode="lines+markers",
        marker={"color": LEADING[0], "size": 8},
        hovertemplate="%{customdata} images: confidence %{x:.3f}, accuracy %{y:.3f}<extra></extra>",
        name="test images",
    )
    return figure.update_xaxes(range=[0, 1.02]).update_yaxes(range=[0, 1.02])
