"""BatchNorm in a network that is averaged: batch statistics in training, calibrated ones for reading."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """All BatchNorm layers that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def calibrate(backbone: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set running statistics to the mean over `batches` [B, C, H, W], at the size at which pictures will be read.

    Those gathered in training belong to augmented crops of other sizes and to weights that are gone. In place; leaves
    the network in eval mode. Nothing happens without BatchNorm layers.
    """
    norms = batch_norms(backbone)
    backbone.eval()
    if not norms:
        return
    for norm in norms:
        assert isinstance(norm, _BatchNorm)
        norm.reset_running_stats()
        norm.train()
    # momentum None: the plain mean over batches instead of one that forgets.
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # type: ignore[assignment]
    for batch in batches:
        backbone(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    backbone.eval()
