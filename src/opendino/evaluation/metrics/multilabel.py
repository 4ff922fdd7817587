"""Scores of pictures with several labels: average precision of a class, by all points and by eleven, and F1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def weighted_ap(scores: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Sum over thresholds of (gain in recall) * precision, equal scores together; scikit-learn's definition.

    Args:
        scores: [n]. truth: [n] of 0 and 1. weights: [n] how often each row counts, once by default.
    Returns:
        In [0, 1]; NaN without a positive.
    """
    hits, seen = _cumulated(scores, truth, weights)
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    return float((np.diff(hits, prepend=0) * hits / seen).sum() / hits[-1])


def eleven_point_ap(scores: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or above: VOC 2007's definition."""
    hits, seen = _cumulated(scores, truth, weights)
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    recall, precision = hits / hits[-1], hits / seen
    best = [precision[recall >= level - 1e-12].max() for level in np.linspace(0, 1, 11)]
    return float(np.mean(best))


def _cumulated(
    scores: ArrayLike, truth: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positives and rows at or above each distinct score, from the highest on; rows of weight 0 are none."""
    score, right = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    count = np.ones(len(score)) if weights is None else np.asarray(weights, np.float64)
    score, right, count = (values[count > 0] for values in (score, right, count))
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.diff(score[order]) != 0, True) if len(score) else np.zeros(0, bool)
    return np.cumsum((right * count)[order])[ends], np.cumsum(count[order])[ends]


def f1_counts(truth: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """[n, 3, C] of [n, C] labels of 0 and 1: true positives, false positives, false negatives; they add up."""
    real, guess = np.asarray(truth, bool), np.asarray(predicted, bool)
    return np.stack([real & guess, ~real & guess, real & ~guess], axis=1).astype(np.int64)


def micro_f1(counts: NDArray[np.int64]) -> float:
    """F1 of all classes together, from counts [3, C]; in [0, 1]."""
    return float(_f1(counts.sum(axis=1)))


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Mean over classes of F1, from counts [3, C]; a class that is nowhere counts 0, as scikit-learn has it."""
    return float(np.mean(_f1(counts)))


def _f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    hit, false, missed = counts.astype(np.float64)
    total = np.asarray(2 * hit + false + missed)
    return np.divide(2 * hit, total, out=np.zeros_like(total), where=total > 0)
