"""The page of `opendino demo`: what was learned in a few minutes, beside what simple methods reach."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendino.pages.charts import KNN_HEIGHT, Bar, Chart, Level, bar_chart, knn_chart, line_chart, series
from opendino.pages.neighbours import Neighbours, gallery
from opendino.pages.page import data_uri, write_page
from opendino.pages.record import number
from opendino.pages.words import TONES, duration

__all__ = ["Bar", "DemoResults", "write_demo_page"]


@dataclass(frozen=True)
class DemoResults:
    """What the demo measured.

    verdict: one sentence; kind: its word for the colour ("learning", "no gain", ...). bars: scores in percent from
    best to compare, the trained one with `ours`. chance: percent. seconds: of training; images_seen: pictures the
    student saw, repetitions counted. train_tiles, test_tiles: number of each; photographs: classes. run: directory of
    the training run, which opens as a model.
    """

    verdict: str
    kind: str
    bars: Sequence[Bar]
    chance: float
    seconds: float
    steps: int
    images_seen: int
    train_tiles: int
    test_tiles: int
    photographs: int
    model: str
    device: str
    run: Path


def write_demo_page(
    folder: Path,
    results: DemoResults,
    rows: Sequence[Mapping[str, Any]],
    pca_figure: Path | None,
    neighbours: Sequence[Neighbours],
) -> Path:
    """Write `demo.html` into `folder`.

    Args:
        rows: of metrics.jsonl: loss, health and k-NN over the steps.
        pca_figure: PNG of the maps over training time (`sheet.picture_sheet` with a row a step).
        neighbours: a handful of queries.
    Returns:
        The path of the page.
    """
    knn = [row for row in rows if row.get("kind") == "knn"]
    return write_page(
        folder / "demo.html",
        "demo.html",
        title="demo",
        refresh=None,
        written=time.time(),
        written_words=time.strftime("%Y-%m-%d %H:%M:%S"),
        results=results,
        tone=TONES.get(results.kind, ""),
        time_words=duration(results.seconds),
        scores=_scores(results),
        curves=[_loss(rows), *([knn_chart(knn, results.steps)] if knn else [])],
        pca=data_uri(pca_figure.read_bytes()) if pca_figure is not None else None,
        gallery=gallery(neighbours),
        run=shlex.quote(str(results.run)),
    )


def _scores(results: DemoResults) -> Chart:
    return bar_chart(
        "Which photograph does this tile come from?",
        results.bars,
        f"Share of {results.test_tiles:,} test tiles for which the nearest training tiles name the right photograph, "
        "with its 95 % interval. The test tiles' colours were changed, half of them to grey, so colour is no shortcut. "
        "Training changes colours strongly too: its augmentation was chosen knowing this task. Every method gets the "
        "best of the same nine settings (5, 10 or 20 neighbours; features as they are, centred or standardised), found "
        "on these test tiles; the curve below keeps to one of them.",
        "Above the untrained network, pixels and colour with intervals apart means that something was learned. HOG is "
        "a strong hand-made description of edges: level with it is good for minutes of training.",
        chance=results.chance,
    )


def _loss(rows: Sequence[Mapping[str, Any]]) -> Chart:
    steps = [row for row in rows if row.get("kind") == "step"]
    uniform = next((number(row.get("max_entropy")) for row in rows if row.get("kind") == "health"), None)
    dino = any(isinstance(row.get("losses"), Mapping) and "dino" in row["losses"] for row in steps)
    curve = series(steps, "losses", "dino") if dino else series(steps, "loss")
    levels = [Level(uniform, f"uniform, ln K = {uniform:.2f}")] if dino and uniform is not None else []
    chart = line_chart(
        "DINO loss" if dino else "Loss",
        {"loss": curve},
        "Student and teacher describe crops of one picture by the same prototypes.",
        "Normal: leaves the dotted line, where a student answers the same for every picture, then falls slowly.",
        levels=levels,
    )
    return dataclasses.replace(chart, height=KNN_HEIGHT)  # it stands beside the k-NN chart
