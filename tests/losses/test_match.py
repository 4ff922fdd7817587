"""Feature matching against its slow loop, and the properties that its formula promises."""

import pytest
import torch

from opendino.errors import ShapeError
from opendino.losses.match import match_loss
from tests.oracles.losses import match_loop


def rand(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["cosine", "smooth_l1"])
def test_match_equals_loop(kind):
    student, teacher = rand(3, 2, 2, 5), rand(3, 2, 2, 5, seed=1)
    expected = match_loop(student.flatten(0, 2).tolist(), teacher.flatten(0, 2).tolist(), kind)
    assert match_loss(student, teacher, kind).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["cosine", "smooth_l1"])
def test_zero_for_the_teacher_itself_and_finite_for_zeros(kind):
    teacher = rand(4, 6)
    assert match_loss(teacher, teacher, kind).item() == pytest.approx(0, abs=1e-6)
    student = torch.zeros(4, 6, requires_grad=True)
    match_loss(student, teacher, kind).backward()
    assert torch.isfinite(student.grad).all()


def test_cosine_forgets_lengths_and_reaches_2():
    student, teacher = rand(4, 6), rand(4, 6, seed=1)
    assert match_loss(3 * student, teacher / 7).item() == pytest.approx(match_loss(student, teacher).item(), rel=1e-5)
    assert match_loss(-teacher, teacher).item() == pytest.approx(2, rel=1e-6)


def test_half_precision_is_computed_in_fp32():
    student, teacher = rand(4, 6).bfloat16(), rand(4, 6, seed=1).bfloat16()
    assert match_loss(student, teacher).item() == pytest.approx(match_loss(student.float(), teacher.float()).item())


def test_another_grid_is_refused_with_the_way_out():
    with pytest.raises(ShapeError, match="resize the teacher's map"):
        match_loss(rand(2, 4, 4, 3), rand(2, 2, 2, 3))
