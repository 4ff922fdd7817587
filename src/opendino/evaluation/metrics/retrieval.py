"""Retrieval: the trapezoidal mAP of revisited Oxford and Paris, plain AP, recall at k, and GAP with distractors.

Source: Radenovic et al., arXiv 1803.11285 (revisited); Ypsilantis et al., arXiv 2202.01747 (GAP of the Met).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def hit_ranks(ranking: ArrayLike, positives: Collection[int], junk: Collection[int] = ()) -> NDArray[np.int64]:
    """0-based ranks of the positives, after the junk was taken out of the ranking, ascending."""
    order = np.asarray(ranking, np.int64)
    order = order[~np.isin(order, list(junk))]
    return np.flatnonzero(np.isin(order, list(positives)))


def trapezoid_ap(ranks: ArrayLike, num_positives: int) -> float:
    """Area under the precision-recall curve by trapezoids, as the Oxford and Paris sets define it.

    Args:
        ranks: 0-based, ascending, of the hits.
        num_positives: those not found count as misses; 0 gives NaN (the query is not scored).
    """
    if num_positives == 0:
        return float("nan")
    rank = np.asarray(ranks, np.float64)
    hit = np.arange(len(rank))
    before = np.where(rank == 0, 1.0, hit / np.maximum(rank, 1))
    after = (hit + 1) / (rank + 1)
    return float((before + after).sum() / 2 / num_positives)


def average_precision(ranks: ArrayLike, num_positives: int) -> float:
    """Mean of the precisions at the hits; with one positive it is 1 / rank. NaN without positives."""
    if num_positives == 0:
        return float("nan")
    rank = np.asarray(ranks, np.float64)
    return float(((np.arange(len(rank)) + 1) / (rank + 1)).sum() / num_positives)


def recall_at(ranks: ArrayLike, k: int) -> float:
    """1 if any hit is among the first k, else 0."""
    return float((np.asarray(ranks) < k).any())


def revisited_aps(
    ranking: ArrayLike, easy: Collection[int], hard: Collection[int], junk: Collection[int]
) -> dict[str, float]:
    """Trapezoidal AP of one query in the three set-ups; NaN where it has no positive.

    Easy asks for the easy ones and ignores hard and junk, Medium asks for both, Hard for the hard ones alone.
    """
    wanted: dict[str, tuple[set[int], set[int]]] = {
        "easy": (set(easy), set(junk) | set(hard)),
        "medium": (set(easy) | set(hard), set(junk)),
        "hard": (set(hard), set(junk) | set(easy)),
    }
    return {name: trapezoid_ap(hit_ranks(ranking, ok, ignored), len(ok)) for name, (ok, ignored) in wanted.items()}


def global_ap(
    confidence: ArrayLike,
    correct: ArrayLike,
    num_known: int,
    weights: Sequence[int] | NDArray[np.int64] | None = None,
) -> float:
    """GAP: all queries sorted by confidence; sum of precision at i * correct at i, over the queries that have a truth.

    Args:
        confidence: [q]; equal values keep their order.
        correct: [q] bool; False for distractors, which so lower the precision of what comes after them.
        num_known: queries with a truth; with `weights` their weighted number.
        weights: [q] how often each query counts (for resampling); once by default.
    """
    score, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    count = np.ones(len(score)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-score, kind="stable")
    right, count = right[order], count[order]
    # A query that counts w times stands w times in a row: its share is the sum of w successive precisions.
    hits_before = np.cumsum(right * count) - right * count
    seen_before = np.cumsum(count) - count
    total = 0.0
    for hits, seen, times in zip(hits_before[right > 0], seen_before[right > 0], count[right > 0], strict=True):
        place = np.arange(1, int(times) + 1)
        total += float(((hits + place) / (seen + place)).sum())
    return total / num_known
