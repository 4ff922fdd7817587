"""EXIF orientation: turned once, here, for every decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image as PillowImage

from opendino.data.images.quiet import silence_decoders

ORIENTATION_TAG = 0x0112


def turn_upright(array: np.ndarray, exif: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """Turn [H, W, C] by the orientation in an EXIF block; a broken block means no turn and is noted."""
    if not exif:
        return array, {}
    try:
        silence_decoders()
        tags = PillowImage.Exif()
        tags.load(exif)
        orientation = tags.get(ORIENTATION_TAG, 1)
    except Exception:  # a broken tag block is no reason to lose the picture
        return array, {"exif": "broken"}
    return turn(array, orientation)


def turn(array: np.ndarray, orientation: object) -> tuple[np.ndarray, dict[str, Any]]:
    """Turn [H, W, C] by an orientation number; what is not 2 to 8 means no turn."""
    if not isinstance(orientation, int) or orientation not in range(2, 9):
        return array, {}
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array), {"orientation": int(orientation)}
