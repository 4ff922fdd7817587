"""Do dense features degrade along a run, and which checkpoint has the best: a verdict in words for Gram anchoring.

In long runs patches slowly turn into copies of CLS while k-NN still rises (arXiv 2508.10104, section 4). Labels of
pixels tell it: k-NN segmentation, the same pictures at each look. Without them only signs are left, and a sign is no
proof: the cosine of CLS and patches also rises where patches learn what a picture shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opendino.monitor.health import DRIFT_RISE, NORM_RATIO_CEILING, PATCH_COSINE_CEILING

EARLY_SHARE = 0.1
"""Looks before this share of the way so far are of networks that are hardly trained: never a teacher."""
SURE = 2.8
"""Standard errors that a loss must have. The best of about ten looks is compared with the last one: 1.96, right for one
comparison, would ring by chance in every fourth run that stands still."""
SURE_ONCE = 1.96
"""The same where two looks are compared that nobody chose."""
LEAST_PICTURES = 5
"""Fewer pictures with masks than this give no standard error worth the name."""

Row = Mapping[str, Any]
Kind = Literal["unknown", "none", "signs", "degraded"]


@dataclass(frozen=True)
class Drift:
    """kind: "none" and "degraded" are said of pictures with masks, or of signs without; words: a sentence; step: of the
    look whose features are best for a Gram teacher, None when nothing was measured.
    """

    kind: Kind
    words: str
    step: int | None = None


def judge_drift(rows: Sequence[Row]) -> Drift:
    """Judge a run by its looks so far.

    Args:
        rows: of kind "drift", others are ignored: step, cls_patch_cosine, patch_cosine, norm_ratio; with masks also
            miou (percent) and picture_iou, the IoU of each picture in percent, the same pictures in all rows.
    """
    looks = [row for row in rows if row["kind"] == "drift" and row["step"] > 0]
    looks = [row for row in looks if row["step"] >= EARLY_SHARE * looks[-1]["step"]]
    if len(looks) < 2:
        return Drift("unknown", "dense features: too few looks to tell", looks[-1]["step"] if looks else None)
    scored = [row for row in looks if row.get("miou") is not None]
    if len(scored) == len(looks) and len(looks[-1]["picture_iou"]) >= LEAST_PICTURES:
        return _by_masks(looks)
    return _by_signs(looks)


def stage_change(rows: Sequence[Row]) -> str:
    """What a stage did to dense features, in a sentence: its last look against its step 0.

    Args:
        rows: as for `judge_drift`.
    """
    looks = [row for row in rows if row["kind"] == "drift"]
    if len(looks) < 2:
        return "dense features: too few looks to tell"
    before, after = looks[0], looks[-1]
    cosines = f"cosine of CLS and patches {before['cls_patch_cosine']:.2f} -> {after['cls_patch_cosine']:.2f}"
    if before.get("miou") is None or after.get("miou") is None:
        return f"dense features: {cosines}; pictures with masks (--watch.masks) would tell whether that is better"
    change, error = _paired(before["picture_iou"], after["picture_iou"])
    low, high = change - SURE_ONCE * error, change + SURE_ONCE * error
    state = "gained" if low > 0 else "lost" if high < 0 else "no sure change"
    return (
        f"dense features: {state}, k-NN segmentation {before['miou']:.1f} -> {after['miou']:.1f} % "
        f"({change:+.1f} [{low:.1f}, {high:.1f}] a picture), {cosines}"
    )


def _by_masks(looks: Sequence[Row]) -> Drift:
    best, now = max(looks, key=lambda row: float(row["miou"])), looks[-1]
    if best is now:
        words = f"dense features: no degradation at this scale, k-NN segmentation is at its best, {now['miou']:.1f} %"
        return Drift("none", words, now["step"])
    change, error = _paired(best["picture_iou"], now["picture_iou"])
    low, high = change - SURE * error, change + SURE * error
    numbers = (
        f"k-NN segmentation {best['miou']:.1f} % at step {best['step']:,}, {now['miou']:.1f} % now "
        f"({change:+.1f} [{low:.1f}, {high:.1f}] a picture)"
    )
    if high >= 0:
        return Drift("none", f"dense features: no sure degradation at this scale, {numbers}", best["step"])
    return Drift(
        "degraded",
        f"dense features degrade: {numbers}; a Gram stage can mend it, with step {best['step']:,} as its teacher",
        best["step"],
    )


def _paired(before: Sequence[float | None], after: Sequence[float | None]) -> tuple[float, float]:
    """Mean difference over the pictures that both looks scored, and its standard error."""
    changes = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if not changes:
        return 0.0, math.inf
    mean = sum(changes) / len(changes)
    variance = sum((change - mean) ** 2 for change in changes) / max(len(changes) - 1, 1)
    return mean, math.sqrt(variance / len(changes))


def _by_signs(looks: Sequence[Row]) -> Drift:
    now = looks[-1]
    least = min(looks, key=lambda row: float(row["cls_patch_cosine"]))
    signs = []
    if now["cls_patch_cosine"] - least["cls_patch_cosine"] > DRIFT_RISE:
        signs.append(
            f"patches become like CLS (mean cosine {least['cls_patch_cosine']:.2f} at step {least['step']:,}, "
            f"{now['cls_patch_cosine']:.2f} now)"
        )
    if now["patch_cosine"] > PATCH_COSINE_CEILING >= min(row["patch_cosine"] for row in looks):
        signs.append(f"patches become like each other (mean cosine {now['patch_cosine']:.2f})")
    if now["norm_ratio"] > NORM_RATIO_CEILING >= min(row["norm_ratio"] for row in looks):
        signs.append(f"a few patches grow long ({now['norm_ratio']:.1f} times the median)")
    if not signs:
        words = (
            f"dense features: no sign of degradation at this scale (cosine of CLS and patches "
            f"{least['cls_patch_cosine']:.2f} at least, {now['cls_patch_cosine']:.2f} now)"
        )
        return Drift("none", words, now["step"])
    return Drift(
        "signs",
        f"dense features show signs of degradation: {', '.join(signs)}; pictures with masks (--watch.masks) would tell "
        f"for sure, and a Gram stage would take step {least['step']:,} as its teacher",
        least["step"],
    )
