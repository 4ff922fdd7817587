"""Block masks for the masked-patch objective: which patches of which global crops the student does not see."""

from __future__ import annotations

import math

import numpy as np

from opendino.data.config import MaskConfig
from opendino.data.draws import MASK_STREAM, counter_generator

# Tries at a block that adds something new but not too much.
_TRIES = 10


def block_masks(
    seed: int, stage: int, step: int, num_crops: int, grid: tuple[int, int], config: MaskConfig
) -> np.ndarray:
    """Draw the masks of one step, a function of (seed, stage, step).

    `int(num_crops * probability)` crops get a mask. Their targets are spread evenly over `config.ratio`, not drawn: the
    i-th masks exactly `int(h * w * edge[i + 1])` patches, with edges evenly spaced from the smaller ratio to the
    larger. Blocks fill most of it and single patches the rest. The masks are then shuffled over all crops.

    Args:
        num_crops: global crops of all views. grid: (h, w) patches of a crop.
    Returns:
        [num_crops, h, w] bool, True = hidden.
    Source: arXiv 2508.10104 (as DINOv2); block drawing of BEiT, arXiv 2106.08254.
    """
    height, width = grid
    patches = height * width
    generator = counter_generator(seed, stage, step, MASK_STREAM)
    masks = np.zeros((num_crops, height, width), bool)
    num_masked = int(num_crops * config.probability)
    edges = np.linspace(*config.ratio, num_masked + 1)
    for index in range(num_masked):
        _fill(masks[index], int(patches * edges[index + 1]), config, generator)
    return masks[generator.permutation(num_crops)]


def _fill(mask: np.ndarray, target: int, config: MaskConfig, generator: np.random.Generator) -> None:
    """Hide exactly `target` patches of an empty mask [h, w], in place."""
    largest = config.max_patches_ratio * mask.size
    count = 0
    while count < target:
        added = _add_block(mask, min(target - count, largest), config, generator)
        if added == 0:
            break
        count += added
    free = np.flatnonzero(~mask)
    mask.reshape(-1)[generator.permutation(free)[: target - count]] = True


def _add_block(mask: np.ndarray, budget: float, config: MaskConfig, generator: np.random.Generator) -> int:
    """Hide one block that adds at most `budget` patches; returns how many it added, 0 when no try fits."""
    height, width = mask.shape
    log_aspect = math.log(config.aspect)
    # All tries' numbers are taken at once, so that the stream does not depend on which try fits.
    for area, aspect, top, left in generator.random((_TRIES, 4)).tolist():
        area = config.min_patches + (budget - config.min_patches) * area
        aspect = math.exp(log_aspect * (1 - 2 * aspect))
        tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < tall < height and 0 < wide < width):
            continue
        row, column = int(top * (height - tall + 1)), int(left * (width - wide + 1))
        block = mask[row : row + tall, column : column + wide]
        added = tall * wide - int(np.count_nonzero(block))
        if 0 < added <= budget:
            block[:] = True
            return added
    return 0
