"""A few of the pictures that were scored, with the truth and what was found drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageOps

from opendino.pages.overlay import class_colour, classes, overlay
from opendino.pages.sheet import as_rgb
from opendino.pages.similarity import paint

MOST = 6
"""Pictures of a protocol that are drawn."""
SIDE_PX, NEAREST_PX = 260, 78
TRUE, FOUND = (64, 220, 64), (255, 64, 64)

RGB = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """truth, found: small [h, w, 3] drawings of one scored picture; says: how it went, in a few words."""

    id: str
    truth: RGB
    found: RGB
    says: str = ""


def of_boxes(
    name: str, picture: RGB, boxes: NDArray[np.float64], box: Sequence[float], mask: NDArray[np.bool_], says: str
) -> Example:
    """True boxes [n, 4] in green beside the found box in red over the found part [H, W]; xyxy in pixels."""
    found = overlay(as_rgb(picture), mask.astype(np.uint8))
    return Example(name, _boxed(picture, boxes, [TRUE] * len(boxes)), _boxed(found, [box], [FOUND]), says)


def of_detections(
    name: str,
    picture: RGB,
    truth: tuple[NDArray[np.float64], NDArray[np.integer]],
    found: tuple[NDArray[np.float64], NDArray[np.integer]],
    says: str,
) -> Example:
    """True boxes [n, 4] of classes [n] beside those that were found, in the colours of classes; xyxy in pixels."""
    true, drawn = (_boxed(picture, boxes, [_rgb(one) for one in numbers.tolist()]) for boxes, numbers in (truth, found))
    return Example(name, true, drawn, says)


def of_classes(name: str, picture: RGB, truth: NDArray[np.uint8], found: NDArray[np.integer], says: str) -> Example:
    """Class numbers [H, W] of the mask's size over a picture of any size; 255 in the truth is no class."""
    fitted = _resized(picture, *truth.shape)
    return Example(name, _small(classes(fitted, truth)), _small(classes(fitted, found.astype(np.uint8))), says)


def of_objects(name: str, frame: RGB, truth: NDArray[np.uint8], found: NDArray[np.uint8], says: str) -> Example:
    """Object numbers [H, W] over a frame; 0 is background."""
    fitted = _resized(frame, *truth.shape)
    return Example(name, _small(overlay(fitted, truth)), _small(overlay(fitted, found)), says)


def of_depth(
    name: str, truth_m: NDArray[np.floating], valid: NDArray[np.bool_], found_m: NDArray[np.floating], says: str
) -> Example:
    """Two depth maps [H, W] in metres on one scale, that of the valid truth; what is not valid is black in it."""
    low, high = np.quantile(truth_m[valid], (0.02, 0.98))
    painted = [paint(torch.from_numpy(np.asarray(one, np.float32)), low, high) for one in (truth_m, found_m)]
    return Example(name, _small(np.where(valid[..., None], painted[0], 0).astype(np.uint8)), _small(painted[1]), says)


def of_neighbours(name: str, query: RGB, nearest: Sequence[tuple[RGB, bool]], says: str) -> Example:
    """A query beside its nearest pictures from left to right, those that are right framed green, others red."""
    strip = Image.new("RGB", (len(nearest) * NEAREST_PX, NEAREST_PX), "white")
    for place, (picture, right) in enumerate(nearest):
        square = ImageOps.fit(Image.fromarray(as_rgb(picture)), (NEAREST_PX - 10,) * 2)
        framed = ImageOps.expand(square, 3, TRUE if right else FOUND)
        strip.paste(framed, (place * NEAREST_PX + 2, 2))
    return Example(name, _small(query, 2 * NEAREST_PX), np.asarray(strip), says)


def _boxed(picture: RGB, boxes: ArrayLike, colours: Sequence[tuple[int, int, int]]) -> RGB:
    small = Image.fromarray(_small(picture))
    scale = small.width / picture.shape[1]
    pen = ImageDraw.Draw(small)
    scaled = np.asarray(boxes, np.float64).reshape(-1, 4) * scale
    for (left, top, right, bottom), colour in zip(scaled, colours, strict=True):
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    return np.asarray(small)


def _rgb(number: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(class_colour(number)[1:])
    return red, green, blue


def _small(picture: RGB, side_px: int = SIDE_PX) -> RGB:
    """With so many pixels at most on its long side."""
    small = Image.fromarray(np.ascontiguousarray(as_rgb(picture)))
    small.thumbnail((side_px, side_px))
    return np.asarray(small)


def _resized(picture: RGB, height: int, width: int) -> RGB:
    return np.asarray(Image.fromarray(as_rgb(picture)).resize((width, height), Image.Resampling.BILINEAR))
