"""Charts of the pages as plotly figures, each with two sentences: what it says, and what is normal.

A colour that starts with `--` names a variable of the page's style sheet, so charts follow light and dark. To add a
chart: a function that returns a `Chart`, and its place in the caller's list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opendino.pages.record import number

MAX_POINTS = 600
"""A curve is thinned to so many points, each the mean of its neighbours: more cannot be seen and slow the page."""

KNN_HEIGHT = 320

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """title, says, normal: plain words around it; plot: {"data", "layout"} for plotly.js; height in pixels."""

    title: str
    says: str
    normal: str
    plot: Mapping[str, Any]
    height: int = 220


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with, and its words."""

    value: float
    words: str
    color: str = "--soft"
    dash: str = "dot"


@dataclass(frozen=True)
class Bar:
    """A score in percent with its 95 % interval; `ours` draws it in the main colour."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


@dataclass(frozen=True)
class Interval:
    """A number of any unit with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


def series(rows: Sequence[Row], *keys: str) -> tuple[list[int], list[float | None]]:
    """Steps and values of a (nested) field, where it stands at all; None where it was not finite."""
    steps, values = [], []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value.get(key, ...) if isinstance(value, Mapping) else ...
        if value is not ...:
            steps.append(row["step"])
            values.append(number(value))
    return thin(steps, values)


def thin(steps: list[int], values: list[float | None]) -> tuple[list[int], list[float | None]]:
    """At most about MAX_POINTS points, each the mean of a run of neighbours; a run without a finite value is a gap."""
    size = -(-len(steps) // MAX_POINTS)
    if size <= 1:
        return steps, values
    means: list[float | None] = []
    for start in range(0, len(values), size):
        finite = [value for value in values[start : start + size] if value is not None]
        means.append(sum(finite) / len(finite) if finite else None)
    # A block stands at its last step, so that the curve ends where the run does.
    ends = [steps[min(start + size, len(steps)) - 1] for start in range(0, len(steps), size)]
    return ends, means


def line_chart(
    title: str,
    curves: Mapping[str, tuple[list[int], list[float | None]]],
    says: str,
    normal: str,
    *,
    levels: Sequence[Level] = (),
    log: bool = False,
    unit: str = "",
    from_zero: bool = False,
    x: str = "step",
) -> Chart:
    """One small chart of curves over steps, or over `x`; names appear only when there is more than one."""
    colors = ("--blue", "--orange", "--green", "--purple")
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(steps) <= 25 else "lines",
            "name": name,
            "x": steps,
            "y": values,
            "line": {"color": color, "width": 2},
            "marker": {"size": 5},
            "hovertemplate": f"%{{y:.4~g}}{unit}<extra>{name if len(curves) > 1 else ''}</extra>",
        }
        for color, (name, (steps, values)) in zip(colors, curves.items(), strict=False)
    ]
    y_axis: dict[str, Any] = {"ticksuffix": unit}
    if log:
        y_axis |= {"type": "log"}
    if from_zero:
        y_axis["rangemode"] = "tozero"
    layout = _layout(levels, y_axis, len(curves) > 1)
    layout["xaxis"]["title"]["text"] = x
    return Chart(title, says, normal, {"data": data, "layout": layout})


RANDOM_START = "random start"


def knn_chart(rows: Sequence[Row], total_steps: int, more: Sequence[Level] = (), start: str = RANDOM_START) -> Chart:
    """k-NN accuracy over training with its interval, chance, the score of step 0 by the name `start`, and `more`."""
    known = _with_interval(rows)
    levels = list(more)
    chance = next((number(row.get("chance")) for row in known), None)
    if chance is not None:
        levels.append(Level(chance, f"chance {chance:.1f} %", dash="dash"))
    says = (
        "Share of pictures whose class is guessed right from their nearest neighbours among the features. Labels are "
        "used for this score only, never for learning. The band is the 95 % interval."
    )
    normal = (
        "Normal: a rise early, then slower and slower. Only a band that has left the line of the start shows "
        "learning; chance alone is no yardstick, since an untrained network already beats it."
    )
    plot = _band_plot(known, total_steps, " %", levels, start, from_zero=True)
    return Chart("k-NN accuracy", says, normal, plot, KNN_HEIGHT)


def protocol_charts(rows: Sequence[Row], total_steps: int, start: str = RANDOM_START) -> Iterator[Chart]:
    """Scores of an evaluation's protocols over training, a chart for the first number of each protocol and data set."""
    by_set: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        mine = by_set.setdefault((str(row.get("protocol")), str(row.get("dataset"))), [])
        if not mine or row.get("metric") == mine[0].get("metric"):
            mine.append(row)
    for (protocol, dataset), mine in by_set.items():
        if known := _with_interval(mine):
            first = known[0]
            unit = {"%": " %", "m": " m", "px": " px"}.get(str(first.get("measure")), "")
            says = f"{first.get('metric')} of the frozen backbone as it was then; the band is the 95 % interval."
            way = "a fall, since low is good" if first.get("high_is_good") is False else "a rise"
            normal = f"Normal: {way}. Only a band that has left the line of the start shows learning."
            yield Chart(f"{protocol} on {dataset}", says, normal, _band_plot(known, total_steps, unit, [], start))


def _with_interval(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if all(number(row.get(key)) is not None for key in ("value", "low", "high"))]


def _band_plot(
    known: Sequence[Row], total_steps: int, unit: str, levels: Sequence[Level], start: str, *, from_zero: bool = False
) -> Mapping[str, Any]:
    """A curve over all steps of a run in the band of its interval, beside the line of its start and other levels."""
    steps = [row["step"] for row in known]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": steps + steps[::-1],
            "y": [row["high"] for row in known] + [row["low"] for row in known][::-1],
            "fill": "toself",
            "fillcolor": "--band",
            "line": {"width": 0},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": steps,
            "y": [row["value"] for row in known],
            "customdata": [[row["low"], row["high"]] for row in known],
            "line": {"color": "--blue", "width": 3},
            "marker": {"size": 8},
            "hovertemplate": f"%{{y:.4~g}}{unit} [%{{customdata[0]:.4~g}}, %{{customdata[1]:.4~g}}]<extra></extra>",
        },
    ]
    if known and known[0]["step"] == 0:
        value = known[0]["value"]
        words = f"{start} {value:.1f} %" if unit == " %" else f"{start} {value:.3g}{unit}"
        levels = [*levels, Level(value, words, color="--orange")]
    layout = _layout(levels, {"ticksuffix": unit} | ({"rangemode": "tozero"} if from_zero else {}), legend=False)
    end = max([total_steps, *steps, 1])
    layout["xaxis"]["range"] = [-0.01 * end, 1.02 * end]
    return {"data": data, "layout": layout}


def bar_chart(title: str, bars: Sequence[Bar], says: str, normal: str, chance: float | None = None) -> Chart:
    """Scores side by side, best reading from top to bottom, with intervals and the line of chance."""
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [bar.name for bar in bars],
            "x": [bar.value for bar in bars],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [bar.high - bar.value for bar in bars],
                "arrayminus": [bar.value - bar.low for bar in bars],
                "color": "--ink",
                "thickness": 1.5,
                "width": 5,
            },
            "marker": {"color": ["--blue" if bar.ours else "--mute" for bar in bars]},
            "text": [f"<b>{bar.value:.1f} %</b>" for bar in bars],
            "textposition": "inside",
            "insidetextanchor": "start",
            "textangle": 0,
            "constraintext": "none",
            "textfont": {"color": ["--on-blue" if bar.ours else "--ink" for bar in bars]},
            "hovertemplate": [f"{bar.value:.1f} % [{bar.low:.1f}, {bar.high:.1f}]<extra></extra>" for bar in bars],
        }
    ]
    layout = _layout((), {"autorange": "reversed", "type": "category", "ticklabelstandoff": 8}, legend=False)
    layout["xaxis"] |= {"ticksuffix": " %", "rangemode": "tozero", "title": {"text": ""}, "tickformat": ""}
    layout["yaxis"]["showgrid"] = False
    layout["bargap"] = 0.3
    layout["hovermode"] = "closest"
    if chance is not None:
        layout["shapes"] = [_line("x", chance, "--soft", "dash")]
        layout["annotations"] = [
            {
                "x": chance,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"chance {chance:.1f} %",
                "font": {"color": "--soft", "size": 12},
            }
        ]
        layout["margin"]["t"] = 24
    return Chart(title, says, normal, {"data": data, "layout": layout}, 60 + 46 * len(bars))


def interval_chart(title: str, marks: Sequence[Interval], says: str, normal: str) -> Chart:
    """Points with error bars, one a name, from top to bottom; the axis need not start at 0."""
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "y": [mark.name for mark in marks],
            "x": [mark.value for mark in marks],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [mark.high - mark.value for mark in marks],
                "arrayminus": [mark.value - mark.low for mark in marks],
                "color": "--soft",
                "thickness": 1.5,
                "width": 5,
            },
            "marker": {"color": "--blue", "size": 10},
            "hovertemplate": [f"{m.value:.4g} [{m.low:.4g}, {m.high:.4g}]<extra></extra>" for m in marks],
        }
    ]
    layout = _layout((), {"autorange": "reversed", "type": "category", "ticklabelstandoff": 8}, legend=False)
    layout["xaxis"] |= {"title": {"text": ""}, "tickformat": "", "showgrid": True}
    layout["hovermode"] = "closest"
    return Chart(title, says, normal, {"data": data, "layout": layout}, 70 + 36 * len(marks))


def _layout(levels: Sequence[Level], y_axis: Mapping[str, Any], legend: bool) -> dict[str, Any]:
    """The look that all charts share. Transparent, so the card shows through; fonts and lines from the style sheet."""
    axis = {"gridcolor": "--line", "zerolinecolor": "--line", "linecolor": "--line", "automargin": True}
    title = {"text": "step", "standoff": 4, "font": {"size": 13}}
    step_axis = {"title": title, "tickformat": ",d", "nticks": 6, "showgrid": False}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "--soft"},
        "margin": {"l": 8, "r": 12, "t": 36 if legend else 12, "b": 8},
        "xaxis": axis | step_axis,
        "yaxis": axis | {"nticks": 6} | dict(y_axis),
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}},
        "shapes": [_line("y", level.value, level.color, level.dash) for level in levels],
        "annotations": [
            {
                "x": 1,
                "xref": "paper",
                "xanchor": "right",
                "y": level.value,
                "yanchor": "bottom",
                "showarrow": False,
                "text": level.words,
                "font": {"color": level.color, "size": 12},
            }
            for level in levels
        ],
    }


def _line(axis: str, value: float, color: str, dash: str) -> dict[str, Any]:
    other = "x" if axis == "y" else "y"
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": color, "width": 1.5, "dash": dash},
    }
