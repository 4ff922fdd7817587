"""What a module of several heads on one input says about itself, so that each can be trained in its own way."""

from __future__ import annotations

from torch import nn


class HeadGrid(nn.Module):
    """`count` heads that see the same input and share no parameter; the forward gives [count, b, ...]."""

    count: int

    def head_of(self, name: str) -> int:
        """Which head the parameter `name` belongs to; here its last number: "weights.3" -> 3."""
        return int(name.rpartition(".")[2])
