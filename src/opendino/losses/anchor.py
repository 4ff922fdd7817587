"""An anchor on whole pictures: a network that learns on stays near what an earlier one made of the same pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.errors import ShapeError


def anchor_loss(student: Tensor, anchor: Tensor) -> Tensor:
    """Mean of 1 - cosine between a picture's features and those that the anchor has for it.

    `gram_loss` holds how patches lie to each other and lets all of them turn together; this holds where a picture lies,
    so that a bank of features of the anchor stays of use.

    Args:
        student: [B, D] CLS after the final norm; any float dtype, computed in fp32 whatever autocast says.
        anchor: [B, D] of the same crops, no gradient.
    Returns:
        fp32 scalar in [0, 2]; 0 when all directions agree.
    Raises:
        ShapeError: the two differ in shape, as another model's features would.
    Source: ours; not of the DINOv3 paper.
    """
    if student.shape != anchor.shape or student.ndim != 2:
        raise ShapeError(
            "anchor_loss", f"student {list(student.shape)}, anchor {list(anchor.shape)}; both must be [B, D]"
        )
    with torch.autocast(student.device.type, enabled=False):
        return (1 - F.cosine_similarity(student.float(), anchor.detach().float(), dim=-1)).mean()
