"""iBOT: predict the teacher's assignment of a patch that the student could not see."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def ibot_loss(
    student_logits: Tensor,
    teacher_probs: Tensor,
    patch_weights: Tensor,
    num_crops: int,
    *,
    student_temperature: float = 0.1,
) -> Tensor:
    """Masked-patch cross-entropy, averaged within each crop, then over all crops.

    L = - sum_i w_i sum_k t[i,k] log softmax(s_i / student_temperature)_k / C, w_i = 1 / (masked patches of i's crop).
    Crops without a mask count in C (about half of them), as in the released code, so a uniform student gives about
    half of ln K.

    Args:
        student_logits: [M, K] head outputs at the masked positions of all crops; M may be 0.
        teacher_probs: [M, K] targets at the same positions.
        patch_weights: [M] the w_i above.
        num_crops: C, global crops in the batch.
    Returns:
        fp32 scalar >= 0.
    Source: arXiv 2508.10104, section 3.2; iBOT, arXiv 2111.07832, equation 2.
    """
    log_probs = F.log_softmax(student_logits.float() / student_temperature, dim=-1)
    per_patch = -(teacher_probs.float() * log_probs).sum(dim=-1)
    return (per_patch * patch_weights).sum() / num_crops
