"""Rotations and angles: surface normals, and the area under the curve of camera pose errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

NORMAL_THRESHOLDS_DEG = (11.25, 22.5, 30.0)


def rotation_of_quaternion(quaternion: ArrayLike) -> NDArray[np.float64]:
    """[3, 3] of (w, x, y, z) of any length but 0. Raises ValueError for anything else."""
    values = np.asarray(quaternion, np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or not values.any():
        raise ValueError(f"{quaternion!r} is no quaternion")
    w, x, y, z = values / np.linalg.norm(values)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Degrees from 0 to 180 between two rotations [3, 3]."""
    cosine = (np.trace(one @ other.T) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


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
