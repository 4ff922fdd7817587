"""KoLeo: push every picture away from its nearest neighbour, so that features fill the space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def group_starts(batch: int, group_size: int) -> list[int]:
    """Where the groups of `koleo_loss` begin in a batch of so many pictures."""
    starts = list(range(0, batch, group_size))
    if len(starts) > 1 and batch - starts[-1] < group_size:
        starts.pop()
    return starts


def koleo_loss(features: Tensor, *, group_size: int = 16, eps: float = 1e-8) -> Tensor:
    """Minus the mean log distance to the nearest neighbour inside groups of consecutive samples.

    L = - mean_i log(|| x_i - x_nn(i) + eps || + eps) over L2-normalised x; the neighbour is chosen without gradient,
    the distance has gradient on both ends. Groups make the term independent of how many pictures a device holds. A
    last group with fewer samples joins the one before it, so no group has 1.

    Args:
        features: [B, D] CLS of one crop per picture, before the head; any float dtype, computed in fp32.
        group_size: >= 2; 16 in the paper.
    Returns:
        fp32 scalar; 0 (without gradient) when B < 2, since one sample has no neighbour.
    Source: arXiv 2508.10104, section 3.2; Sablayrolles et al., arXiv 1806.03198.
    """
    batch = features.shape[0]
    if batch < 2:
        return features.new_zeros((), dtype=torch.float32)
    normalised = F.normalize(features.float(), dim=-1, eps=eps)
    starts = group_starts(batch, group_size)
    total = normalised.new_zeros(())
    for start, end in zip(starts, [*starts[1:], batch], strict=True):
        group = normalised[start:end]
        with torch.no_grad():
            similarity = group @ group.T
            similarity.fill_diagonal_(-2.0)  # below every cosine: a sample is never its own neighbour
            nearest = similarity.argmax(dim=1)
        distance = (group - group[nearest] + eps).norm(dim=-1)
        total = total - torch.log(distance + eps).sum()
    return total / batch
