"""Similarity maps: how much one chosen patch is like every other, in its own picture and in others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from opendino.errors import UsageError
from opendino.pages.sheet import cell_width, enlarge, picture_sheet

SCALE = np.array(
    [
        [13, 8, 50],
        [66, 16, 104],
        [120, 28, 109],
        [172, 46, 90],
        [219, 80, 59],
        [247, 135, 30],
        [250, 194, 61],
        [252, 253, 191],
    ],
    dtype=np.float32,
)
"""Dark to bright, rising evenly in lightness, so that it also reads in grey and for colour-blind eyes."""


def similarity_maps(pictures: Sequence[Tensor], point: tuple[int, int] | None = None, chosen: int = 0) -> list[Tensor]:
    """Cosine similarity of one patch to all patches.

    Args:
        pictures: patches of each picture, [h, w, D]; grids may differ.
        point: (y, x) of the patch in the grid of picture `chosen`; its middle by default.
    Returns:
        One [h, w] float32 map in [-1, 1] a picture, on the CPU.
    Raises:
        UsageError: the point lies outside the grid.
    """
    height, width = pictures[chosen].shape[:2]
    y, x = point if point is not None else (height // 2, width // 2)
    if not (0 <= y < height and 0 <= x < width):
        raise UsageError(f"point {y},{x}", f"outside the {height} x {width} grid of patches", "it counts from 0,0")
    anchor = F.normalize(pictures[chosen][y, x].detach().float().cpu(), dim=-1)
    return [F.normalize(picture.detach().float().cpu(), dim=-1) @ anchor for picture in pictures]


def paint(values: Tensor, low: float, high: float) -> np.ndarray:
    """[h, w] values as uint8 [h, w, 3]: `low` and below darkest, `high` and above brightest."""
    share = ((values.detach().float().cpu() - low) / max(high - low, 1e-9)).clamp(0, 1).nan_to_num().numpy()
    position = share * (len(SCALE) - 1)
    below = np.minimum(position.astype(int), len(SCALE) - 2)
    rest = (position - below)[..., None]
    return np.rint(SCALE[below] * (1 - rest) + SCALE[below + 1] * rest).astype(np.uint8)


def similarity_sheet(
    photos: Sequence[np.ndarray], maps: Sequence[Tensor], point: tuple[int, int], chosen: int = 0, cell_px: int = 320
) -> Image.Image:
    """Photos with the chosen point marked, and the maps below on one colour scale for all.

    The scale runs from the lowest similarity (not under 0) to the highest but for the point itself, which is always 1.
    """
    height, width = maps[chosen].shape
    y, x = (point[0] + 0.5) / height, (point[1] + 0.5) / width
    low = max(0.0, min(float(one.min()) for one in maps))
    painted = [paint(one, low, 1.0) for one in maps]
    cells = [
        [np.asarray(enlarge(one, cell_px, cell_width(photo, cell_px))) for one, photo in zip(line, photos, strict=True)]
        for line in (photos, painted)
    ]
    for line in cells:
        line[chosen] = mark(line[chosen], y, x)
    return picture_sheet(cells[0], {f"cosine {low:.2f} to 1": cells[1]}, cell_px=cell_px)


def mark(picture: np.ndarray, y: float, x: float) -> np.ndarray:
    """A ring at (y, x), given as shares of height and width, that shows on any ground."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    cx, cy, radius = x * image.width, y * image.height, max(5, image.height // 40)
    for color, size, line in (("black", radius + 1, 5), ("white", radius, 3)):
        draw.ellipse((cx - size, cy - size, cx + size, cy + size), outline=color, width=line)
    return np.asarray(image)
