"""Metres from the logits of a depth head: a weighted mean of evenly spaced bins."""

from __future__ import annotations

import torch
from torch import Tensor


def depth_of_bins(logits: Tensor, low_m: float, high_m: float) -> Tensor:
    """[..., bins] -> [...] metres in (low_m, high_m).

    (relu(z) + 0.1), normalised, weighs bins that lie evenly from low to high. Source: the released depth heads of
    DINOv2 and DINOv3 (arXiv 2508.10104, D.2), with uniform bins.
    """
    weights = logits.relu() + 0.1
    bins = torch.linspace(low_m, high_m, logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return (weights * bins).sum(-1) / weights.sum(-1)
