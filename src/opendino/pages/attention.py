"""Attention maps: where the CLS token of a block looks, for each head and on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opendino.errors import UsageError
from opendino.pages.sheet import cell_width, enlarge, picture_sheet
from opendino.pages.similarity import paint

BRIGHTEST = 0.99
"""Quantile of a map drawn brightest: single patches often take most of the attention and would leave the rest dark."""


@torch.no_grad()
def attention_maps(model: Any, image: Tensor, layer: int = -1) -> Tensor:
    """CLS-to-patch attention of one picture.

    Args:
        model: a backbone of the contract.
        image: [3, H, W] normalised, on the model's device.
        layer: 0-based block; negative counts from the last.
    Returns:
        [heads, h, w] float32 on the CPU; each head's sum is at most 1, the rest goes to CLS and registers.
    Raises:
        UsageError: no such layer, or a model without attention (a convolutional network).
    """
    count = model.num_layers
    if not -count <= layer < count:
        raise UsageError(
            f"--layer {layer}", f"the model has {count} layers", f"give 0 to {count - 1}, or -1 for the last"
        )
    maps: Tensor = model.attention(image[None], layer % count)[0]
    return maps.float().cpu()


def attention_sheet(photos: Sequence[np.ndarray], maps: Sequence[Tensor], cell_px: int = 240) -> Image.Image:
    """One column a photo: the photo, the mean over heads laid over it, then each head.

    Args:
        photos: uint8 [H, W, 3].
        maps: [heads, h, w] each, of the same number of heads.
    """
    rows: dict[str, list[np.ndarray]] = {
        "mean": [_overlay(photo, one.mean(0), cell_px) for photo, one in zip(photos, maps, strict=True)]
    }
    for head in range(len(maps[0])):
        rows[f"head {head}"] = [_painted(one[head]) for one in maps]
    return picture_sheet(photos, rows, photo_label="photo", cell_px=cell_px)


def _painted(one: Tensor) -> np.ndarray:
    return paint(one, 0.0, float(one.flatten().quantile(BRIGHTEST)))


def _overlay(photo: np.ndarray, one: Tensor, cell_px: int) -> np.ndarray:
    """The photo in grey, dark where nothing is looked at, with the map's colours on it."""
    width = cell_width(photo, cell_px)
    shade = np.asarray(enlarge(photo, cell_px, width).convert("L"), dtype=np.float32)[..., None]
    color = np.asarray(enlarge(_painted(one), cell_px, width), dtype=np.float32)
    return (0.45 * shade + 0.6 * color).clip(0, 255).astype(np.uint8)
