"""95 % intervals by the seeded percentile bootstrap over queries, plain and paired."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendino.errors import ShapeError

RESAMPLES = 2000
CHUNK = 4_000_000
"""Counts drawn at once, to bound memory."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval, in the unit of the values.

    draws: of a number that is no mean, what it was on every draw of units, so that two models can be paired.
    """

    value: float
    low: float
    high: float
    draws: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)


def bootstrap(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95) -> Estimate:
    """Mean of per-query scores with its percentile interval over queries drawn again with replacement.

    Args:
        values: [n] scores, one a query (0 or 1 for right or wrong); n >= 1, finite.
    Returns:
        Estimate; equal for equal inputs and seed. It holds the noise of the queries, not that of training seeds.
    Raises:
        ShapeError: no values, or not one-dimensional, or not finite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ShapeError("bootstrap", f"needs a list of finite scores, one a query, got shape {scores.shape}")
    low, high = np.quantile(_resampled_means(scores, resamples, seed), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(scores.mean()), float(low), float(high))


def set_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    units: int | Sequence[int],
    *,
    clusters: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """As `bootstrap`, for a number that is no mean of scores (mIoU, GAP, mCE): it is computed anew on every draw.

    Args:
        statistic: from how often each unit counts, [units] int64, to the number; all ones give the number itself.
        units: how many images, videos or queries are drawn again; several numbers are groups in their order, and as
            many are drawn inside each as it has.
        clusters: groups are drawn again too, then units inside each: what shares a group is alike.
    Raises:
        ShapeError: no units. A draw in which the number is not defined (NaN) is left out.
    """
    groups = [units] if isinstance(units, int) else list(units)
    if not groups or min(groups) < 1:
        raise ShapeError("bootstrap", "needs at least one unit")
    generator = np.random.default_rng(seed)

    def draw() -> NDArray[np.int64]:
        count = len(groups)
        times = generator.multinomial(count, np.full(count, 1 / count)) if clusters else np.ones(count, np.int64)
        drawn = zip(times.tolist(), groups, strict=True)
        return np.concatenate([generator.multinomial(time * size, np.full(size, 1 / size)) for time, size in drawn])

    drawn = np.array([statistic(draw()) for _ in range(resamples)])
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(statistic(np.ones(sum(groups), np.int64))), float(low), float(high), drawn)


def cluster_bootstrap(values: ArrayLike, groups: Sequence[str], *, seed: int = 0) -> Estimate:
    """As `bootstrap`, but groups are drawn again and then values inside them; groups [n] names the group of each."""
    scores = np.asarray(values, dtype=np.float64)
    _, group_of, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    ordered = scores[np.argsort(group_of, kind="stable")]
    return set_bootstrap(lambda times: float(times @ ordered / times.sum()), sizes.tolist(), clusters=True, seed=seed)


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, *, groups: Sequence[str] | None = None, seed: int = 0
) -> Estimate:
    """Interval of mean(after) - mean(before) over the same queries: far narrower than two separate intervals.

    groups [n]: as for `cluster_bootstrap`, None when queries are independent.

    Raises:
        ShapeError: the lists differ in length, so they are not the same queries.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ShapeError("paired bootstrap", f"scores of the same queries needed, got {first.shape} and {second.shape}")
    gain = second - first
    return bootstrap(gain, seed=seed) if groups is None else cluster_bootstrap(gain, groups, seed=seed)


def paired_draws(before: Estimate, after: Estimate, *, level: float = 0.95) -> Estimate:
    """As `paired_bootstrap`, for numbers of `set_bootstrap` over the same units, which one seed draws alike for both.

    Raises:
        ShapeError: one has no draws, or they are not as many.
    """
    if before.draws is None or after.draws is None or before.draws.shape != after.draws.shape:
        raise ShapeError("paired bootstrap", "needs as many draws of both numbers")
    low, high = np.nanquantile(after.draws - before.draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(after.value - before.value, float(low), float(high))


def unpaired_difference(before: ArrayLike, after: ArrayLike, *, seed: int = 0) -> Estimate:
    """mean(after) - mean(before) of different queries, with the two half widths added as independent errors."""
    first, second = bootstrap(before, seed=seed), bootstrap(after, seed=seed)
    half = math.hypot(first.high - first.low, second.high - second.low) / 2
    value = second.value - first.value
    return Estimate(value, value - half, value + half)


def _resampled_means(scores: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    # Drawing n queries with replacement is drawing how often each distinct score occurs: same distribution, and with
    # right-or-wrong scores two counts stand for thousands of queries.
    distinct, counts = np.unique(scores, return_counts=True)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, CHUNK // distinct.size)
    for start in range(0, resamples, at_once):
        part = slice(start, min(start + at_once, resamples))
        drawn = generator.multinomial(scores.size, counts / scores.size, size=part.stop - part.start)
        means[part] = drawn @ distinct / scores.size
    return means
