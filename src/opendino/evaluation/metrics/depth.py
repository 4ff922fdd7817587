"""Depth maps: RMSE, ARel and delta1 per image, the crops of NYUv2 and KITTI, and the scale-and-shift fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.floating]
"""[H, W] metres."""
Valid = NDArray[np.bool_]
NYU_RANGE_M = (1e-3, 10.0)
KITTI_RANGE_M = (1e-3, 80.0)
DELTA = 1.25


@dataclass(frozen=True)
class DepthScore:
    """rmse in metres; arel: mean of |error| / truth; delta1: share of pixels within a factor of 1.25."""

    rmse: float
    arel: float
    delta1: float
    pixels: int


def valid_depth(truth: Depth, low_m: float, high_m: float) -> Valid:
    """Measured pixels strictly between the two bounds; 0, NaN and infinity are none."""
    return np.isfinite(truth) & (truth > low_m) & (truth < high_m)


def eigen_crop_nyu(shape: tuple[int, int]) -> Valid:
    """Pixels that are scored of a 480 x 640 frame: rows 45 to 470, columns 41 to 600."""
    mask = np.zeros(shape, bool)
    mask[45:471, 41:601] = True
    return mask


def kb_crop(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """The lower middle 352 x 1216 of a KITTI frame [H, W, ...]; picture and truth alike."""
    top, left = image.shape[0] - 352, int((image.shape[1] - 1216) / 2)
    return image[top : top + 352, left : left + 1216]


def garg_crop() -> Valid:
    """Scored pixels of the 352 x 1216 crop for linear depth: rows 143 to 348, columns 43 to 1171."""
    mask = np.zeros((352, 1216), bool)
    mask[143:349, 43:1172] = True
    return mask


def eigen_crop_kitti() -> Valid:
    """Scored pixels of the 352 x 1216 crop for zero-shot depth: rows 117 to 320, columns 43 to 1171."""
    mask = np.zeros((352, 1216), bool)
    mask[117:321, 43:1172] = True
    return mask


def score_depth(truth: Depth, predicted: Depth, valid: Valid) -> DepthScore | None:
    """Scores of one image over its valid pixels; None when it has none, so that the caller counts it as skipped."""
    if not valid.any():
        return None
    gt, pred = truth[valid].astype(np.float64), predicted[valid].astype(np.float64)
    error = pred - gt
    with np.errstate(divide="ignore"):
        ratio = np.maximum(pred / gt, gt / pred)
    return DepthScore(
        rmse=float(np.sqrt((error**2).mean())),
        arel=float((np.abs(error) / gt).mean()),
        delta1=float((ratio < DELTA).mean()),
        pixels=int(valid.sum()),
    )


def fit_scale_shift(predicted: Depth, target: Depth, valid: Valid) -> tuple[float, float]:
    """(s, t) that minimise the squared error of s * predicted + t on valid pixels."""
    pred, goal = predicted[valid].astype(np.float64), target[valid].astype(np.float64)
    design = np.stack([pred, np.ones_like(pred)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, goal, rcond=None)
    return float(scale), float(shift)
