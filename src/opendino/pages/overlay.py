"""Objects painted over a picture: each in its colour, with its outline, the rest darker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLOURS = np.array(
    [(0, 0, 0), (255, 176, 0), (100, 143, 255), (220, 38, 127), (0, 158, 115), (254, 97, 0), (120, 94, 240)], np.uint8
)
"""Of object 1 and so on, told apart by colour-blind people too; after the sixth they begin again."""


def colours_of(numbers: NDArray[np.integer]) -> NDArray[np.uint8]:
    """[...] object numbers from 1 on -> [..., 3] RGB; 0 is black."""
    wrapped = np.where(numbers > 0, (numbers - 1) % (len(COLOURS) - 1) + 1, 0)
    painted: NDArray[np.uint8] = COLOURS[wrapped]
    return painted


def overlay(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] RGB and [H, W] object numbers -> [H, W, 3]: objects tinted by half and outlined, the rest at 60 %."""
    colours = colours_of(mask)
    inside = (mask > 0)[..., None]
    tinted = np.where(inside, picture // 2 + colours // 2, (picture * 0.6).astype(np.uint8))
    edge = np.zeros(mask.shape, bool)
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    return np.where((edge & (mask > 0))[..., None], colours, tinted).astype(np.uint8)
