"""Boxes as a patch tells them: how far away the middle is, and how large the object, both in patches."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_LOG_PATCHES = 8.0
"""Of a decoded side: a head that has not learned yet must not give infinite boxes."""


def patch_centres(height: int, width: int) -> Tensor:
    """[height * width, 2]: x and y of the middle of every patch, in patches, row by row."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def encode_boxes(boxes: Tensor, centres: Tensor) -> Tensor:
    """[n, 4] xyxy in patches, [n, 2] -> [n, 4]: offset of the box's middle from the centre, log of width and height."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2 - centres, (high - low).log()], 1)


def decode_boxes(codes: Tensor, centres: Tensor) -> Tensor:
    """[n, 4] xyxy in patches, the inverse of `encode_boxes`."""
    middle, half = codes[:, :2] + centres, codes[:, 2:].clamp(max=MOST_LOG_PATCHES).exp() / 2
    return torch.cat([middle - half, middle + half], 1)
