"""Numbers that change over a run: linear warm-up, half cosine, constant end; lengths in steps or fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from opendino.errors import UsageError

Length = int | float
"""A number of steps (int) or a fraction of the run in [0, 1] (float)."""


def to_steps(length: Length, total: int) -> int:
    """Steps of a Length in a run of `total` steps. Raises UsageError for a negative or a fraction above 1."""
    if length < 0 or (isinstance(length, float) and length > 1):
        raise UsageError(f"length {length}", "must be steps (an integer >= 0) or a fraction of the run in [0, 1]")
    return length if isinstance(length, int) else round(length * total)


@dataclass(frozen=True)
class Schedule:
    """start -> peak over `warmup` (linear, peak not included), peak for `hold`, -> end over `cosine` (half), then end.

    cosine None: all steps that remain. open: the end would be reached one step after the last, as in most recipes for
    heads. A constant: start = peak = end. A late switch: start = peak = 0, end > 0. A line: peak = end, warmup = 1.0.
    Source: arXiv 2508.10104, appendix C (constant with warm-up) and its ImageNet recipe (cosine).
    """

    start: float
    peak: float
    end: float
    warmup: Length = 0
    cosine: Length | None = None
    open: bool = False
    hold: Length = 0

    def at(self, step: int, total: int) -> float:
        """Value at 0-based `step` of a run of `total` steps."""
        warmup = to_steps(self.warmup, total)
        if step < warmup:
            return self.start + (self.peak - self.start) * step / warmup
        warmup += to_steps(self.hold, total)
        if step < warmup:
            return self.peak
        length = max(total - warmup, 0) if self.cosine is None else to_steps(self.cosine, total)
        index = step - warmup
        if index >= length:
            return self.end
        last = length if self.open else length - 1
        phase = index / last if last else 0.0
        return self.end + (self.peak - self.end) * 0.5 * (1 + math.cos(math.pi * phase))


Rise = Literal["cosine", "line"]


def rising(start: float, end: float, rise: Rise) -> Schedule:
    """From start to end over the whole run."""
    return Schedule(start, end, end, warmup=1.0) if rise == "line" else Schedule(start, start, end)


def constant(value: float, *, start: float | None = None, warmup: Length = 0) -> Schedule:
    """`value` for the whole run, after a linear warm-up from `start` (default: none)."""
    return Schedule(value if start is None else start, value, value, warmup)
