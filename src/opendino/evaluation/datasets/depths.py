"""Depth sets: NYUv2 as published, and plain folders of images and 16-bit depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from opendino.data.listing import has_picture_ending
from opendino.errors import DataError
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.metrics.depth import NYU_RANGE_M, eigen_crop_nyu, valid_depth
from opendino.evaluation.protocol import Job

LAYOUT = (
    "NYUv2: {train,test}/SCENE/rgb_00000.jpg beside sync_depth_00000.png (16-bit, millimetres); "
    "or {train,val}/{images,depth}/ with 16-bit PNGs in millimetres"
)
NYU_SHAPE = (480, 640)
SIXTEEN_BIT = ("I;16", "I;16B", "I")


@dataclass(frozen=True)
class DepthPair:
    """A picture and its depth map of the same size; scene: what it shares with its neighbours."""

    id: str
    scene: str
    image: Path
    depth: Path


@dataclass(frozen=True)
class Depths:
    """train, val: pairs; crop: score NYU's middle alone; low_m, high_m: depths outside are not scored."""

    name: str
    split_hash: str
    train: Sequence[DepthPair]
    val: Sequence[DepthPair]
    crop: bool
    low_m: float
    high_m: float

    def words(self) -> str:
        """Pictures."""
        return f"{len(self.train):,} train and {len(self.val):,} val pictures, {self.low_m:g} to {self.high_m:g} m"

    def read(self, pair: DepthPair) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Depth [H, W] in metres, and which pixels are scored."""
        depth = read_depth_mm(pair.depth) / 1000.0
        valid = valid_depth(depth, self.low_m, self.high_m)
        return depth, valid & eigen_crop_nyu(NYU_SHAPE) if self.crop and depth.shape == NYU_SHAPE else valid


def read_depth_mm(path: Path) -> NDArray[np.float64]:
    """[H, W] stored values of a 16-bit map. Raises DataError for 8-bit ones: they hold no metres."""
    try:
        with PillowImage.open(path) as picture:
            if picture.mode not in SIXTEEN_BIT:
                raise DataError(path, f"is depth in mode {picture.mode}", "depth maps must be 16-bit grey PNGs")
            return np.asarray(picture).astype(np.float64)
    except (OSError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(path, f"cannot be read as depth ({type(error).__name__})") from None


def open_depths(job: Job) -> Depths:
    """Recognise the layout; `high_m` is a setting of plain folders. Raises DataError."""
    root = job.data
    if (root / "train" / "depth").is_dir():
        parts = [_plain(root / part) for part in ("train", "val")]
        name, crop, high_m = root.resolve().name, False, float(job.settings.get("high_m", NYU_RANGE_M[1]))
    else:
        parts = [_nyu(root / part) for part in ("train", "test")]
        name, crop, high_m = "nyuv2", True, NYU_RANGE_M[1]
    if not all(parts):
        raise DataError(root, "is no depth set that is known", f"expected: {LAYOUT}")
    if absent := [pair.depth for pairs in parts for pair in pairs if not pair.depth.is_file()]:
        raise DataError(absent[0], f"is missing, and {len(absent) - 1} more depth maps", f"expected: {LAYOUT}")
    train, val = (evenly(pairs, job.limit) for pairs in parts)
    digest = hash_ids([*(pair.id for pair in train), "|", *(pair.id for pair in val)])
    return Depths(name, digest, train, val, crop, NYU_RANGE_M[0], high_m)


def _nyu(part: Path) -> list[DepthPair]:
    pairs = []
    for picture in sorted(part.glob("*/rgb_*")):
        scene, number = picture.parent.name, picture.stem.removeprefix("rgb_")
        pairs.append(DepthPair(f"{scene}/{number}", scene, picture, picture.parent / f"sync_depth_{number}.png"))
    return pairs


def _plain(part: Path) -> list[DepthPair]:
    pictures = sorted(path for path in (part / "images").glob("*") if has_picture_ending(path.name.encode()))
    return [DepthPair(path.stem, path.stem, path, part / "depth" / f"{path.stem}.png") for path in pictures]
