"""Stereo pairs with disparity: Middlebury's scenes of 2014 (PFM) and of 2003 (PNG), as published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from opendino.data import images
from opendino.data.beside import read_declared
from opendino.errors import DataError
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job

LAYOUT = (
    "Middlebury: SCENE/{im0.png,im1.png,disp0.pfm,disp1.pfm}, or of 2003 SCENE/{im2.png,im6.png,disp2.png,disp6.png}; "
    "or one such scene"
)
EXPECTED = f"expected: {LAYOUT}"
KINDS = (("im0.png", "im1.png", "disp0.pfm", "disp1.pfm"), ("im2.png", "im6.png", "disp2.png", "disp6.png"))
MAX_SIDE = 1 << 15


@dataclass(frozen=True)
class Scene:
    """Two rectified pictures and the disparity of the left one; back: that of the right one, None where there is none.

    scale: stored values a pixel of disparity.
    """

    id: str
    left: Path
    right: Path
    disparity: Path
    back: Path | None
    scale: float

    def read(self) -> tuple[images.Image, images.Image, NDArray[np.float64], NDArray[np.bool_]]:
        """Left, right, disparity [H, W] in pixels, and which pixels of the left are known and seen by the right too.

        Left pixel (x, y) is (x - d, y) of the right. Raises DataError.
        """
        left, right = read_declared(self.left), read_declared(self.right)
        disparity = read_disparity(self.disparity, self.scale)
        if not left.array.shape == right.array.shape == (*disparity.shape, 3):
            raise DataError(self.id, "pictures and disparity differ in size", "give the scene as published")
        back = None if self.back is None else read_disparity(self.back, self.scale)
        return left, right, disparity, seen_by_both(disparity, back)


@dataclass(frozen=True)
class Stereo:
    """Scenes in order of names."""

    name: str
    split_hash: str
    scenes: Sequence[Scene]
    split = "all"

    def words(self) -> str:
        """Scenes."""
        return f"{len(self.scenes):,} scenes"


def open_stereo(job: Job) -> Stereo:
    """Settings: `scale`, stored values a pixel in PNGs (4 at quarter size, 2 at half size). Raises DataError."""
    folders = [job.data, *sorted(path for path in job.data.iterdir() if path.is_dir())]
    scenes = []
    for folder in folders:
        for left, right, disparity, back in KINDS:
            if (folder / disparity).is_file():
                if absent := [name for name in (left, right) if not (folder / name).is_file()]:
                    raise DataError(folder / absent[0], "is missing", EXPECTED)
                scale = 1.0 if disparity.endswith(".pfm") else float(job.settings["scale"])
                other = folder / back if (folder / back).is_file() else None
                name = folder.resolve().name
                scenes.append(Scene(name, folder / left, folder / right, folder / disparity, other, scale))
                break
    if not scenes:
        raise DataError(job.data, "holds no stereo scene", EXPECTED)
    scenes = evenly(scenes, job.limit)
    return Stereo(job.data.resolve().name, hash_ids([scene.id for scene in scenes]), scenes)


def seen_by_both(disparity: NDArray[np.float64], back: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    """[H, W]: known, inside the right picture and, where its disparity is known too, the same there within a pixel."""
    height, width = disparity.shape
    known = np.isfinite(disparity) & (disparity > 0)
    there = np.round(np.arange(width)[None] - np.where(known, disparity, 0)).astype(np.int64)
    known &= there >= 0
    if back is None:
        return known
    answer = back[np.arange(height)[:, None], there.clip(0, width - 1)]
    return known & np.isfinite(answer) & (np.abs(np.where(known, disparity, 0) - answer) <= 1)


def read_disparity(path: Path, scale: float) -> NDArray[np.float64]:
    """[H, W] pixels; infinite or 0 where it is not known. Raises DataError."""
    if path.suffix == ".pfm":
        return read_pfm(path) / scale
    try:
        with PillowImage.open(path) as picture:
            if picture.mode not in ("L", "I;16", "I"):
                raise DataError(path, f"is disparity in mode {picture.mode}", "it must be a grey PNG")
            return np.asarray(picture).astype(np.float64) / scale
    except (OSError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(path, f"cannot be read as disparity ({type(error).__name__})") from None


def read_pfm(path: Path) -> NDArray[np.float64]:
    """[H, W] of a grey portable float map: three lines of text, then float32 rows from the bottom up."""
    with open(path, "rb") as file:
        try:
            kind, size, order = (file.readline(64).strip() for _ in range(3))
            width, height = map(int, size.split())
            factor = float(order)
            if kind != b"Pf" or not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or not math.isfinite(factor):
                raise ValueError
            values = np.frombuffer(file.read(4 * width * height), "<f4" if factor < 0 else ">f4")
            return values.reshape(height, width)[::-1].astype(np.float64)
        except ValueError:
            raise DataError(path, "is no grey PFM map") from None
