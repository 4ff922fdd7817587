"""Inputs and maps of dense protocols: whole pictures at a number of patches, padding, maps to native size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from opendino.data import images
from opendino.errors import DataError
from opendino.evaluation.protocol import Subject


def whole_input(subject: Subject, picture: images.Image, rows: int) -> Tensor:
    """[3, H, W] of the whole picture: `rows` patches on the short side, the nearest number on the long one.

    Stated in patches, as the paper compares models: 30 rows are 480 px at patch 16 and 420 px at patch 14.
    """
    patch = subject.model.patch
    return replace(subject.transform, mode="whole", size=rows * patch, patch=patch).apply(picture)


def native_input(subject: Subject, picture: images.Image) -> Tensor:
    """[3, H, W] at full resolution, normalised; zeros then fill right and bottom up to whole patches."""
    pixels = torch.from_numpy(picture.array).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (subject.transform.mean, subject.transform.std))
    height, width = picture.array.shape[:2]
    patch = subject.model.patch
    return F.pad((pixels - mean) / std, (0, -width % patch, 0, -height % patch))


def patch_map(subject: Subject, image: Tensor, layer: int = -1, *, norm: bool = True) -> Tensor:
    """[h, w, D] float32 on the CPU: patches of one input [3, H, W] after a layer, -1 for the last.

    norm: after the final norm, too; without it they are as the layer leaves them.
    """
    with torch.no_grad():
        batch = image[None].to(subject.device)
        if layer == -1 and norm:
            features = subject.model(batch)
        else:
            (features,) = subject.model.intermediate(batch, [layer % subject.model.num_layers], norm=norm)
    patches: Tensor = features.patches[0].float().cpu()
    return patches


def to_native(maps: Tensor, height: int, width: int) -> Tensor:
    """[C, h, w] -> [C, height, width], bilinear: predictions go to the labels' size, never the other way."""
    return F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]


def argmax(maps: Tensor) -> NDArray[np.int64]:
    """[C, H, W] -> [H, W]; the lowest index of equals, which torch does not promise."""
    return maps.numpy().argmax(axis=0)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """[H, W] label numbers of a palette or grey PNG, as stored: never through RGB.

    Raises:
        DataError: not readable, or a colour picture.
    """
    try:
        with PillowImage.open(path) as picture:
            if picture.mode not in ("P", "L", "1"):
                raise DataError(path, f"is a mask in mode {picture.mode}", "label masks must be palette or 8-bit grey")
            return np.asarray(picture).astype(np.uint8)
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (OSError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(path, f"cannot be read as a mask ({type(error).__name__})") from None


def slide_starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows of `crop` begin along a side: at every stride, the last one pulled back to end with the side."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - crop), 0) for index in range(count)]
