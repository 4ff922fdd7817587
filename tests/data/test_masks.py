"""Block masks: exact counts, the slow loop, and blocks rather than dust."""

from __future__ import annotations

import numpy as np
import pytest

from opendino.data.config import MaskConfig
from opendino.data.draws import MASK_STREAM, counter_generator
from opendino.data.masks import block_masks
from tests.oracles.masks import slow_masks

GRIDS = [(14, 14), (8, 8), (16, 12), (4, 4), (2, 2), (1, 7)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("num_crops", [2, 7, 32])
def test_counts_are_exact(grid: tuple[int, int], num_crops: int) -> None:
    config = MaskConfig()
    masks = block_masks(0, 0, 3, num_crops, grid, config)
    assert masks.shape == (num_crops, *grid) and masks.dtype == bool
    masked = int(num_crops * 0.5)
    edges = np.linspace(0.1, 0.5, masked + 1)
    expected = [int(grid[0] * grid[1] * edge) for edge in edges[1:]] + [0] * (num_crops - masked)
    assert sorted(masks.sum(axis=(1, 2))) == sorted(expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_masks_are_the_slow_loops(grid: tuple[int, int]) -> None:
    config = MaskConfig(ratio=(0.1, 0.7), probability=0.75)
    for step in range(4):
        fast = block_masks(5, 1, step, 12, grid, config)
        slow = slow_masks(counter_generator(5, 1, step, MASK_STREAM), 12, grid, 0.75, (0.1, 0.7), 4, 0.5, 0.3)
        assert np.array_equal(fast, np.array(slow))


def test_masks_are_a_function_of_seed_stage_and_step() -> None:
    base = block_masks(1, 0, 7, 8, (14, 14), MaskConfig())
    assert np.array_equal(base, block_masks(1, 0, 7, 8, (14, 14), MaskConfig()))
    for key in ((2, 0, 7), (1, 1, 7), (1, 0, 8)):
        assert not np.array_equal(base, block_masks(*key, 8, (14, 14), MaskConfig()))


def test_both_views_are_masked_alike() -> None:
    """Masks are shuffled over all crops: each crop is masked in half of the steps (5 standard errors of 300)."""
    shares = np.mean([block_masks(0, 0, step, 8, (8, 8), MaskConfig()).any(axis=(1, 2)) for step in range(300)], axis=0)
    assert np.abs(shares - 0.5).max() < 5 * 0.5 / np.sqrt(300)


def test_masks_are_blocks() -> None:
    """Neighbours of hidden patches are hidden far more often than by chance (0.5 at most here)."""
    masks = block_masks(0, 0, 0, 64, (14, 14), MaskConfig())
    masks = masks[masks.any(axis=(1, 2))]
    both = (masks[:, :, 1:] & masks[:, :, :-1]).sum() / masks[:, :, :-1].sum()
    assert both > 0.7


def test_nothing_or_everything_can_be_masked() -> None:
    assert not block_masks(0, 0, 0, 6, (8, 8), MaskConfig(probability=0.0)).any()
    assert block_masks(0, 0, 0, 6, (8, 8), MaskConfig(probability=1.0, ratio=(1.0, 1.0))).all()
