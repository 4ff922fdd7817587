"""Feature matching: a student's projected tokens must equal a frozen teacher's."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from opendino.errors import ShapeError

MatchKind = Literal["cosine", "smooth_l1"]


def match_loss(student: Tensor, teacher: Tensor, kind: MatchKind = "cosine") -> Tensor:
    """Mean distance between tokens of the same place.

    cosine: mean of 1 - cos(s_i, t_i). smooth_l1: mean over tokens and dimensions of d^2 / 2 for |d| < 1, else
    |d| - 1/2, with d = s_i - t_i.

    Args:
        student: [..., D] tokens after the projector; any float dtype, computed in fp32.
        teacher: [..., D] targets, no gradient; smooth_l1 expects dimensions of about unit variance.
    Returns:
        fp32 scalar; cosine in [0, 2], 0 for equal directions.
    Raises:
        ShapeError: the shapes differ.
    """
    if student.shape != teacher.shape:
        fix = "resize the teacher's map to the student's grid"
        raise ShapeError("match_loss", f"student {list(student.shape)}, teacher {list(teacher.shape)}", fix)
    s, t = student.float(), teacher.float()
    if kind == "cosine":
        return (1 - F.cosine_similarity(s, t, dim=-1, eps=1e-8)).mean()
    return F.smooth_l1_loss(s, t)
