"""What heads are worth: known values of extreme cases, and a count by hand."""

import math

import pytest
import torch

from opendino.monitor.head_quality import measure_heads


def test_uniform_targets_say_nothing():
    quality = measure_heads(torch.full((6, 4), 0.25), torch.full((6, 4), 0.25))
    assert quality.entropy == pytest.approx(math.log(4)) == pytest.approx(quality.max_entropy)
    assert quality.usage == 0.25 and quality.agreement == quality.chance == 1


def test_one_prototype_a_picture_that_both_views_find():
    quality = measure_heads(torch.eye(4), torch.eye(4))
    assert (quality.entropy, quality.usage, quality.agreement, quality.chance) == (0, 1, 1, 0.25)
    assert "4 of 4 prototypes in use, two views choose the same one in 100 % (chance 25 %), 4 samples" in str(quality)


def test_counts_by_hand():
    first = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    second = torch.tensor([[0.7, 0.3, 0.0], [0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])
    quality = measure_heads(first, second)  # choices 0 1 0 and 0 0 1
    assert quality.agreement == pytest.approx(1 / 3) and quality.usage == pytest.approx(2 / 3)
    assert quality.chance == pytest.approx((4 / 6) ** 2 + (2 / 6) ** 2) and quality.images == 3
