"""Tiles of a large picture on the patch grid, and their patch maps merged into one.

Tiles and steps are whole patches, so overlapping tiles share one grid and merging resamples nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.errors import UsageError

FLOOR = 0.05
"""Least weight of a patch at a tile's border, so that a patch seen by one tile alone keeps its features."""


@dataclass(frozen=True)
class Tiling:
    """Side of a tile and step to the next one, in patches."""

    tile: int
    step: int

    def __post_init__(self) -> None:
        if not 1 <= self.step <= self.tile:
            raise UsageError("tiling", f"step {self.step} must be from 1 to the tile's {self.tile} patches")

    @classmethod
    def from_pixels(cls, tile_px: int, overlap: float, patch: int) -> Tiling:
        """Both rounded to whole patches.

        Args:
            tile_px: side of a tile; overlap: share of it that the next tile covers again, 0 to below 1.
        """
        if tile_px < patch or not 0 <= overlap < 1:
            raise UsageError(
                f"tiles of {tile_px} px, overlap {overlap}", f"need at least {patch} px and 0 <= overlap < 1"
            )
        tile = max(1, round(tile_px / patch))
        return cls(tile, max(1, round(tile * (1 - overlap))))


@dataclass(frozen=True)
class Agreement:
    """Cosine between patches of merged tiles and of the same picture in one piece.

    mean: of all patches; worst: all but one patch in a hundred agree more. pictures: how many were compared.
    """

    mean: float
    worst: float
    pictures: int


def starts(length: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along a side: every patch is covered, the last tile is moved back to end with the side.

    A side no longer than a tile has one tile, as long as the side.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / step) + 1
    return [min(index * step, length - tile) for index in range(count)]


def weights(length: int) -> Tensor:
    """[length] raised cosine, largest in the middle of a tile, at least FLOOR."""
    places = (torch.arange(length, dtype=torch.float32) + 0.5) / length
    return (0.5 - 0.5 * torch.cos(2 * math.pi * places)).clamp(min=FLOOR)


def merge(rows: Iterable[tuple[int, list[tuple[int, Tensor]]]], height: int, width: int) -> Iterator[Tensor]:
    """Merge the patch maps of tiles into the map of the picture, handing out finished rows from the top.

    A patch is the weighted mean of what the tiles over it say. Memory: one row of tiles.

    Args:
        rows: of tiles from the top: (y, [(x, map [h, w, D])]), y and x the tile's first patch.
        height, width: of the picture in patches.
    Yields:
        [k, width, D] float32, together `height` rows.
    """
    total, mass, top = torch.empty(0), torch.empty(0), 0
    for y, tiles in rows:
        if total.numel() and y > top:
            yield total[: y - top] / mass[: y - top, :, None]
            total, mass = total[y - top :], mass[y - top :]
        top = y
        tall, _, dim = tiles[0][1].shape
        grown = tall - len(mass)
        if grown > 0:
            total = torch.cat([total.reshape(-1, width, dim), torch.zeros(grown, width, dim)])
            mass = torch.cat([mass.reshape(-1, width), torch.zeros(grown, width)])
        for x, patches in tiles:
            weight = weights(patches.shape[0])[:, None] * weights(patches.shape[1])
            total[:tall, x : x + patches.shape[1]] += weight[:, :, None] * patches
            mass[:tall, x : x + patches.shape[1]] += weight
    yield total[: height - top] / mass[: height - top, :, None]
