"""Objects and classes painted over a picture: each in its colour; objects with their outline, the rest darker."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

COLOURS = np.array(
    [(0, 0, 0), (255, 176, 0), (100, 143, 255), (220, 38, 127), (0, 158, 115), (254, 97, 0), (120, 94, 240)], np.uint8
)
"""Of object 1 and so on, told apart by colour-blind people too; after the sixth they begin again."""

CLASS_COLOURS = np.array([colorsys.hsv_to_rgb(0.618034 * number % 1, 0.8, 1) for number in range(255)] + [(0, 0, 0)])
"""Of class 0 and so on, in [0, 1], neighbours far apart in hue; 255, which is no class, is black."""


def class_colour(number: int) -> str:
    """As #rrggbb; after 255 classes they begin again."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in CLASS_COLOURS[number % 255])


def classes(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] RGB and [H, W] class numbers -> [H, W, 3]: every pixel tinted by its class."""
    tinted: NDArray[np.uint8] = (0.4 * picture + 0.6 * 255 * CLASS_COLOURS[mask]).astype(np.uint8)
    return tinted


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
