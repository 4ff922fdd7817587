"""Gram anchoring against its slow loop, and the properties that its formula promises."""

import pytest
import torch

from opendino.errors import ShapeError
from opendino.losses import gram_loss
from tests.oracles.losses import gram_loop


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("level", ["image", "batch"])
@pytest.mark.parametrize("negatives", ["keep", "drop", "drop_teacher"])
@pytest.mark.parametrize("grid", [(2, 3), (4, 6), (3, 5)])
def test_gram_equals_loop(level, negatives, grid):
    student, anchor = rand(2, 2, 3, 5), rand(2, *grid, 4, seed=1)
    expected = gram_loop(student.tolist(), anchor.tolist(), level, negatives)
    assert gram_loss(student, anchor, level=level, negatives=negatives).item() == pytest.approx(expected, rel=1e-4)


def test_chosen_patches_equal_loop():
    student, anchor, chosen = rand(2, 3, 3, 5), rand(2, 6, 6, 5, seed=1), rand(2, 3, 3, seed=2) > 0
    expected = gram_loop(student.tolist(), anchor.tolist(), "batch", "keep", chosen.tolist())
    assert gram_loss(student, anchor, level="batch", chosen=chosen).item() == pytest.approx(expected, rel=1e-4)
    assert gram_loss(student, anchor, level="batch", chosen=torch.zeros_like(chosen)).item() == 0


def test_zero_for_any_rotation_and_length_of_the_features():
    student = rand(2, 3, 3, 4)
    rotation = torch.linalg.qr(rand(4, 4, seed=1)).Q
    lengths = rand(2, 3, 3, 1, seed=2).abs() + 0.1
    assert gram_loss(student, student @ rotation * lengths).item() == pytest.approx(0, abs=1e-9)


def test_bounds_are_reached_by_opposite_patches():
    student = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    anchor = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0]]]])
    assert gram_loss(student, anchor).item() == pytest.approx(2.0)  # half of the pairs differ by 2


def test_no_gradient_to_the_anchor_and_a_step_down_lowers_it():
    student, anchor = rand(1, 3, 3, 6).requires_grad_(), rand(1, 3, 3, 6, seed=1).requires_grad_()
    before = gram_loss(student, anchor)
    before.backward()
    assert anchor.grad is None
    assert gram_loss(student.detach() - student.grad, anchor) < before


def test_computed_in_fp32_under_autocast():
    student, anchor = rand(1, 4, 4, 64), rand(1, 4, 4, 64, seed=1)
    exact = gram_loss(student, anchor)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gram_loss(student, anchor)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=1e-6, atol=0)


def test_zero_patches_have_finite_gradients():
    student = torch.zeros(1, 2, 2, 3, requires_grad=True)
    gram_loss(student, rand(1, 2, 2, 3)).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("student", "anchor", "options", "words"),
    [
        ((2, 2, 2, 3), (1, 2, 2, 3), {}, "2 images of the student, 1 of the anchor"),
        ((1, 4, 4, 3), (1, 2, 4, 3), {}, "2x4 is coarser than the student's 4x4"),
        ((1, 2, 2, 3), (1, 2, 2, 3), {"chosen": torch.ones(1, 2, 2, dtype=torch.bool)}, "level batch"),
    ],
)
def test_what_does_not_fit_is_refused(student, anchor, options, words):
    with pytest.raises(ShapeError, match=words):
        gram_loss(torch.ones(student), torch.ones(anchor), **options)
