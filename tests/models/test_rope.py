"""Rotary positions: published golden values, layout, augmentation, cache."""

import math

import pytest
import torch

from opendino.models.rope import CACHE_SIZE, AxialRope, augment_centres, patch_centres, rope_periods

CPU = torch.device("cpu")
# (cos, sin) at j = 0, 1, 2, 15 of patch (0, 0) on a 2 x 3 grid, d = 64.
GOLDEN = {
    (False, "y"): [(-1, 0), (-0.706872, -0.707342), (-0.194601, -0.980882), (0.999123, -0.041882)],
    (True, "y"): [(-1, 0), (-0.703852, -0.710347), (-0.191711, -0.981451), (0.999123, -0.041876)],
    (False, "x"): [(-0.5, 0.866025), (-1.0, -0.000443), (-0.706637, -0.707577), (0.998440, -0.055829)],
    (True, "x"): [(-0.5, 0.866025), (-0.999981, -0.006124), (-0.703852, -0.710347), (0.998441, -0.055822)],
}


@pytest.mark.parametrize(("rounded", "axis"), GOLDEN)
def test_golden_angles(rounded, axis):
    rotation = AxialRope(64, prefix=0, rounded=rounded).rotation(2, 3, CPU, augment=False)
    quarter = 0 if axis == "y" else 16
    for j, (cos, sin) in zip((0, 1, 2, 15), GOLDEN[rounded, axis], strict=True):
        for half, sign in ((0, -1), (32, 1)):  # the first half carries the minus of the rotation
            assert rotation.cos[0, half + quarter + j].item() == pytest.approx(cos, abs=2e-6)
            assert sign * rotation.sin[0, half + quarter + j].item() == pytest.approx(sin, abs=2e-6)


def test_rounded_periods_are_the_published_ones():
    assert rope_periods(64, rounded=True).tolist() == [
        *(1, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5, 10),
        *(13.3125, 17.75, 23.75, 31.625, 42.25, 56.25, 75),
    ]
    assert rope_periods(128, rounded=True)[-3:].tolist() == [65, 75, 86.5]
    assert rope_periods(64)[-1].item() == pytest.approx(74.989, abs=1e-3)


def test_equals_a_loop_over_pairs():
    """u'[k] = u[k] cos - u[k+d/2] sin, u'[k+d/2] = u[k+d/2] cos + u[k] sin, k over y then x frequencies."""
    height, width, dim, prefix = 2, 3, 16, 2
    u = torch.randn(1, 1, prefix + height * width, dim)
    turned = AxialRope(dim, prefix).rotation(height, width, CPU, augment=False)(u)
    assert torch.equal(turned[:, :, :prefix], u[:, :, :prefix])
    for row in range(height):
        for column in range(width):
            token = prefix + row * width + column
            for axis, centre in enumerate(((row + 0.5) / height * 2 - 1, (column + 0.5) / width * 2 - 1)):
                for j in range(dim // 4):
                    angle = 2 * math.pi * centre / 100 ** (4 * j / dim)
                    k = axis * dim // 4 + j
                    a, b = u[0, 0, token, k].item(), u[0, 0, token, k + dim // 2].item()
                    cos, sin = math.cos(angle), math.sin(angle)
                    assert turned[0, 0, token, k].item() == pytest.approx(a * cos - b * sin, abs=1e-5)
                    assert turned[0, 0, token, k + dim // 2].item() == pytest.approx(b * cos + a * sin, abs=1e-5)


def test_augmentation_order_and_ranges():
    centres = patch_centres(3, 5)
    torch.manual_seed(0)
    for _ in range(50):
        shifted = augment_centres(centres, 0.2, None, None) - centres
        assert (shifted - shifted[:1]).abs().max() < 1e-6 and shifted.abs().max() <= 0.2
        ratio = augment_centres(centres, None, None, 2.0)[0] / centres[0]
        assert ratio[0].item() == pytest.approx(ratio[1].item(), abs=1e-5)
        assert 0.5 <= ratio[0] <= 2.0
        jitter = augment_centres(centres, None, 1.5, None)[0] / centres[0]
        assert jitter[0] != jitter[1] and jitter.min() >= 1 / 1.5 and jitter.max() <= 1.5
    torch.manual_seed(1)
    combined = augment_centres(centres, 0.2, 1.5, 2.0)
    torch.manual_seed(1)
    shift = torch.empty(2).uniform_(-0.2, 0.2)
    stretch = torch.empty(2).uniform_(-math.log(1.5), math.log(1.5)).exp()
    rescale = torch.empty(1).uniform_(-math.log(2), math.log(2)).exp()
    assert torch.allclose(combined, (centres + shift) * stretch * rescale)


def test_training_draws_from_the_global_seed_and_eval_does_not():
    rope = AxialRope(16, 1, rescale=2.0)
    torch.manual_seed(3)
    first, second = (rope.rotation(4, 4, CPU, augment=True).cos for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(rope.rotation(4, 4, CPU, augment=True).cos, first)
    state = torch.get_rng_state()
    kept = rope.rotation(4, 4, CPU, augment=False)
    assert rope.rotation(4, 4, CPU, augment=False) is kept
    assert torch.equal(torch.get_rng_state(), state)


def test_the_cache_is_bounded_and_usable_for_training_after_inference():
    rope = AxialRope(16, 1)
    with torch.inference_mode():
        kept = rope.rotation(2, 2, CPU, augment=False)
        for side in range(2 * CACHE_SIZE):
            rope.rotation(1, 1 + side, CPU, augment=False)
    assert len(rope._cache) <= CACHE_SIZE
    u = torch.randn(1, 1, 5, 16, requires_grad=True)
    kept(u).sum().backward()
    assert u.grad is not None
