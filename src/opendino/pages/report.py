"""The report of a run: one offline HTML file that says whether it learns, rewritten while it trains."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendino.monitor.verdict import Verdict, judge
from opendino.pages.charts import RANDOM_START, Chart, Level, knn_chart, line_chart, protocol_charts, series
from opendino.pages.dense import dense_charts, dense_words, is_stage
from opendino.pages.page import Tile, data_uri, write_page
from opendino.pages.record import RunRecord, number, read_record
from opendino.pages.retention import Retention, read_retention
from opendino.pages.words import TONES, duration

MAX_PICTURES = 12
MAX_NAMES = 200
"""Names listed under one reason; the rest stands in incidents.jsonl."""
REFRESH_SECONDS = 10


@dataclass(frozen=True)
class Skips:
    """Pictures left out for one reason."""

    reason: str
    count: int
    names: Sequence[str]


@dataclass(frozen=True)
class Setting:
    """A field of the config by its dotted name, and why it has its value if that was worked out."""

    name: str
    value: str
    reason: str


def write_report(run_dir: Path, running: bool) -> Path:
    """Write `report.html` into a run directory from what its files say.

    Args:
        running: True writes a page that reloads itself; False the lasting one.
    Returns:
        The path of the page.
    """
    run_dir = Path(run_dir)
    record = read_record(run_dir)
    knn = record.of_kind("knn")
    health = record.of_kind("health")
    retention = _retention(record, running)
    start = "start of the stage" if is_stage(record) else "start" if retention else RANDOM_START
    return write_page(
        run_dir / "report.html",
        "report.html",
        title=run_dir.resolve().name,
        refresh=REFRESH_SECONDS if running else None,
        written=time.time(),
        written_words=time.strftime("%Y-%m-%d %H:%M:%S"),
        status=_status(record, running),
        verdict=retention.verdict if retention else _verdict(record),
        tones=TONES,
        health_words=str(health[-1].get("words", "")) if health else "",
        share=100 * record.step / record.total_steps if record.total_steps else 0,
        tiles=list(_tiles(record, running, start)),
        knn=knn_chart(knn, record.total_steps, _teachers(record), start) if knn else None,
        retention=retention,
        protocols=list(protocol_charts(record.of_kind("protocol"), record.total_steps, start)),
        dense_words=dense_words(record),
        dense=list(dense_charts(record)),
        losses=list(_losses(record)),
        gauges=list(_gauges(health)),
        course=list(_course(record.of_kind("step"))),
        photos=_uri(record.photos()),
        pictures=[(picture.step, _uri(picture.png)) for picture in record.pictures(MAX_PICTURES)],
        skips=_skips(record.incidents),
        other_incidents=[row for row in record.incidents if row["kind"] != "skipped picture"][-50:],
        settings=list(_settings(record.config)),
        opens_with_transformers=_opens_with_transformers(run_dir),
        run=shlex.quote(str(run_dir)),
        run_python=repr(str(run_dir)),
        model_python=repr(str(run_dir / "model")),
        has_best=(run_dir / "model-best").is_dir(),
    )


def _uri(png: bytes | None) -> str | None:
    return None if png is None else data_uri(png)


def _status(record: RunRecord, running: bool) -> str:
    if running:
        return "running"
    ended = any(row.get("ended") for row in record.of_kind("retention"))
    return "finished" if ended or (record.total_steps and record.step >= record.total_steps) else "stopped"


def _retention(record: RunRecord, running: bool) -> Retention | None:
    try:
        return read_retention(record.rows, record.config, running)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return None  # rows of another version must not keep a page from being written


def _verdict(record: RunRecord) -> Verdict:
    if not record.rows:
        return Verdict("early", "nothing measured yet")
    try:
        return judge(record.rows, record.total_steps or record.step)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Rows of another version must not keep a page from being written.
        return Verdict("unknown", f"unknown: metrics.jsonl has rows of another form ({error})")


def _tiles(record: RunRecord, running: bool, start: str) -> Iterator[Tile]:
    total = f"of {record.total_steps:,}" if record.total_steps else ""
    yield Tile("step", f"{record.step:,}", total)
    left = record.seconds_left() if running else None
    if left is not None:
        yield Tile("time left", duration(left), f"{duration(record.seconds())} so far")
    else:
        yield Tile("training time", duration(record.seconds()))
    speeds = [row["images_per_s"] for row in record.of_kind("step") if number(row.get("images_per_s")) is not None]
    if speeds:
        yield Tile("images a second", f"{speeds[-1]:,.0f}", "now" if running else "at the end")
    knn = [row for row in record.of_kind("knn") if number(row.get("value")) is not None]
    if knn:
        began = f"{start} {knn[0]['value']:.1f} %" if knn[0]["step"] == 0 and len(knn) > 1 else ""
        yield Tile("k-NN accuracy", f"{knn[-1]['value']:.1f} %", began)
    elif losses := [row["loss"] for row in record.of_kind("step") if number(row.get("loss")) is not None]:
        yield Tile("loss", f"{losses[-1]:.3f}", "proves nothing alone")


NAMES = {
    "dino": "DINO",
    "ibot": "iBOT",
    "koleo": "KoLeo",
    "gram": "Gram",
    "match_cls": "CLS match",
    "match_patches": "Patch match",
}
LOSS_WORDS: Mapping[str, tuple[str, str]] = {
    "dino": (
        "Student and teacher describe crops of one picture by the same prototypes.",
        "Normal: leaves the dotted line (a student that answers the same for every picture), then falls slowly; the "
        "teacher moves too, so it may also rise.",
    ),
    "ibot": (
        "The student guesses what the teacher sees in patches that were hidden from it.",
        "Normal: falls early, then slowly; it stays higher than in papers on small data.",
    ),
    "koleo": (
        "Spreads the features of a batch apart, so they do not crowd together.",
        "Normal: falls quickly, then stays nearly level.",
    ),
    "anchor": (
        "Keeps the features of whole pictures near those of the model that this run started from.",
        "Normal: rises a little when the backbone begins to move, then stays small.",
    ),
    "match_cls": (
        "Distance of the student's answer for a whole picture to the teacher's.",
        "Normal: falls quickly, then slowly; where it stops the student is too small, or the views too hard.",
    ),
    "match_patches": (
        "Distance of the student's map to the teacher's, place by place.",
        "Normal: falls quickly, then slowly.",
    ),
    "gram": (
        "Keeps similarities between patches near those of an earlier teacher.",
        "Normal: falls quickly and stays small.",
    ),
}


def _teachers(record: RunRecord) -> list[Level]:
    """The line that a distillation is to reach."""
    values = [value for row in record.of_kind("teacher") if (value := number(row.get("value"))) is not None]
    return [Level(value, f"teacher {value:.1f} %", color="--green") for value in values[:1]]


def _losses(record: RunRecord) -> Iterator[Chart]:
    rows = record.of_kind("step")
    terms: dict[str, None] = {}
    for row in rows:
        if isinstance(row.get("losses"), Mapping):
            terms |= dict.fromkeys(row["losses"])
    uniform = next((number(row.get("max_entropy")) for row in record.of_kind("health")), None)
    if any("loss" in row for row in rows):
        yield line_chart(
            "Total loss",
            {"total": series(rows, "loss")},
            "The weighted sum that is minimised.",
            "Normal: falls, stands or even rises while the features get better. A falling loss alone proves nothing: a "
            "collapsed run has one too. Look at k-NN and health.",
        )
    for term in terms:
        says, normal = LOSS_WORDS.get(term, (f"The term {term} of the total.", ""))
        levels = []
        if term == "dino" and uniform is not None:
            levels.append(Level(uniform, f"uniform, ln K = {uniform:.2f}"))
        name = NAMES.get(term, term)
        yield line_chart(f"{name} loss", {term: series(rows, "losses", term)}, says, normal, levels=levels)


def _gauges(rows: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    if not rows:
        return
    last = rows[-1]
    highest, rank_max = number(last.get("max_entropy")), number(last.get("rank_max"))
    if highest is not None:
        yield line_chart(
            "Teacher entropy",
            {"entropy": series(rows, "teacher_entropy")},
            "How many prototypes the teacher's answer is spread over, in nats.",
            "Normal: clearly below the line of a uniform answer and clearly above 0 (always the same prototype).",
            levels=[Level(highest, f"uniform, ln K = {highest:.2f}")],
            from_zero=True,
        )
    if any(number(row.get("information")) is not None for row in rows):
        yield line_chart(
            "Information",
            {"information": series(rows, "information")},
            "How much the student's answer depends on the picture, in nats.",
            "Normal: grows and stays above about 0.5. At 0 the answer is the same for every picture.",
            from_zero=True,
        )
    usage = series(rows, "prototype_usage")
    if highest is not None:
        yield line_chart(
            "Prototypes in use",
            {"usage": (usage[0], [None if value is None else 100 * value for value in usage[1]])},
            "Share of the prototypes that some picture of the probe chooses, out of those it could.",
            "Normal: a third or more. A few percent means that pictures share one answer.",
            unit=" %",
            from_zero=True,
        )
    most = f", of at most {rank_max:.0f}" if rank_max is not None else ""
    yield line_chart(
        "Directions in use",
        {"rank": series(rows, "rank")},
        f"Effective rank of the features of whole pictures{most}.",
        "Normal: grows from its first value. 1 means that all pictures look the same to the model; a fall to half of "
        "its best is a warning.",
        from_zero=True,
    )
    yield line_chart(
        "Likeness of patches",
        {
            "patch to CLS": series(rows, "cls_patch_cosine"),
            "patch to patch": series(rows, "patch_cosine"),
        },
        "Mean cosine between a picture's patches and its CLS token, and among its patches.",
        "Normal: well below 0.9. A long rise means that patches turn into copies of the whole: dense features decay.",
    )
    yield line_chart(
        "Outlier patches",
        {"ratio": series(rows, "norm_ratio")},
        "Length of the largest patch features (99th percentile) over the median.",
        "Normal: 1 to 3. Above 5 a few patches carry hidden work, and maps show bright dots.",
    )


def _course(rows: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    """What the optimizer did."""
    if any("grad_norm" in row for row in rows):
        yield line_chart(
            "Gradient norm",
            {"norm": series(rows, "grad_norm")},
            "Length of the gradient before clipping, on a logarithmic scale.",
            "Normal: one order of magnitude up or down. Spikes are clipped; a steady climb asks for a lower rate.",
            log=True,
        )
    planned = (
        ("lr", "Learning rate", "Size of the steps.", "As planned: a rise during warm-up, then level or falling."),
        ("momentum", "Teacher momentum", "How slowly the teacher follows the student.", "As planned: near 1."),
        (
            "teacher_temperature",
            "Teacher temperature",
            "How sharp the teacher's answer is made.",
            "As planned: level, or a rise early on.",
        ),
        ("gram_weight", "Gram weight", "How much patch similarities are held.", "As planned: a rise, then level."),
        ("local_weight", "Weight of local crops", "Their share of the DINO loss.", "As planned: 1, or a fall to 0.5."),
    )
    for key, title, says, normal in planned:
        if any(key in row for row in rows):
            # A constant needs 0 in sight to look constant; momentum moves within a hundredth of 1.
            yield line_chart(title, {key: series(rows, key)}, says, normal, from_zero=key != "momentum")
    if any("images_per_s" in row for row in rows):
        yield line_chart(
            "Speed",
            {"speed": series(rows, "images_per_s")},
            "Pictures a second while training.",
            "Normal: level. Dips come from other work on this machine or slow reading.",
            from_zero=True,
        )


def _skips(incidents: Sequence[Mapping[str, Any]]) -> list[Skips]:
    """Skipped pictures by reason, most frequent first."""
    names: dict[str, list[str]] = {}
    for row in incidents:
        if row["kind"] == "skipped picture":
            ids = row.get("ids")
            names.setdefault(str(row.get("words", "")), []).extend(map(str, ids) if isinstance(ids, list) else ["?"])
    groups = [Skips(reason, len(found), found[:MAX_NAMES]) for reason, found in names.items()]
    return sorted(groups, key=lambda group: -group.count)


def _settings(config: Mapping[str, Any]) -> Iterator[Setting]:
    given = config.get("reasons")
    reasons = given if isinstance(given, Mapping) else {}
    for name, value in _flatten(config, ""):
        yield Setting(name, str(value), str(reasons.get(name, "")))


def _flatten(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            if prefix or key != "reasons":
                yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _opens_with_transformers(run_dir: Path) -> bool:
    try:
        return '"dinov3_' in (run_dir / "model" / "config.json").read_text()
    except (OSError, UnicodeDecodeError):
        return False
