"""Boxes: overlap, and CorLoc, the share of images in which the one box that was found fits any true one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

HIT_IOU = 0.5


def box_iou(box: ArrayLike, boxes: ArrayLike) -> NDArray[np.float64]:
    """Overlap of one box with n boxes, xyxy in pixels with exclusive ends, [n] in [0, 1]."""
    one, many = np.asarray(box, np.float64), np.asarray(boxes, np.float64).reshape(-1, 4)
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    inter = np.clip(high - low, 0, None).prod(1)
    union = (one[2:] - one[:2]).prod() + (many[:, 2:] - many[:, :2]).prod(1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def is_localised(box: ArrayLike, boxes: ArrayLike) -> bool:
    """A hit of CorLoc: overlap of 0.5 or more with any true box (TokenCut's code; its paper says more than 0.5)."""
    return bool((box_iou(box, boxes) >= HIT_IOU).any())
