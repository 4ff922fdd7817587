"""Fitting a grid of linear heads on features that lie in memory: all of them in one pass over the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.models.linear_heads import LinearHeads


@dataclass(frozen=True)
class Setting:
    """Peak learning rate and weight decay of one head."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Recipe:
    """steps of `batch_size` rows; optimizer "sgd" (momentum 0.9) or "adamw"; warm-up, then a cosine to 0."""

    steps: int
    batch_size: int
    optimizer: str
    warmup_steps: int = 0


def cosine_factor(step: int, recipe: Recipe) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine from 1 towards 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)))


def fit_heads(
    heads: LinearHeads,
    features: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    settings: Sequence[Setting],
    recipe: Recipe,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LinearHeads:
    """Train every head with its own setting; returns the heads in eval mode.

    Args:
        features: [n, D]; targets: [n, ...], what `loss` compares outputs with.
        loss: (outputs of one head [b, C], targets [b, ...]) -> scalar.
        seed: of the order of rows. Heads share each batch and no gradient, so one trained among many equals it alone.
    """
    make = {
        "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9),
        "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0),
    }[recipe.optimizer]
    optimizer = make(
        [
            {"params": list(heads.parameters_of(head)), "weight_decay": one.weight_decay, "peak": one.lr}
            for head, one in enumerate(settings)
        ]
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    heads.train()
    with torch.enable_grad():
        for step in range(recipe.steps):
            if len(order) < min(recipe.batch_size, len(features)):
                order = torch.cat([order, torch.randperm(len(features), generator=generator)])
            rows, order = order[: recipe.batch_size], order[recipe.batch_size :]
            factor = cosine_factor(step, recipe)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            outputs, wanted = heads(features[rows]), targets[rows]
            optimizer.zero_grad(set_to_none=True)
            torch.stack([loss(one, wanted) for one in outputs]).sum().backward()
            optimizer.step()
            progress(step + 1, recipe.steps)
    return heads.eval()
