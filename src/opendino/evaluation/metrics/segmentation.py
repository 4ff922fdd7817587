"""Mean intersection over union: one pool of pixels over the whole set, as ADE20K, Cityscapes and VOC score it.

An image gives three counts a class; sums of them score any set of images, so intervals need no second pass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from opendino.errors import DataError, ShapeError

Labels = NDArray[np.integer]
Counts = NDArray[np.int64]
"""[..., 3, C]: pixels where both say the class, where the truth does, where the prediction does."""


def class_counts(truth: Labels, predicted: Labels, num_classes: int, ignore: int | None = 255) -> Counts:
    """Counts [3, C] of one image. Pixels are dropped where the *truth* says `ignore`, whatever was predicted.

    Raises:
        ShapeError: sizes differ. DataError: a label outside [0, num_classes) that is not `ignore`.
    """
    if truth.shape != predicted.shape:
        raise ShapeError("mIoU", f"truth {truth.shape} and prediction {predicted.shape} differ in size")
    kept = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    truth, predicted = truth[kept].astype(np.int64), predicted[kept].astype(np.int64)
    for name, labels in (("truth", truth), ("prediction", predicted)):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            cause = f"holds labels {labels.min()} to {labels.max()}, allowed are 0 to {num_classes - 1} and {ignore}"
            raise DataError(name, cause, "check the classes and the ignored label")
    both = np.bincount(truth[truth == predicted], minlength=num_classes)
    sides = (np.bincount(labels, minlength=num_classes) for labels in (truth, predicted))
    return np.stack([both, *sides])


def class_iou(counts: Counts) -> NDArray[np.float64]:
    """Intersection over union [..., C] in [0, 1]; NaN for a class that is in neither truth nor prediction."""
    both, truth, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    union = truth + predicted - both
    return np.divide(both, union, out=np.full_like(both, np.nan), where=union > 0)


def mean_iou(counts: Counts) -> NDArray[np.float64]:
    """Mean over the classes that occur, [...] in [0, 1]; NaN when none does."""
    return _mean_of_known(class_iou(counts))


def mean_accuracy(counts: Counts) -> NDArray[np.float64]:
    """Mean over classes in the truth of the share of their pixels that are right (mAcc)."""
    both, truth, _ = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    return _mean_of_known(np.divide(both, truth, out=np.full_like(both, np.nan), where=truth > 0))


def pixel_accuracy(counts: Counts) -> NDArray[np.float64]:
    """Share of all scored pixels that are right (aAcc)."""
    both, truth, _ = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    total = truth.sum(-1)
    return np.divide(both.sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0).sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
