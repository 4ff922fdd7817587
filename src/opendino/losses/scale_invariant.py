"""Depth up to scale: squared log errors of which most of the common factor is forgiven."""

from __future__ import annotations

import torch
from torch import Tensor

EPS_M = 1e-3
MEAN_WEIGHT = 0.15


def scale_invariant_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """sqrt(var(g) + 0.15 mean(g)^2) with g = log(predicted + 1e-3) - log(truth + 1e-3).

    Args:
        predicted, truth: [n] metres above 0 of valid pixels, n >= 2.
    Returns:
        Scalar; 0 for equal depths.
    Source: Eigen et al., arXiv 1406.2283, in the form of AdaBins, arXiv 2011.14141; the variance is the unbiased one.
    """
    g = torch.log(predicted + EPS_M) - torch.log(truth + EPS_M)
    # The root has no slope at 0; a perfect prediction must not give NaN gradients.
    return (g.var() + MEAN_WEIGHT * g.mean().square()).clamp_min(1e-12).sqrt()
