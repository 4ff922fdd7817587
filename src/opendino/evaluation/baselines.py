"""What one gets without learning: pixels, colour histograms, HOG. A trained network must beat these to mean anything.

HOG needs scikit-image (extra `demo`); it is Dalal and Triggs, CVPR 2005, with 8 x 8 px cells and 2 x 2 cell blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.sources import Source
from opendino.errors import ShapeError, UsageError

Pictures = NDArray[np.uint8]
"""[n, H, W, 3] uint8 RGB."""

CELL_PX = 8
ORIENTATIONS = 9
COLOUR_WEIGHT = 0.5
LUMA = np.array([0.299, 0.587, 0.114])
"""Grey as in ITU-R BT.601. The strongest channel per pixel instead scores within 2 points and costs half more."""


def read_pictures(source: Source, side_px: int) -> Pictures:
    """All pictures of a source, squeezed to side_px x side_px with antialias. Raises what the reader raises."""
    pictures = np.empty((len(source), side_px, side_px, 3), np.uint8)
    for index in range(len(source)):
        pictures[index] = resize(source.read(index).array[None], side_px)[0]
    return pictures


def resize(pictures: Pictures, side_px: int) -> Pictures:
    """Bilinear, antialiased, to squares; pictures of that size come back unchanged."""
    if pictures.shape[1:3] == (side_px, side_px):
        return pictures
    planes = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    small = F.interpolate(planes, size=(side_px, side_px), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).numpy()


def pixels(pictures: Pictures, side_px: int = 16) -> Tensor:
    """[n, side_px * side_px * 3] float32 in [0, 1]."""
    _check(pictures)
    return torch.from_numpy(resize(pictures, side_px)).flatten(1).float() / 255


def colour_histogram(pictures: Pictures, bins: int = 8) -> Tensor:
    """[n, bins^3] float32: square root of the share of pixels in each RGB cell, so every row has length 1."""
    _check(pictures)
    cells = pictures.reshape(len(pictures), -1, 3).astype(np.int64) * bins // 256
    flat = (cells[..., 0] * bins + cells[..., 1]) * bins + cells[..., 2]
    offset = np.arange(len(pictures))[:, None] * bins**3
    counts = np.bincount((flat + offset).ravel(), minlength=len(pictures) * bins**3)
    return torch.from_numpy(counts.reshape(len(pictures), -1) / flat.shape[1]).sqrt().float()


def hog(pictures: Pictures) -> Tensor:
    """[n, rows * columns * 36] float32: block-normalised gradient orientations, layout kept (1,764 numbers at 64 px).

    Raises:
        UsageError: scikit-image is not installed.
    """
    return _hog_blocks(pictures).flatten(1)


def hog_pooled(pictures: Pictures) -> Tensor:
    """[n, 36] float32: HOG averaged over all blocks, so only the texture is left."""
    return pool_hog(_hog_blocks(pictures))


def pool_hog(blocks: Tensor) -> Tensor:
    """Mean over block positions: [n, rows, columns, ...] or the flat form of `hog` -> [n, 36]."""
    return blocks.reshape(len(blocks), -1, 4 * ORIENTATIONS).mean(dim=1)


def hog_and_colour(pictures: Pictures) -> Tensor:
    """HOG of length 1 beside half-weighted colour: the strongest baseline on small natural pictures."""
    return join_hog_and_colour(hog(pictures), colour_histogram(pictures))


def join_hog_and_colour(hog_features: Tensor, colour: Tensor) -> Tensor:
    """[n, D1] and [n, D2] -> [n, D1 + D2]."""
    return torch.cat([F.normalize(hog_features, dim=1), COLOUR_WEIGHT * F.normalize(colour, dim=1)], dim=1)


BASELINES: Mapping[str, Callable[[Pictures], Tensor]] = {
    "pixels 16x16": pixels,
    "colour histogram": colour_histogram,
    "HOG": hog,
    "HOG pooled": hog_pooled,
    "HOG + 0.5 colour": hog_and_colour,
}
"""Name on the page -> features of pictures."""


def baseline_features(pictures: Pictures) -> dict[str, Tensor]:
    """Every row of BASELINES, with HOG computed once: it takes nearly all of the time (2 ms a picture of 64 px)."""
    colour, oriented = colour_histogram(pictures), hog(pictures)
    return {
        "pixels 16x16": pixels(pictures),
        "colour histogram": colour,
        "HOG": oriented,
        "HOG pooled": pool_hog(oriented),
        "HOG + 0.5 colour": join_hog_and_colour(oriented, colour),
    }


def _hog_blocks(pictures: Pictures) -> Tensor:
    _check(pictures)
    if min(pictures.shape[1:3]) < 2 * CELL_PX:
        raise ShapeError("HOG", f"needs pictures of at least {2 * CELL_PX} px, got {pictures.shape[1:3]}")
    feature = _skimage_feature()
    rows = [
        feature.hog(
            grey,
            orientations=ORIENTATIONS,
            pixels_per_cell=(CELL_PX, CELL_PX),
            cells_per_block=(2, 2),
            feature_vector=False,
        ).astype(np.float32)
        for grey in pictures @ LUMA
    ]
    return torch.from_numpy(np.stack(rows))


def _skimage_feature() -> ModuleType:
    try:
        import skimage.feature
    except ImportError:
        raise UsageError("HOG", "needs scikit-image", 'run: pip install "opendino[demo]"') from None
    module: ModuleType = skimage.feature
    return module


def _check(pictures: Pictures) -> None:
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8 or not len(pictures):
        raise ShapeError("baselines", f"need pictures [n, H, W, 3] uint8, got {pictures.dtype} {pictures.shape}")
