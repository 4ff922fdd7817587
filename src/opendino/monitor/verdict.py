"""The verdict on a run in one sentence: is it learning, and if not, what is wrong.

Only k-NN against the run's own step 0 can say "learning". A run whose outputs are uniform or equal is never called
that, whatever its k-NN does: with many looks one interval lies above 0 by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from opendino.monitor.health import Health, health_from_row

EARLY_SHARE = 0.1
"""Before this share of the run nothing is judged: warm-up lasts about as long."""
EARLY_STEPS = 2_000
"""And never longer than so many steps."""
FEW_STEPS = 50
"""A run of fewer steps tells nothing, finished or not."""
LOSS_AT_UNIFORM = 0.02
"""A DINO loss less than this below ln K in nats is that of a uniform student: dead runs stay within it to the end."""
LOSS_STILL = 0.02
"""A DINO loss that moved less than this over a whole run stands still; dead runs are constant to two digits."""
WINDOW = 5
"""Logged steps whose median stands for the loss at the start and now."""

ONLY_LABELS = "whether features get better only labels can tell: put pictures into one folder per class"

Row = Mapping[str, Any]
Kind = Literal["unknown", "early", "broken", "collapsed", "uniform", "no gain", "learning", "past best", "unlabelled"]


@dataclass(frozen=True)
class Verdict:
    """kind: for colours and exit conditions; words: the sentence."""

    kind: Kind
    words: str


def verdict(rows: Sequence[Row], total_steps: int) -> str:
    """The sentence of `judge`."""
    return judge(rows, total_steps).words


def judge(rows: Sequence[Row], total_steps: int) -> Verdict:
    """Judge a run by the rows of its metrics.jsonl.

    Args:
        rows: kinds step, health and knn, in order of steps; other kinds are ignored. A knn row may carry gain,
            gain_low, gain_high: the difference to step 0 in points with its 95 % interval, and paired = False where
            the two were scored on different pictures.
        total_steps: length of the whole run.
    """
    steps = [row for row in rows if row["kind"] == "step"]
    health = [health_from_row(row) for row in rows if row["kind"] == "health"]
    after_start = [health_from_row(row) for row in rows if row["kind"] == "health" and row["step"] > 0]
    knn = _one_k([row for row in rows if row["kind"] == "knn"])
    now = max((row["step"] for row in rows), default=0)
    place = f"step {now:,} of {total_steps:,}"

    if steps and all(row.get("loss") is None for row in steps[-WINDOW:]):
        return Verdict("broken", f"broken: the loss is not a finite number ({place}); lower --optim.lr or use fp32")
    early = now < min(EARLY_SHARE * total_steps, EARLY_STEPS)
    few = now < FEW_STEPS
    # One measurement may mislead: two in a row must agree, if there are two. Narrow targets are normal at first.
    if after_start and all(h.equal if early else h.collapsed for h in after_start[-2:]):
        last = after_start[-1]
        used = f"{last.prototypes_in_use} of {last.prototypes_possible} prototypes, " if last.has_prototypes else ""
        return Verdict(
            "collapsed",
            f"collapsed: outputs are nearly the same for all pictures ({used}"
            f"{last.rank:.1f} of {last.rank_max} directions in use, {place}); "
            "go back to an earlier checkpoint and lower --optim.lr, or raise --method.teacher-temperature",
        )
    if early:
        return Verdict("early", f"too early ({place})")
    if few:
        return Verdict("early", f"too few steps to tell ({place}); runs that learn show it after some hundreds")
    if uniform := _uniform(steps, health, after_start):
        return Verdict(
            "uniform",
            f"not learning: outputs uniform: {uniform} ({place}); set --method.unit-prototypes and "
            "--method.target-spread 0.2 where they are not, else lower --method.prototypes",
        )
    if len(knn) >= 2:
        return _by_knn(knn, steps, now, total_steps)
    if knn:
        return Verdict("early", f"too early to tell: k-NN was taken once, {_percent(knn[0])} ({place})")
    if after_start:
        last, first = after_start[-1], health[0]
        if not last.has_prototypes:
            alive = (
                f"features use {last.rank:.0f} of {last.rank_max} directions ({first.rank:.0f} at the start, {place})"
            )
            return Verdict("unlabelled", f"{alive}; {ONLY_LABELS}")
        return Verdict(
            "unlabelled",
            f"outputs are alive: predictions tell {last.information:.2f} nats ({first.information:.2f} at the start), "
            f"{last.prototypes_in_use} of at most {last.prototypes_possible} prototypes in use ({place}); "
            f"{ONLY_LABELS}",
        )
    return Verdict("unknown", f"unknown: only the loss was recorded, and a falling loss alone proves nothing ({place})")


def _by_knn(knn: Sequence[Row], steps: Sequence[Row], now: int, total_steps: int) -> Verdict:
    first, last = knn[0], knn[-1]
    best = max(knn, key=lambda row: row["value"])
    place = f"step {now:,} of {total_steps:,}"
    loss = _loss_words(steps)
    if last["value"] < best["low"]:
        if best is first:
            words = f"not learning: k-NN fell from {_percent(first)} at step {first['step']:,} to {_percent(last)}"
            return Verdict("no gain", f"{words}{loss} ({place}); lower --optim.lr or weaken --data.color.*")
        return Verdict(
            "past best",
            f"past its best: k-NN fell after step {best['step']:,}, {_number(first)} -> {_number(best)} -> "
            f"{_percent(last)}{loss} ({place}); best weights are kept in model-best/",
        )
    gain, low, high, paired = _gain(first, last)
    change = f"k-NN {_number(first)} -> {_percent(last)} ({gain:+.1f} [{low:.1f}, {high:.1f}], {paired})"
    chance = f", chance {last['chance']:.1f} %" if last.get("chance") is not None else ""
    if low > 0:
        done = "learned" if now >= total_steps else "learning"
        return Verdict("learning", f"{done}: {change}{chance} ({place})")
    doubt = "no gain" if now >= total_steps else "no gain yet"
    return Verdict("no gain", f"{doubt}: {change}{chance}{loss} ({place}); the interval holds 0")


def _uniform(steps: Sequence[Row], health: Sequence[Health], after_start: Sequence[Health]) -> str:
    """Why outputs count as uniform, in words; empty when they do not."""
    losses = [_dino(row) for row in steps if _dino(row) is not None]
    now = median(losses[-WINDOW:]) if losses else math.nan
    if after_start and all(h.uniform for h in after_start[-2:]):
        last = after_start[-1]
        return (
            f"teacher entropy {last.teacher_entropy:.2f} of {last.max_entropy:.2f} nats, predictions tell "
            f"{last.information:.2f} nats"
        )
    if health and now > health[0].max_entropy - LOSS_AT_UNIFORM:
        return f"the DINO loss is {now:.2f}, a uniform student has {health[0].max_entropy:.2f}"
    if len(losses) >= 2 * WINDOW and abs(median(losses[:WINDOW]) - now) < LOSS_STILL:
        return f"the DINO loss stands still at {now:.2f}"
    return ""


def _dino(row: Row) -> Any:
    """The DINO term; the loss of rows without terms; None for an objective that has no such term."""
    losses = row.get("losses")
    return losses.get("dino") if losses else row.get("loss")


def _one_k(knn: Sequence[Row]) -> list[Row]:
    """Rows that can be compared: those with the first row's k."""
    return [row for row in knn if row.get("k") == knn[0].get("k")]


def _gain(first: Row, last: Row) -> tuple[float, float, float, str]:
    """Difference to the first row in points, its interval, and whether it is paired."""
    if last.get("gain") is not None:
        return last["gain"], last["gain_low"], last["gain_high"], "paired" if last.get("paired", True) else "unpaired"
    gain = last["value"] - first["value"]
    half = math.hypot(last["high"] - last["low"], first["high"] - first["low"]) / 2
    return gain, gain - half, gain + half, "unpaired"


def _loss_words(steps: Sequence[Row]) -> str:
    losses = [row["loss"] for row in steps if row.get("loss") is not None]
    if len(losses) < 2:
        return ""
    start, now = median(losses[:WINDOW]), median(losses[-WINDOW:])
    return f" while the loss went {start:.2f} -> {now:.2f}" if now >= start else " while the loss fell"


def _number(row: Row) -> str:
    return f"{row['value']:.1f}"


def _percent(row: Row) -> str:
    return f"{row['value']:.1f} %"
