"""Out-of-distribution scores of a 1000-way classifier: mCE, ReaL, and classes that several outputs may name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from opendino.errors import DataError

ALEXNET_ERROR: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Mean error of AlexNet over the five severities of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261)."""


def mean_corruption_error(errors: Mapping[str, Sequence[float]]) -> float:
    """mCE in percent, low is good: mean over the 15 corruptions of error / AlexNet's error.

    Args:
        errors: corruption -> error in [0, 1] of each severity. The four "extra" corruptions are left out.
    Raises:
        DataError: a corruption is missing: a mean over fewer is another number.
    """
    if missing := [name for name in ALEXNET_ERROR if name not in errors]:
        raise DataError("mCE", f"needs all 15 corruptions, missing: {', '.join(missing)}")
    ratios = [float(np.mean(errors[name])) / reference for name, reference in ALEXNET_ERROR.items()]
    return 100 * float(np.mean(ratios))


def real_correct(predictions: NDArray[np.int64], allowed: Sequence[Collection[int]]) -> NDArray[np.bool_]:
    """ReaL: right if the prediction is among the image's labels; images without labels are dropped from the answer."""
    pairs = zip(predictions.tolist(), allowed, strict=True)
    return np.array([guess in labels for guess, labels in pairs if len(labels)], dtype=bool)


def mapped_correct(
    logits: NDArray[np.floating], mapping: Sequence[Collection[int]], objects: NDArray[np.int64], *, masked: bool
) -> NDArray[np.bool_]:
    """ObjectNet: right if the best output belongs to the image's object.

    Args:
        logits: [n, C]. mapping: for each object the outputs that name it. objects: [n].
        masked: look only at outputs that name some object; else an output that names none is wrong.
    """
    scores = np.array(logits, np.float64)
    if masked:
        unmapped = np.ones(scores.shape[1], bool)
        unmapped[sorted({output for outputs in mapping for output in outputs})] = False
        scores[:, unmapped] = -np.inf
    best = scores.argmax(axis=1)
    return np.array([guess in mapping[item] for guess, item in zip(best.tolist(), objects.tolist(), strict=True)])
