"""Agreement of patch similarities between input sizes."""

import math

import pytest
import torch

from opendino.errors import ShapeError
from opendino.evaluation.patch_likeness import likeness_agreement


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agreement_loop(one, other):
    """Correlation of the cosines of all pairs of different patches, picture by picture."""
    found = []
    for a, b in zip(one.flatten(1, 2).tolist(), other.flatten(1, 2).tolist(), strict=True):
        pairs = []
        for tokens in (a, b):
            units = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in tokens]
            pairs.append(
                [
                    sum(p * q for p, q in zip(units[i], units[j], strict=True))
                    for i in range(len(units))
                    for j in range(len(units))
                    if i != j
                ]
            )
        means = [sum(values) / len(values) for values in pairs]
        x, y = ([v - mean for v in values] for values, mean in zip(pairs, means, strict=True))
        top = sum(p * q for p, q in zip(x, y, strict=True))
        found.append(top / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y)))
    return sum(found) / len(found)


def test_equals_the_loop():
    one, other = rand(2, 2, 3, 4), rand(2, 2, 3, 5, seed=1)
    assert likeness_agreement(one, other) == pytest.approx(agreement_loop(one, other), rel=1e-6)


def test_one_for_the_same_map_in_finer_cells_rotated_or_not():
    coarse = rand(2, 3, 3, 6)
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    rotation = torch.linalg.qr(rand(6, 6, seed=1)).Q
    assert likeness_agreement(fine @ rotation, coarse) == pytest.approx(1.0)


def test_near_zero_for_unrelated_maps_and_minus_one_for_opposite_likeness():
    assert abs(likeness_agreement(rand(20, 5, 5, 8), rand(20, 5, 5, 8, seed=1))) < 0.1
    near = torch.tensor([[[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]]])
    far = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]]]])
    assert likeness_agreement(near, far) < 0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ShapeError, match="cannot be brought to the grid"):
        likeness_agreement(rand(1, 2, 2, 3), rand(1, 4, 4, 3))
    with pytest.raises(ShapeError, match="2 patches have too few pairs"):
        likeness_agreement(rand(1, 1, 2, 3), rand(1, 1, 2, 3))
