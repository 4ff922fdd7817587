"""The part of a report on dense features: do they degrade, and how do they fare at larger inputs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opendino.monitor.drift import judge_drift, stage_change
from opendino.pages.charts import Chart, Level, line_chart, series
from opendino.pages.record import RunRecord, number

Row = Mapping[str, Any]


def is_stage(record: RunRecord) -> bool:
    """Whether the run went on from another one."""
    stage = record.config.get("stage")
    return isinstance(stage, Mapping) and bool(stage.get("start"))


def dense_words(record: RunRecord) -> str:
    """The verdict on dense features in a sentence, of a stage what it did to them; "" when nothing was looked at."""
    rows = record.of_kind("drift")
    if not any(row["step"] > 0 for row in rows):
        return ""
    try:
        return stage_change(rows) if is_stage(record) else judge_drift(rows).words
    except (KeyError, TypeError, ValueError):
        return ""  # rows of another version must not keep a page from being written


def dense_charts(record: RunRecord) -> Iterator[Chart]:
    """Segmentation along the run, where masks were given, and curves over input sizes of a high-resolution stage."""
    looks = record.of_kind("drift")
    scored = [row for row in looks if number(row.get("miou")) is not None]
    if scored:
        best = max(scored, key=lambda row: float(row["miou"]))
        yield line_chart(
            "Dense features: k-NN segmentation",
            {"mIoU": series(scored, "miou")},
            "Each patch of pictures that were kept aside takes the class of the most alike patches of others. Masks "
            "serve this score only.",
            "Normal: rises, then stands. A long fall while k-NN accuracy still rises is what Gram anchoring is for.",
            levels=[Level(best["miou"], f"best {best['miou']:.1f} % at step {best['step']:,}")],
            unit=" %",
        )
    yield from _over_sizes(record.of_kind("sizes"))


def _over_sizes(rows: Sequence[Row]) -> Iterator[Chart]:
    curves = [(row["step"], row["rows"]) for row in rows if isinstance(row.get("rows"), list) and row["rows"]]
    if not curves:
        return
    ends = {"before": curves[0]} | ({"after": curves[-1]} if len(curves) > 1 else {})
    described = {
        "miou": (
            "Segmentation by input size",
            "k-NN segmentation of the same pictures at several input sides, before the stage and after it.",
            "Normal: after the stage the curve falls later, or not at all, towards large inputs.",
            " %",
        ),
        "agreement": (
            "Patch similarities by input size",
            "Does the likeness of parts of a picture agree with that at the smallest side? 1: it is the same.",
            "Normal: after the stage it falls less towards large inputs. It tells of stability, not of quality.",
            "",
        ),
    }
    for key, (title, says, normal, unit) in described.items():
        lines = {}
        for name, (_, points) in ends.items():
            known = [one for one in points if number(one.get(key)) is not None and number(one.get("px")) is not None]
            if known:
                lines[name] = ([int(one["px"]) for one in known], [number(one[key]) for one in known])
        if lines:
            yield line_chart(title, lines, says, normal, unit=unit, x="input side in pixels")
