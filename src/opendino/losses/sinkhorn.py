"""Sinkhorn-Knopp: turn teacher logits into targets that use all prototypes equally."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def identity(x: Tensor) -> Tensor:
    """What a collective does when there is one process."""
    return x


@torch.no_grad()
def sinkhorn(
    logits: Tensor,
    temperature: float,
    *,
    iterations: int = 3,
    all_sum: Callable[[Tensor], Tensor] = identity,
    all_max: Callable[[Tensor], Tensor] = identity,
) -> Tensor:
    """Balanced soft assignment of samples to prototypes.

    Q = exp(logits / temperature); then `iterations` times: scale every prototype's total mass to 1/K, every sample's
    to 1/N. Two differences from the published form, neither visible in its range: the largest logit is subtracted
    first, so exp cannot overflow (the published one does in fp32 above a logit of 3.5 at temperature 0.04), and
    entries more than 60 nats below it are raised to that floor, so no sample's mass underflows to 0 / 0.

    Args:
        logits: [N, K] any float dtype, N >= 1.
        temperature: > 0.
        iterations: scaling rounds; 3 in the paper.
        all_sum: adds a tensor over all ranks, so that balance holds over the global batch.
        all_max: its largest value over all ranks.
    Returns:
        fp32 [N, K]; each row sums to 1.
    Source: arXiv 2508.10104, section 3.2 (as in SwAV, arXiv 2006.09882, appendix).
    """
    scores = logits.float() / temperature
    peak = all_max(scores.max())
    q = torch.exp((scores - peak).clamp_min(-60.0))
    count = all_sum(q.new_tensor(float(q.shape[0])))
    num_prototypes = q.shape[1]
    for _ in range(iterations):
        q = q / (all_sum(q.sum(dim=0, keepdim=True)) * num_prototypes)
        q = q / (q.sum(dim=1, keepdim=True) * count)
    return q * count
