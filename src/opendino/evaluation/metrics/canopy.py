"""Canopy height: block R2 of high-resolution maps and the scores of Open-Canopy. Heights in metres."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_PX = 50
TREE_M = 2.0


def r2(truth: ArrayLike, predicted: ArrayLike) -> float:
    """1 - residual over total variance about the mean of the truth; not symmetric in its arguments."""
    real, guess = np.asarray(truth, np.float64).ravel(), np.asarray(predicted, np.float64).ravel()
    return float(1 - ((real - guess) ** 2).sum() / ((real - real.mean()) ** 2).sum())


def block_means(height: NDArray[np.floating], block_px: int = BLOCK_PX) -> NDArray[np.float64]:
    """[H, W] -> means over whole blocks; what is left at right and bottom is dropped."""
    rows, columns = (side // block_px for side in height.shape)
    cut = np.asarray(height[: rows * block_px, : columns * block_px], np.float64)
    return cut.reshape(rows, block_px, columns, block_px).mean(axis=(1, 3))


def block_r2(
    pairs: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]], block_px: int = BLOCK_PX, border_px: int = 3
) -> float:
    """R2 of block means over a whole set of (truth, predicted) maps.

    The first `border_px` rows and columns are dropped and negative predictions raised to 0, as in HighResCanopyHeight.
    """
    means = [
        (
            block_means(real[border_px:, border_px:], block_px),
            block_means(guess[border_px:, border_px:].clip(0), block_px),
        )
        for real, guess in pairs
    ]
    return r2(
        np.concatenate([real.ravel() for real, _ in means]), np.concatenate([guess.ravel() for _, guess in means])
    )


def mean_absolute_error(truth: ArrayLike, predicted: ArrayLike) -> float:
    """MAE in metres."""
    return float(np.abs(np.asarray(truth, np.float64) - np.asarray(predicted, np.float64)).mean())


def relative_error(truth: ArrayLike, predicted: ArrayLike) -> float:
    """nMAE: mean of |error| / (1 + truth) where the truth is at least 2 m."""
    real, guess = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    trees = real >= TREE_M
    return float((np.abs(real - guess) / (1 + real))[trees].mean())


def cover_iou(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Overlap of the areas of at least 2 m. (Open-Canopy's code adds 1 to the union.)"""
    real, guess = np.asarray(truth) >= TREE_M, np.asarray(predicted) >= TREE_M
    return float((real & guess).sum() / (real | guess).sum())
