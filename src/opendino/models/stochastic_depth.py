"""Stochastic depth: which samples each residual branch runs on, drawn for a whole batch whatever part of it is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 16
"""Pictures among which a branch is dropped. The paper draws on each GPU, 16 pictures; parts of whole groups (ranks,
micro-batches) keep equally many rows, so none of them waits for another."""


@dataclass(frozen=True)
class Part:
    """The pictures start .. stop - 1 of a batch: what a micro-batch or a rank holds of it."""

    start: int
    stop: int
    batch: int


@dataclass(frozen=True)
class Kept:
    """rows: [n] of the samples that a branch runs on; scale: [n] fp32, what makes up for the others."""

    rows: Tensor
    scale: Tensor


def draw_kept(rates: Sequence[float], samples: int, part: Part | None, device: torch.device) -> list[Kept | None]:
    """Draw for each branch: of every group of m rows, n = max(int(m (1 - rate)), 1) are kept and scaled by m / n.

    A group has all crops of 16 consecutive pictures of the batch; a last one with fewer joins the one before it. The
    draws, from torch's global CPU generator, are those of the whole batch: a part takes its own rows out of them.

    Args:
        rates: dropped share in [0, 1) of each branch; 0 gives None, which keeps everything and draws nothing.
        samples: V * P rows here, view-major: all first crops of the P pictures of `part`, then all second ones, ...
        part: None: every row is a picture of a whole batch.
    Source: arXiv 2304.07193, section 5 (the batch-subset form).
    """
    part = part or Part(0, samples, samples)
    pictures = part.stop - part.start
    views = samples // pictures
    starts = list(range(0, part.batch, GROUP))
    if len(starts) > 1 and part.batch - starts[-1] < GROUP:
        starts.pop()
    rows, scales = [], []
    for rate in rates:
        chosen, scale = [], []
        for start, stop in zip(starts, [*starts[1:], part.batch], strict=True) if rate > 0 else ():
            size = stop - start
            keep = max(int(size * views * (1 - rate)), 1)
            drawn = torch.randperm(size * views, device="cpu")[:keep]
            view, picture = drawn // size, drawn % size + start
            here = (picture >= part.start) & (picture < part.stop)
            chosen.append((view * pictures + picture - part.start)[here])
            scale.append(torch.full((len(chosen[-1]),), size * views / keep, device="cpu"))
        rows.append(torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long, device="cpu"))
        scales.append(torch.cat(scale) if scale else torch.empty(0, device="cpu"))
    counts = [len(one) for one in rows]
    # One copy to the device for all branches.
    split_rows = torch.cat(rows).to(device, non_blocking=True).split(counts)
    split_scales = torch.cat(scales).to(device, non_blocking=True).split(counts)
    return [
        Kept(one, scale) if rate > 0 else None for rate, one, scale in zip(rates, split_rows, split_scales, strict=True)
    ]


def add_branch(x: Tensor, branch: Callable[[Tensor], Tensor], kept: Kept | None) -> Tensor:
    """x + branch(x), the branch run on the kept samples [n, ...] alone, so that dropping saves the compute."""
    if kept is None:
        return x + branch(x)
    scaled = branch(x[kept.rows]) * kept.scale.view(-1, *[1] * (x.ndim - 1))
    return x.index_add(0, kept.rows, scaled.to(x.dtype))
