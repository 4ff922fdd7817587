"""Block masks written as slowly and plainly as the description of them reads."""

from __future__ import annotations

import math

import numpy as np


def slow_masks(
    generator: np.random.Generator,
    num_crops: int,
    grid: tuple[int, int],
    probability: float,
    ratio: tuple[float, float],
    min_patches: int,
    max_share: float,
    aspect: float,
) -> list[list[list[bool]]]:
    """One list of rows for each crop. Takes its uniform numbers from the generator in the documented order."""
    height, width = grid
    total = height * width
    masked = int(num_crops * probability)
    masks = []
    for index in range(num_crops):
        hidden: set[tuple[int, int]] = set()
        if index < masked:
            target = int(total * np.linspace(ratio[0], ratio[1], masked + 1)[index + 1])
            while len(hidden) < target:
                budget = min(target - len(hidden), max_share * total)
                grown = False
                for number in generator.random((10, 4)):
                    if grown:
                        continue
                    area = min_patches + number[0] * (budget - min_patches)
                    low, high = math.log(aspect), math.log(1 / aspect)
                    shape = math.exp(low + number[1] * (high - low))
                    tall, wide = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
                    if tall < 1 or wide < 1 or tall >= height or wide >= width:
                        continue
                    top, left = math.floor(number[2] * (height - tall + 1)), math.floor(number[3] * (width - wide + 1))
                    cells = {(top + y, left + x) for y in range(tall) for x in range(wide)}
                    new = cells - hidden
                    if 0 < len(new) <= budget:
                        hidden |= new
                        grown = True
                if not grown:
                    break
            free = [y * width + x for y in range(height) for x in range(width) if (y, x) not in hidden]
            for cell in generator.permutation(free)[: target - len(hidden)]:
                hidden.add((int(cell) // width, int(cell) % width))
        masks.append([[(y, x) in hidden for x in range(width)] for y in range(height)])
    return [masks[index] for index in generator.permutation(num_crops)]
