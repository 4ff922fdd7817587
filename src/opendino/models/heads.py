"""The projection head between features and prototypes; training only, never part of a published model."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import ShapeError, UsageError
from opendino.models.layers import init_linear


class ProjectionHead(nn.Module):
    """MLP with exact GELU, L2 normalisation, then a bias-free linear layer whose K rows are the prototypes.

    Args:
        dim, hidden, bottleneck, prototypes: widths D, of the hidden layers, b, and the number K.
        num_layers: linear layers of the MLP.
        batch_norm: normalise the input and the hidden layers over the batch, by the statistics of the batch at hand
            in training and evaluation alike. Not of the paper; it carries tiny runs through their first minutes.
        unit_prototypes: rows of the last layer are brought to length 1 in the forward. Not of the paper either.

    Weights start truncated normal of std 0.02, biases at 0. Where a norm removes a layer's scale that would be far too
    short: a step of AdamW, whose size does not depend on the weights', would turn short rows by a tenth. So unit
    prototypes start at length 1 and layers before a batch norm at torch's default, 1 / sqrt(fan in).
    Source: arXiv 2508.10104, section 3.2.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        bottleneck: int,
        prototypes: int,
        num_layers: int = 3,
        batch_norm: bool = False,
        unit_prototypes: bool = False,
    ) -> None:
        super().__init__()
        if min(dim, hidden, bottleneck, prototypes, num_layers) < 1:
            raise UsageError("ProjectionHead", "every width and num_layers must be at least 1")
        self.batch_norm, self.unit_prototypes = batch_norm, unit_prototypes
        widths = [dim] + [hidden] * (num_layers - 1) + [bottleneck]
        layers: list[nn.Module] = [_batch_norm(dim)] if batch_norm else []
        for index, (before, after) in enumerate(pairwise(widths)):
            linear = nn.Linear(before, after)
            if not batch_norm:
                init_linear(linear)
            layers.append(linear)
            if index < num_layers - 1:
                layers += [_batch_norm(after), nn.GELU()] if batch_norm else [nn.GELU()]
        self.mlp = nn.Sequential(*layers)
        self.last_layer = nn.Linear(bottleneck, prototypes, bias=False)
        init_linear(self.last_layer)
        if unit_prototypes:
            self.last_layer.weight.data = F.normalize(self.last_layer.weight.data, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> logits [B, K]."""
        return F.linear(self.bottleneck(x), self.prototypes())

    def bottleneck(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, b], unit length, at least fp32. Raises ShapeError for one row with batch norm."""
        if self.batch_norm and x.shape[0] < 2:
            raise ShapeError(f"head input {list(x.shape)}", "batch norm needs at least 2 rows", "use a larger batch")
        x = self.mlp(x)
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1, eps=1e-12)

    def prototypes(self) -> Tensor:
        """[K, b]: a sample's logits are its products with these rows."""
        weight = self.last_layer.weight
        return F.normalize(weight, dim=1, eps=1e-12) if self.unit_prototypes else weight


def _batch_norm(width: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, track_running_stats=False)
