"""Frozen, adapted or trained anew: what short measured runs let one expect of longer ones, and which to take.

The rule in words. Of each way the same pictures are classified by k-NN. A short run is carried on to the whole budget
by half of what its second half gained, for each doubling of its steps, and for two doublings at most: curves flatten.
Every number is a mean over the same pictures, so its interval is paired. A way is taken when its expected gain over the
frozen model is above 0 with its whole interval; training anew only when it is surely above adapting too. Else: frozen,
the cheapest, since nothing can be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from opendino.errors import ShapeError
from opendino.evaluation.metrics.interval import Estimate, bootstrap, paired_bootstrap

SHRINK = 0.5
"""Of the gain of the last doubling, for each further one."""
MOST_DOUBLINGS = 2.0

Way = Literal["frozen", "adapt", "pretrain"]
Answers = NDArray[np.bool_]


@dataclass(frozen=True)
class Course:
    """A short run: right and wrong answers halfway (None where it was not looked) and at its end, after so many steps;
    seconds_per_step; steps that the whole budget allows.
    """

    way: Way
    halfway: Answers | None
    end: Answers
    steps: int
    seconds_per_step: float
    budget_steps: int

    @property
    def doublings(self) -> float:
        """From the run's end to the budget's, at most `MOST_DOUBLINGS`, 0 without a look halfway."""
        if self.halfway is None:
            return 0.0
        return min(MOST_DOUBLINGS, max(0.0, math.log2(max(1, self.budget_steps) / max(1, self.steps))))

    def expected(self) -> NDArray[np.float64]:
        """Score of each picture at the end of the budget, in percent; may leave [0, 100] for a single picture."""
        end: NDArray[np.float64] = 100.0 * self.end.astype(np.float64)
        if self.halfway is None:
            return end
        trend: NDArray[np.float64] = end + self.doublings * SHRINK * (end - 100.0 * self.halfway)
        return trend


@dataclass(frozen=True)
class Option:
    """A row of the table. measured: k-NN in percent at the end of the short run; gain: expected over the frozen model
    at the end of the budget, None for the frozen model itself; hours: that the budget takes here.
    """

    way: Way
    measured: Estimate
    gain: Estimate | None
    steps: int
    hours: float


@dataclass(frozen=True)
class Advice:
    """way: what to do; sure: whether the intervals tell it; words: one sentence; options: frozen first."""

    way: Way
    sure: bool
    words: str
    options: tuple[Option, ...]


def advise_from(frozen: Answers, courses: Sequence[Course]) -> Advice:
    """Apply the rule.

    Args:
        frozen: right or wrong of each picture with the model as it is.
        courses: of other ways, over the same pictures in the same order.
    Raises:
        ShapeError: other numbers of pictures.
    """
    if any(len(course.end) != len(frozen) for course in courses):
        raise ShapeError("advice", "the ways were scored on different numbers of pictures", "score all on the same")
    before = 100.0 * frozen
    options = [Option("frozen", bootstrap(before), None, 0, 0.0)]
    for course in courses:
        options.append(
            Option(
                course.way,
                bootstrap(100.0 * course.end),
                paired_bootstrap(before, course.expected()),
                course.budget_steps,
                course.budget_steps * course.seconds_per_step / 3600,
            )
        )
    gains = {option.way: option.gain for option in options if option.gain is not None}
    better = [course for course in courses if gains[course.way].low > 0]
    taken = next((course for course in better if course.way == "adapt"), None)
    for course in better:
        if taken is None or (course.way != taken.way and paired_bootstrap(taken.expected(), course.expected()).low > 0):
            taken = course
    if taken is not None:
        gain = gains[taken.way]
        words = f"{taken.way}: expected gain {gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}] points of k-NN"
        return Advice(taken.way, True, words, tuple(options))
    if gains and all(gain.high < 0 for gain in gains.values()):
        return Advice("frozen", True, "frozen: every other way is expected to score lower", tuple(options))
    doubtful = max(gains.items(), key=lambda item: item[1].value)[0] if gains else "frozen"
    words = f"cannot tell: the interval of {doubtful} holds 0; frozen is the cheapest"
    return Advice("frozen", False, words, tuple(options))
