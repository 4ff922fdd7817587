"""Cutting crops: close to Pillow, exact where no resampling is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.data.config import ColorConfig, CropConfig
from opendino.data.crops import cut
from opendino.data.draws import Draws, draw
from tests.data.drawing import photo


def sample(size: tuple[int, int], crops: CropConfig, position: int = 0) -> Draws:
    return draw(0, 0, position, crops, ColorConfig(), *size)


@pytest.mark.parametrize(
    ("size", "crops"),
    [((375, 500), CropConfig()), ((64, 64), CropConfig(global_px=32, local_px=16)), ((30, 40), CropConfig())],
)
def test_crops_are_close_to_pillows(size: tuple[int, int], crops: CropConfig) -> None:
    """Torch works in fixed point where Pillow keeps more bits: at most 3 % of values differ, by at most 9 levels."""
    differences = []
    for position in range(24):  # single pictures differ widely in this share
        array = photo(position, *size)
        draws = replace(sample(size, crops, position), flips=np.zeros(10, bool))
        for crop, (top, left, height, width), side in zip(cut(array, draws), draws.boxes, draws.sizes, strict=True):
            box = (left, top, left + width, top + height)
            # Pillow reads across the box's border where it can: cut first, so that both see the same pixels.
            other = Image.fromarray(array).crop(box).resize((side, side), Image.Resampling.BICUBIC)
            assert crop.shape == (3, side, side) and crop.dtype == torch.uint8
            differences.append(np.abs(crop.permute(1, 2, 0).numpy().astype(int) - np.asarray(other, int)).ravel())
    difference = np.concatenate(differences)
    assert difference.max() <= 9
    assert (difference > 0).mean() <= 0.03


def test_a_box_of_the_right_size_is_copied_and_flipped() -> None:
    array = photo(1, 40, 50)
    draws = sample((40, 50), CropConfig(global_px=16, local_px=8, num_locals=1))
    draws = replace(
        draws,
        boxes=np.array([[3, 5, 16, 16], [24, 34, 16, 16], [0, 0, 8, 8]]),
        flips=np.array([False, True, True]),
    )
    first, second, third = (crop.permute(1, 2, 0).numpy() for crop in cut(array, draws))
    assert np.array_equal(first, array[3:19, 5:21])
    assert np.array_equal(second, array[24:40, 34:50][:, ::-1])
    assert np.array_equal(third, array[:8, :8][:, ::-1])


def test_gram_crops_are_the_global_ones_larger() -> None:
    """The global crop is the reduced Gram crop, flip included; local crops are as without."""
    array = photo(2, 90, 120)
    draws = replace(sample((90, 120), CropConfig(global_px=32, local_px=16, num_locals=2)), flips=np.ones(4, bool))
    crops = cut(array, draws, gram_px=64)
    assert [tuple(crop.shape) for crop in crops] == [(3, side, side) for side in (32, 32, 16, 16, 64, 64)]
    for plain, crop in zip(cut(array, draws)[2:], crops[2:4], strict=True):
        assert torch.equal(plain, crop)
    for crop, larger in zip(crops[:2], crops[4:], strict=True):
        again = Image.fromarray(larger.permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(crop.permute(1, 2, 0).numpy().astype(int) - np.asarray(again, int)).max() <= 9
    same = cut(array, draws, gram_px=32)
    assert torch.equal(same[0], same[4]) and torch.equal(same[0], cut(array, draws)[0])


def test_reduction_does_not_alias() -> None:
    """A chequerboard of single pixels becomes even grey; a filter without antialiasing gives black or white."""
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    array = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    draws = sample((256, 256), CropConfig(global_px=32, local_px=16, num_locals=0))
    draws = replace(draws, boxes=np.array([[0, 0, 256, 256]] * 2))
    for crop in cut(array, draws):
        assert (crop.float() - 127.5).abs().max() <= 3
