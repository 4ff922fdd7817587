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


def pck_per_pair(right: Sequence[NDArray[np.bool_]]) -> float:
    """Mean over pairs of the share of right keypoints; pairs without keypoints are left out."""
    return float(np.mean([pair.mean() for pair in right if len(pair)]))


def pck_per_point(right: Sequence[NDArray[np.bool_]]) -> float:
    """Share of right keypoints over all pairs together."""
    return float(np.concatenate(list(right)).mean())
