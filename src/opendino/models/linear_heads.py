"""Many linear heads on the same frozen features, trained side by side in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.models.head_grid import HeadGrid


class LinearHeads(HeadGrid):
    """`count` linear maps D -> C that share their input and nothing else.

    Each has tensors of its own, so that an optimizer can give each its own rate and decay; the forward is one matrix
    product. Weights start from N(0, 0.01), biases at 0, equal in all heads, as probes are compared by their settings.

    Args:
        dim, outputs: D and C. count: heads.
        batch_norm: standardise the input by batch statistics in training and by running ones in evaluation, shared by
            all heads; the scale and shift of a usual batch norm are left to the linear map after it.
        dropout: share of the features dropped in training, the same for all heads.
        seed: of the weights.
    Source: arXiv 2508.10104, D.1 and D.7 (linear probes over a grid of rates).
    """

    def __init__(
        self, dim: int, outputs: int, count: int, *, batch_norm: bool = False, dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        start = torch.empty(outputs, dim).normal_(std=0.01, generator=torch.Generator().manual_seed(seed))
        self.outputs, self.count = outputs, count
        self.weights = nn.ParameterList(nn.Parameter(start.clone()) for _ in range(count))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(outputs)) for _ in range(count))
        self.norm = nn.BatchNorm1d(dim, affine=False) if batch_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[n, D] -> [heads, n, C]."""
        x = self.dropout(self.norm(x))
        joined = F.linear(x, torch.cat(list(self.weights)), torch.cat(list(self.biases)))
        return joined.unflatten(1, (len(self.weights), self.outputs)).transpose(0, 1)

    def one(self, x: Tensor, head: int) -> Tensor:
        """[n, D] -> [n, C] by one head."""
        return F.linear(self.dropout(self.norm(x)), self.weights[head], self.biases[head])
