"""DINO: the student's view of a picture must predict the teacher's prototype assignment of another view."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dino_loss(
    student_logits: Tensor, teacher_probs: Tensor, *, student_temperature: float = 0.1, ignore_diagonal: bool = False
) -> Tensor:
    """Cross-entropy between all pairs of a student crop and a teacher crop of the same picture.

    L = - sum_{s,t,b,k} q[t,b,k] log p[s,b,k] / (B * number of pairs), p = softmax(student / student_temperature).

    Args:
        student_logits: [S, B, K] head outputs of S crops of B pictures.
        teacher_probs: [T, B, K] targets, rows sum to 1, no gradient.
        ignore_diagonal: leave out the pairs s = t (the same crop on both sides).
    Returns:
        fp32 scalar >= 0; ln K when the student is uniform.
    Source: arXiv 2508.10104, section 3.2; averaging per pair as in the published recipe.
    """
    log_probs = F.log_softmax(student_logits.float() / student_temperature, dim=-1)
    pairs = -torch.einsum("tbk,sbk->ts", teacher_probs.float(), log_probs)
    num_teacher, num_student = pairs.shape
    count = num_teacher * num_student
    if ignore_diagonal:
        diagonal = torch.eye(num_teacher, num_student, dtype=torch.bool, device=pairs.device)
        pairs = pairs.masked_fill(diagonal, 0.0)
        count -= min(num_teacher, num_student)
    return pairs.sum() / (student_logits.shape[1] * count)
