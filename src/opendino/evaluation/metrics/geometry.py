"""Angles: surface normals, and the area under the curve of camera pose errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

NORMAL_THRESHOLDS_DEG = (11.25, 22.5, 30.0)


def normal_scores(errors_deg: ArrayLike, thresholds: Sequence[float] = NORMAL_THRESHOLDS_DEG) -> Mapping[str, float]:
    """Mean, median, RMSE (degrees) and shares below thresholds of the angles of one image's valid normals."""
    error = np.asarray(errors_deg, np.float64)
    shares = {f"below_{threshold:g}": float((error < threshold).mean()) for threshold in thresholds}
    rmse = float(np.sqrt((error**2).mean()))
    return {"mean": float(error.mean()), "median": float(np.median(error)), "rmse": rmse, **shares}


def pose_auc_by_degrees(errors_deg: ArrayLike, limit_deg: int = 30) -> float:
    """Mean over the whole degrees 1 to limit of the share of pairs below (Re10K, CO3D)."""
    error = np.asarray(errors_deg, np.float64)
    return float(np.mean([(error < degree).mean() for degree in range(1, limit_deg + 1)]))


def pose_auc_by_trapezoids(errors_deg: ArrayLike, limit_deg: float) -> float:
    """Area under the recall curve up to the limit, by trapezoids between sorted errors (ScanNet-1500)."""
    error = np.sort(np.asarray(errors_deg, np.float64))
    recall = (np.arange(len(error)) + 1) / len(error)
    inside = int(np.searchsorted(error, limit_deg))
    x = np.concatenate([[0.0], error[:inside], [limit_deg]])
    y = np.concatenate([[0.0], recall[:inside], [recall[inside - 1] if inside else 0.0]])
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit_deg)
