"""Correspondence: recall of 3D errors (NAVI) and of keypoints within a share of the box (SPair-71k)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

NAVI_THRESHOLDS_M = (0.01, 0.02, 0.05)
PCK_ALPHA = 0.1


def recall_below(errors: ArrayLike, thresholds: Sequence[float]) -> list[float]:
    """Share of errors strictly below each threshold, in [0, 1]."""
    values = np.asarray(errors, np.float64)
    return [float((values < threshold).mean()) for threshold in thresholds]


def keypoints_right(
    predicted: ArrayLike, truth: ArrayLike, box_side: float, *, alpha: float = PCK_ALPHA, inclusive: bool = True
) -> NDArray[np.bool_]:
    """Which of n points (same unit as the box) lie within alpha * box_side of the truth.

    inclusive: `<=` as the original PCK has it; the paper's protocol (Probe3D) uses `<`.
    """
    distance = np.linalg.norm(np.asarray(predicted, np.float64) - np.asarray(truth, np.float64), axis=-1)
    return distance <= alpha * box_side if inclusive else distance < alpha * box_side


def pck_by_pair(hits: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """[pairs] share of right keypoints of each, from how many were right and how many there are; PCK is their mean."""
    return np.asarray(hits, np.float64) / np.asarray(points)


def pck_per_point(hits: ArrayLike, points: ArrayLike, times: ArrayLike | None = None) -> float:
    """Share of right keypoints over all pairs together; a pair counts `times`."""
    count = np.ones(np.shape(points)) if times is None else np.asarray(times)
    return float(count @ np.asarray(hits) / (count @ np.asarray(points)))
