"""J and F of DAVIS: how well a tracked mask covers its object, and how well its border fits.

Source: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675. Needs scipy (extra `eval`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendino.errors import DataError, ShapeError

Mask = NDArray[np.bool_]
BOUND = 0.008
"""Tolerance of the border, as a share of the picture's diagonal."""
VOID = 255


@dataclass(frozen=True)
class ObjectScore:
    """Of one object over the scored frames: j, f [frames] in [0, 1]."""

    j: NDArray[np.float64]
    f: NDArray[np.float64]

    @property
    def jf(self) -> float:
        """Mean of J and F, each averaged over frames."""
        return float(self.j.mean() + self.f.mean()) / 2


def region_similarity(truth: Mask, predicted: Mask) -> float:
    """J: intersection over union of two masks [H, W]; 1 when both are empty."""
    union = np.logical_or(truth, predicted).sum()
    return float(np.logical_and(truth, predicted).sum() / union) if union else 1.0


def boundary_f(truth: Mask, predicted: Mask) -> float:
    """F: harmonic mean of precision and recall of border pixels, matched within 0.8 % of the diagonal."""
    from scipy.ndimage import distance_transform_edt

    ours, theirs = boundary_map(predicted), boundary_map(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    radius = math.ceil(BOUND * math.hypot(*truth.shape))
    # To lie within a disk of a pixel set and to lie in its dilation by that disk are the same.
    precision = (distance_transform_edt(~theirs)[ours] <= radius).mean()
    recall = (distance_transform_edt(~ours)[theirs] <= radius).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary_map(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or diagonal neighbour; outside repeats the edge."""
    padded = np.pad(mask.astype(bool), ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])


def score_sequence(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> list[ObjectScore]:
    """Score every object of a video.

    Args:
        truth, predicted: [frames, H, W] object numbers, 0 background; 255 in the truth is background.
    Returns:
        One score an object of frame 0, in order of numbers. The first frame is given and the last one is left out by
        convention, so three frames are the least; objects that appear later are not scored.
    """
    if truth.shape != predicted.shape or len(truth) < 3:
        cause = f"truth {truth.shape} and prediction {predicted.shape} must agree and hold 3 frames or more"
        raise ShapeError("J&F", cause)
    truth = np.where(truth == VOID, 0, truth)
    count = int(truth[0].max())
    if count == 0:
        raise DataError("J&F", "the first frame's mask holds no object")
    inner = range(1, len(truth) - 1)
    scores = []
    for number in range(1, count + 1):
        pairs = [(truth[frame] == number, predicted[frame] == number) for frame in inner]
        j = np.array([region_similarity(*pair) for pair in pairs])
        f = np.array([boundary_f(*pair) for pair in pairs])
        scores.append(ObjectScore(j, f))
    return scores


def frame_recall(values: ArrayLike) -> float:
    """Share of frames above 0.5."""
    return float((np.asarray(values) > 0.5).mean())


def frame_decay(values: ArrayLike) -> float:
    """Mean of the first quarter minus that of the last; neighbouring quarters share their end frame."""
    frames = np.asarray(values, np.float64)
    # The official code keeps these indices in 8 bits, which wraps after 255 frames; here they do not.
    edges = np.round(np.linspace(1, len(frames), 5) + 1e-10).astype(int) - 1
    return float(frames[edges[0] : edges[1] + 1].mean() - frames[edges[3] : edges[4] + 1].mean())
