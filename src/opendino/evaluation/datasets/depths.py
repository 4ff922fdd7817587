"""Depth sets: NYUv2 and KITTI's Eigen split as published, and plain folders of images and 16-bit depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from opendino.data import images
from opendino.data.beside import read_declared
from opendino.data.listing import has_picture_ending
from opendino.errors import DataError
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.metrics.depth import (
    KITTI_RANGE_M,
    NYU_RANGE_M,
    eigen_crop_nyu,
    garg_crop,
    kb_crop,
    valid_depth,
)
from opendino.evaluation.protocol import Job

LAYOUT = (
    "NYUv2: {train,test}/SCENE/rgb_00000.jpg beside sync_depth_00000.png (16-bit, millimetres); "
    "KITTI: eigen_{train,test}_files_with_gt.txt, a line a picture: its path, its truth or None, focal length; "
    "or {train,val}/{images,depth}/ with 16-bit PNGs in millimetres"
)
NYU_SHAPE = (480, 640)
KITTI_LIST = "eigen_{}_files_with_gt.txt"
KITTI_SHAPE = (352, 1216)
"""Of what a frame is cut to; smaller frames are none of KITTI's."""
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
    """train, val: pairs; low_m, high_m: depths outside are not scored.

    rule: "nyu" scores the middle alone; "kitti" cuts picture and truth to their lower middle, scores where Garg et al.
    did, and reads truth in 256ths of a metre; all others hold millimetres.
    """

    name: str
    split_hash: str
    train: Sequence[DepthPair]
    val: Sequence[DepthPair]
    rule: Literal["whole", "nyu", "kitti"]
    low_m: float
    high_m: float

    @property
    def split(self) -> str:
        """The part that is scored, by its published name."""
        return "val" if self.rule == "whole" else "test"

    def words(self) -> str:
        """Pictures."""
        return f"{len(self.train):,} train and {len(self.val):,} val pictures, {self.low_m:g} to {self.high_m:g} m"

    def picture(self, pair: DepthPair) -> images.Image:
        """What the model is shown. Raises DataError."""
        picture = read_declared(pair.image)
        return replace(picture, array=_kitti_cut(pair, picture.array)) if self.rule == "kitti" else picture

    def read(self, pair: DepthPair) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Depth [H, W] in metres, and which pixels are scored."""
        stored = read_depth_16(pair.depth)
        if self.rule == "kitti":
            depth = _kitti_cut(pair, stored) / 256.0
            return depth, valid_depth(depth, self.low_m, self.high_m) & garg_crop()
        depth = stored / 1000.0
        valid = valid_depth(depth, self.low_m, self.high_m)
        return depth, valid & eigen_crop_nyu(NYU_SHAPE) if self.rule == "nyu" and depth.shape == NYU_SHAPE else valid


def _kitti_cut(pair: DepthPair, array: NDArray[Any]) -> NDArray[Any]:
    if array.shape[0] < KITTI_SHAPE[0] or array.shape[1] < KITTI_SHAPE[1]:
        found = f"is {array.shape[1]} x {array.shape[0]} px, frames of KITTI have 1216 x 352 at least"
        raise DataError(pair.id, found, "give the pictures as published")
    return np.ascontiguousarray(kb_crop(array))


def read_depth_16(path: Path) -> NDArray[np.float64]:
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
    rule: Literal["whole", "nyu", "kitti"]
    if (root / "train" / "depth").is_dir():
        parts = [_plain(root / part) for part in ("train", "val")]
        name, rule, high_m = root.resolve().name, "whole", float(job.settings.get("high_m", NYU_RANGE_M[1]))
    elif (root / KITTI_LIST.format("test")).is_file():
        parts = [_kitti(root, part) for part in ("train", "test")]
        name, rule, high_m = "kitti", "kitti", KITTI_RANGE_M[1]
    else:
        parts = [_nyu(root / part) for part in ("train", "test")]
        name, rule, high_m = "nyuv2", "nyu", NYU_RANGE_M[1]
    if not all(parts):
        raise DataError(root, "is no depth set that is known", f"expected: {LAYOUT}")
    if absent := [pair.depth for pairs in parts for pair in pairs if not pair.depth.is_file()]:
        raise DataError(absent[0], f"is missing, and {len(absent) - 1} more depth maps", f"expected: {LAYOUT}")
    train, val = (evenly(pairs, job.limit) for pairs in parts)
    digest = hash_ids([*(pair.id for pair in train), "|", *(pair.id for pair in val)])
    return Depths(name, digest, train, val, rule, NYU_RANGE_M[0], high_m)


def _nyu(part: Path) -> list[DepthPair]:
    pairs = []
    for picture in sorted(part.glob("*/rgb_*")):
        scene, number = picture.parent.name, picture.stem.removeprefix("rgb_")
        pairs.append(DepthPair(f"{scene}/{number}", scene, picture, picture.parent / f"sync_depth_{number}.png"))
    return pairs


def _kitti(root: Path, part: str) -> list[DepthPair]:
    """Pairs of a split list; frames without truth ("None": 45 of the 697 of test) are left out, as published."""
    listing = root / KITTI_LIST.format(part)
    if not listing.is_file():
        raise DataError(listing, "is missing", f"expected: {LAYOUT}")
    pairs = []
    for number, line in enumerate(listing.read_text().splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 2:
            raise DataError(listing, f"line {number} names no truth", "a line: picture, truth or None, focal length")
        picture, truth = fields[:2]
        if truth != "None":
            drive, frame = Path(picture).parts[1], Path(picture).stem
            pairs.append(DepthPair(f"{drive}/{frame}", drive, root / picture, root / truth))
    return pairs


def _plain(part: Path) -> list[DepthPair]:
    pictures = sorted(path for path in (part / "images").glob("*") if has_picture_ending(path.name.encode()))
    return [DepthPair(path.stem, path.stem, path, part / "depth" / f"{path.stem}.png") for path in pictures]
