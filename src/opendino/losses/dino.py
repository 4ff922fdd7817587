"""DINO: the student's view of a picture must predict the teacher's prototype assignment of another view."""

from __future__ import annotations

import torch
from torch import Tensor

from opendino.losses.prototypes import prototype_loss


def dino_loss(
    student: Tensor,
    prototypes: Tensor,
    teacher_probs: Tensor,
    num_pictures: int,
    *,
    temperature: float = 0.1,
    local_weight: float = 1.0,
) -> Tensor:
    """Mean cross-entropy over all pairs of a student crop and a teacher crop of the same picture that is another crop.

    L = - sum_{s,t,b,k} v_s q[t,b,k] log p[s,b,k] / (pictures * pairs), p = softmax(student . prototypes / temperature).
    Crops 0 and 1 are global ones on both sides, and s = t is left out: 2 pairs of globals, 2 S - 4 with local crops.

    Args:
        student: [S, B, b] head features before the prototypes: two global crops, then S - 2 local ones.
        prototypes: [K, b].
        teacher_probs: [2, B, K] targets of the global crops, rows sum to 1, no gradient.
        num_pictures: of the whole batch; B may be a part of it, and losses of parts add up.
        local_weight: v_s of the local crops; the pairs still count as pairs.
    Returns:
        fp32 scalar >= 0; ln K when the student is uniform.
    Source: arXiv 2508.10104, section 3.2; averaging per pair as in the published recipe.
    """
    num_crops, batch, width = student.shape
    # A global crop is to predict the other one, a local crop both, which is twice their mean.
    wanted = torch.cat([teacher_probs.flip(0).flatten(0, 1), teacher_probs.mean(dim=0)])
    place = torch.arange(num_crops * batch, device=student.device)
    place = torch.where(place < 2 * batch, place, 2 * batch + place % batch)
    weights = torch.where(place < 2 * batch, 1.0, 2.0 * local_weight) / (num_pictures * (2 * num_crops - 2))
    return prototype_loss(
        student.reshape(-1, width), prototypes, lambda part: wanted[place[part]], weights, temperature=temperature
    )
