"""Sinkhorn-Knopp: turn teacher logits into targets that use all prototypes equally."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def identity(x: Tensor) -> Tensor:
    """What a collective does when there is one process."""
    return x


@torch.no_grad()
def prototype_offsets(
    chunks: Callable[[], Iterator[Tensor]],
    *,
    iterations: int = 3,
    all_sum: Callable[[Tensor], Tensor] = identity,
    all_max: Callable[[Tensor], Tensor] = identity,
) -> Tensor:
    """What balance adds to each prototype's scores: the [K] numbers that are all of Sinkhorn's state.

    Each of its rounds scales every prototype's total mass to 1/K, then every sample's to 1/N. In logarithms the first
    adds a number per prototype and the second is the softmax of a row, so the targets of any rows follow from their
    scores (logits / temperature) and these numbers, and the samples can pass by in chunks, once a round.

    Two differences from the published form, neither visible in its range: nothing overflows (there, exp does in fp32
    above a logit of 3.5 at temperature 0.04), and a prototype that no sample wants counts as wanted by 1e-30 of one.

    Args:
        chunks: gives the scores of all N samples of this process as fp32 [n, K] tensors, which are overwritten; called
            once a round.
        iterations: rounds; 3 in the paper.
        all_sum: adds a tensor over all ranks, so that balance holds over the global batch.
        all_max: its largest value over all ranks.
    Returns:
        [K] fp32, up to a constant.
    Source: arXiv 2508.10104, section 3.2 (as in SwAV, arXiv 2006.09882, appendix).
    """
    count, columns = 0, None
    for scores in chunks():
        highest = scores.amax(dim=0)
        found = scores.sub_(highest).exp_().sum(dim=0).log() + highest
        columns = found if columns is None else torch.logaddexp(columns, found)
        count += scores.shape[0]
    assert columns is not None, "Sinkhorn needs at least one sample"
    peak = all_max(columns)
    offsets = -(all_sum((columns - peak).exp()).log() + peak)
    samples = all_sum(offsets.new_tensor(float(count)))
    for _ in range(iterations - 1):
        mass = torch.zeros_like(offsets)
        for scores in chunks():
            mass += balance_(scores, offsets).sum(dim=0)
        offsets = offsets - (all_sum(mass).clamp_min(1e-30) * (offsets.shape[0] / samples)).log()
    return offsets


@torch.no_grad()
def balance_(scores: Tensor, offsets: Tensor) -> Tensor:
    """Targets of some rows from their scores, fp32 [n, K], and the offsets of all; in place; rows then sum to 1.

    In place, because on a CPU fresh memory of this size costs as much as a product that fills it (measured).
    """
    scores.add_(offsets)
    scores.sub_(scores.amax(dim=1, keepdim=True)).exp_()
    return scores.div_(scores.sum(dim=1, keepdim=True))


@torch.no_grad()
def sinkhorn(
    logits: Tensor,
    temperature: float,
    *,
    iterations: int = 3,
    all_sum: Callable[[Tensor], Tensor] = identity,
    all_max: Callable[[Tensor], Tensor] = identity,
) -> Tensor:
    """Balanced soft assignment of samples to prototypes: `prototype_offsets` and `balance_` on logits at hand.

    Args:
        logits: [N, K] any float dtype, N >= 1.
        temperature: > 0; iterations, all_sum, all_max: as for `prototype_offsets`.
    Returns:
        fp32 [N, K]; each row sums to 1.
    """
    scores = logits.float() / temperature
    offsets = prototype_offsets(
        lambda: iter((scores.clone(),)), iterations=iterations, all_sum=all_sum, all_max=all_max
    )
    return balance_(scores, offsets)
