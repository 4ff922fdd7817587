"""Tables of results: one HTML page and one Markdown table, models side by side, with the published number beside."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opendino.pages.charts import Chart, Interval, interval_chart
from opendino.pages.page import CHARTS, jpeg_uri, write_page
from opendino.pages.words import unit_words

FEW = 10
"""Units below which an interval says little."""


@dataclass(frozen=True)
class Cell:
    """A model's number with its 95 % interval, if it has one, in the unit of the metric."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One protocol, data set and metric; cells by model.

    published: the paper's number in words, or "". gains: by model, its paired difference to the first one over the same
    units; of_layer: by model, that to the last layer that was scored. limit: of pictures a part, None for all. note:
    what a reader must know besides.
    """

    protocol: str
    dataset: str
    metric: str
    n: int
    unit: str
    cells: Mapping[str, Cell]
    high_is_good: bool = True
    published: str = ""
    gains: Mapping[str, Cell] = field(default_factory=dict)
    of_layer: Mapping[str, Cell] = field(default_factory=dict)
    limit: int | None = None
    note: str = ""

    @property
    def differences(self) -> list[tuple[str, str]]:
        """What minus what, and how much: ("b - a", "+3.60 [2.51, 4.84]") for each that is paired."""
        first = next(iter(self.cells))
        models = [(f"{model} - {first}", cell) for model, cell in self.gains.items()]
        layers = [(f"{model}, this layer - the last", cell) for model, cell in self.of_layer.items()]
        return [(what, _with_interval(cell, "+")) for what, cell in [*models, *layers]]

    @property
    def gain_words(self) -> str:
        """ "b - a: +3.60 [2.51, 4.84]", "" where nothing is paired."""
        return ", ".join(f"{what}: {much}" for what, much in self.differences)


@dataclass(frozen=True)
class Drawn:
    """A scored picture: its truth as uint8 [h, w, 3], and by model what was found as such, and how well in words."""

    id: str
    truth: NDArray[np.uint8]
    found: Mapping[str, tuple[NDArray[np.uint8], str]]


@dataclass(frozen=True)
class Gallery:
    """Some of the pictures of one protocol; legend: names of what is painted, with their colours as #rrggbb."""

    title: str
    models: Sequence[str]
    pictures: Sequence[Drawn]
    legend: Sequence[tuple[str, str]] = ()


def text_table(lines: Sequence[Line], models: Sequence[str]) -> str:
    """The table in letters of one width; below it paired differences, a line each, and remarks."""
    rows = [["protocol", "data", "metric", "n", *models, "published"], *(_row(line, models) for line in lines)]
    gains = [
        [f"{line.protocol} on {line.dataset}, {line.metric}:", what, much]
        for line in lines
        for what, much in line.differences
    ]
    text = _aligned(rows)
    if gains:
        text += "paired differences over the same pictures:\n" + _aligned(gains, "  ")
    return text + "".join(f"{remark}\n" for remark in remarks(lines))


def markdown_table(lines: Sequence[Line], models: Sequence[str], problems: Sequence[str] = ()) -> str:
    """A Markdown table, a row a line, a column a model; paired differences in its last column, remarks and problems
    below.
    """
    headings = ["protocol", "data", "metric", "n", *models, "published", "paired"]
    rows = [headings, ["---"] * len(headings), *([*_row(line, models), line.gain_words] for line in lines)]
    table = "".join("| " + " | ".join(part.replace("|", "\\|") for part in row) + " |\n" for row in rows)
    return table + "".join(f"\n{remark}\n" for remark in [*remarks(lines), *problems])


def remarks(lines: Sequence[Line]) -> list[str]:
    """What a reader must know of some or all lines, each remark once, with the data that it is of."""
    said: dict[str, dict[str, None]] = {}
    for line in lines:
        limited = [] if line.limit is None else [f"limited to {line.limit} a part: compares with nothing published"]
        few = [f"fewer than {FEW} {unit_words(line.unit)}: the interval says little"] if line.n < FEW else []
        for remark in [*limited, *few, *filter(None, [line.note])]:
            said.setdefault(remark, {})[f"{line.protocol} on {line.dataset}"] = None
    everywhere = {f"{line.protocol} on {line.dataset}" for line in lines}
    return [
        remark if where.keys() == everywhere else f"{remark} ({'; '.join(where)})" for remark, where in said.items()
    ]


def _row(line: Line, models: Sequence[str]) -> list[str]:
    metric = line.metric if line.high_is_good else f"{line.metric} (low is good)"
    cells = [cell_words(line.cells.get(model)) for model in models]
    return [line.protocol, line.dataset, metric, count_words(line.n, line.unit), *cells, line.published]


def _aligned(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ("  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{indent}{row.rstrip()}\n" for row in padded)


def count_words(count: int, unit: str) -> str:
    """ "1,200 images", "34 queries", "1 video"."""
    return f"1 {unit}" if count == 1 else f"{count:,} {unit_words(unit)}"


def cell_words(cell: Cell | None) -> str:
    """ "71.3 [68.0, 74.5]" with as many digits in all three, or a dash where the model was not scored."""
    return "-" if cell is None else _with_interval(cell)


def _with_interval(cell: Cell, sign: str = "") -> str:
    numbers = [value for value in (cell.value, cell.low, cell.high) if value is not None]
    digits = _digits(max(map(abs, numbers)))
    # + 0.0 takes the sign off a zero.
    rounded = [round(number, digits) + 0.0 for number in numbers]
    value, *interval = (f"{number:{sign if place == 0 else ''}.{digits}f}" for place, number in enumerate(rounded))
    return f"{value} [{', '.join(interval)}]" if interval else value


def short(value: float) -> str:
    """Three significant digits, and one behind the point at least."""
    return f"{value:.{_digits(value)}f}"


def _digits(value: float) -> int:
    """How many behind the point: three significant ones, and one at least."""
    return 1 if value == 0 else max(1, 2 - math.floor(math.log10(abs(value))))


def write_results_page(
    path: Path,
    lines: Sequence[Line],
    models: Sequence[str],
    *,
    title: str,
    lead: str,
    about: Mapping[str, str],
    problems: Sequence[str] = (),
    command: str = "",
    galleries: Sequence[Gallery] = (),
) -> Path:
    """Write the page: the table, what its protocols are, a chart a line, pictures, what was not run, the command.

    about: what a protocol is, in words.
    """
    charts = [chart for line in lines if (chart := _chart(line)) is not None]
    return write_page(
        path,
        "results.html",
        script=CHARTS if charts else None,
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
        about={line.protocol: about[line.protocol] for line in lines if line.protocol in about},
        remarks=remarks(lines),
        charts=charts,
        galleries=[(one, [_row_of(each, one.models) for each in one.pictures]) for one in galleries],
        problems=problems,
        command=command,
    )


def _row_of(drawn: Drawn, models: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The picture's name, and (data URI, words) of the truth and of each model; empty ones where one lacks."""
    cells = [(jpeg_uri(drawn.truth), "truth")]
    for model in models:
        picture, words = drawn.found.get(model, (None, ""))
        cells.append(("" if picture is None else jpeg_uri(picture), words))
    return drawn.id, cells


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
    return interval_chart(f"{line.protocol} on {line.dataset}: {line.metric}", marks, says, line.gain_words)
