"""Embedded colour profiles (ICC): to sRGB, once, for every decoder."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageCms

# Real profiles have some kB, printer tables up to 2 MB; a larger one is an attack or damage.
MAX_PROFILE_BYTES = 2**23
_SPACES = {"RGB ": ("RGB",), "GRAY": ("L",), "CMYK": ("CMYK",)}


def to_srgb(image: PillowImage.Image, profile: bytes) -> tuple[PillowImage.Image, dict[str, Any]]:
    """An RGB, L or CMYK picture in sRGB by its profile, and what was done.

    A profile that is sRGB already changes nothing; one that is broken, or of another kind than the pixels, is passed
    over and noted.
    """
    if not profile:
        return image, {}
    words, transform = _transform(profile, image.mode)
    if transform is None:
        return image, {"icc": words}
    return ImageCms.applyTransform(image, transform) or image, {"icc": words}


def array_to_srgb(array: np.ndarray, grey: bool, profile: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """`to_srgb` for RGB uint8 [H, W, 3] pixels; `grey` when the file holds one channel."""
    words, transform = _transform(profile, "L" if grey else "RGB") if profile else ("", None)
    if transform is None:
        return array, {"icc": words} if words else {}
    image = PillowImage.fromarray(np.ascontiguousarray(array[:, :, 0]) if grey else array)
    return np.array(ImageCms.applyTransform(image, transform)), {"icc": words}


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, Any]:
    try:
        if len(profile) > MAX_PROFILE_BYTES:
            return "broken", None
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode not in _SPACES.get(source.profile.xcolor_space, ()):
            return "not of these pixels", None
        if mode == "RGB" and "srgb" in (source.profile.profile_description or "").lower():
            return "sRGB", None
        target = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        return "to sRGB", ImageCms.buildTransform(source, target, mode, "RGB", renderingIntent=intent)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return "broken", None
