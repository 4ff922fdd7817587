"""Tables of results: one HTML page and one Markdown table, models side by side, with the published number beside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opendino.pages.charts import Chart, Interval, interval_chart
from opendino.pages.page import write_page


@dataclass(frozen=True)
class Cell:
    """A model's number with its 95 % interval, if it has one, in the unit of the metric."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One protocol, data set and metric; cells by model; published: the paper's number in words, or ""; note: what a
    reader must know, such as the settings or the paired difference of two models.
    """

    protocol: str
    dataset: str
    metric: str
    n: int
    unit: str
    cells: Mapping[str, Cell]
    high_is_good: bool = True
    published: str = ""
    note: str = ""


def markdown_table(lines: Sequence[Line], models: Sequence[str]) -> str:
    """A Markdown table, a row a line, a column a model."""
    headings = ["protocol", "data", "metric", "n", *models, "published", "note"]
    rows = [headings, ["---"] * len(headings)]
    for line in lines:
        cells = [cell_words(line.cells.get(model)) for model in models]
        metric = line.metric if line.high_is_good else f"{line.metric} (low is good)"
        count = count_words(line.n, line.unit)
        rows.append([line.protocol, line.dataset, metric, count, *cells, line.published, line.note])
    return "".join("| " + " | ".join(part.replace("|", "\\|") for part in row) + " |\n" for row in rows)


def count_words(count: int, unit: str) -> str:
    """ "1,200 images", "34 queries", "1 video"."""
    if count == 1:
        return f"1 {unit}"
    return f"{count:,} {unit[:-1]}ies" if unit.endswith("y") else f"{count:,} {unit}s"


def cell_words(cell: Cell | None) -> str:
    """ "71.3 [68.0, 74.5]", or a dash where the model was not scored."""
    if cell is None:
        return "-"
    if cell.low is None or cell.high is None:
        return short(cell.value)
    return f"{short(cell.value)} [{short(cell.low)}, {short(cell.high)}]"


def short(value: float) -> str:
    """Percentages with one digit, small numbers with three significant ones."""
    return f"{value:.1f}" if abs(value) >= 10 or value == 0 else f"{value:.3g}"


def write_results_page(
    path: Path,
    lines: Sequence[Line],
    models: Sequence[str],
    *,
    title: str,
    lead: str,
    problems: Sequence[str] = (),
    command: str = "",
) -> Path:
    """Write the page: the table, a chart a line, what was not run, and the command."""
    return write_page(
        path,
        "results.html",
        title=title,
        refresh=None,
        written=time.time(),
        written_words=time.strftime("%Y-%m-%d %H:%M:%S"),
        lead=lead,
        models=models,
        published=any(line.published for line in lines),
        lines=[
            {
                "line": line,
                "count": count_words(line.n, line.unit),
                "cells": [cell_words(line.cells.get(model)) for model in models],
            }
            for line in lines
        ],
        charts=[chart for line in lines if (chart := _chart(line)) is not None],
        problems=problems,
        command=command,
    )


def _chart(line: Line) -> Chart | None:
    """Models of one line side by side; a single number needs no drawing, one without an interval has none."""
    marks = [
        Interval(model, cell.value, cell.low, cell.high)
        for model, cell in line.cells.items()
        if cell.low is not None and cell.high is not None
    ]
    if len(marks) < 2:
        return None
    way = "further right is better" if line.high_is_good else "further left is better"
    says = f"{line.metric} over {count_words(line.n, line.unit)} with its 95 % interval; {way}."
    return interval_chart(f"{line.protocol} on {line.dataset}: {line.metric}", marks, says, line.note)
