"""iBOT: predict the teacher's assignment of a patch that the student could not see."""

from __future__ import annotations

from torch import Tensor

from opendino.losses.prototypes import Targets, prototype_loss


def ibot_loss(
    student: Tensor,
    prototypes: Tensor,
    targets: Targets,
    patch_weights: Tensor,
    num_crops: int,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Masked-patch cross-entropy, averaged within each crop, then over all crops.

    L = - sum_i w_i sum_k t[i,k] log softmax(s_i . prototypes / temperature)_k / C, w_i = 1 / (masked patches of i's
    crop). Crops without a mask count in C (about half of them), as in the released code, so a uniform student gives
    about half of ln K.

    Args:
        student: [M, b] head features before the prototypes, at the masked positions of all crops; M may be 0.
        prototypes: [K, b].
        targets: rows [n, K] at the same positions, for a slice of them.
        patch_weights: [M] the w_i above.
        num_crops: C, global crops in the batch.
    Returns:
        fp32 scalar >= 0.
    Source: arXiv 2508.10104, section 3.2; iBOT, arXiv 2111.07832, equation 2.
    """
    return prototype_loss(student, prototypes, targets, patch_weights / num_crops, temperature=temperature)
