"""Attentive heads: a few attention blocks over tokens of a frozen backbone, one learned query, a linear map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.head_grid import HeadGrid
from opendino.models.layers import Mlp

AXES = 3
"""Coordinates of a token: time in seconds, row and column in [-1, 1]. They are the last channels of a token."""


class AttentiveHeads(HeadGrid):
    """`count` attentive heads on the same tokens, equal at the start.

    Args:
        dim: channels of a token without its coordinates. outputs: classes. width: of the heads; heads: of attention.
        depth: self-attention blocks before the query asks.
    Source: arXiv 2508.10104, D.6: sines of time and place, rotary positions turned at random in the plane while
    training, four blocks, cross-attention by one query.
    """

    def __init__(
        self, dim: int, outputs: int, count: int, *, width: int = 1024, heads: int = 16, depth: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        self.count = count
        made = []
        for _ in range(count):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                made.append(AttentiveHead(dim, outputs, width, heads, depth))
        self.heads = nn.ModuleList(made)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, n, dim + 3] -> [count, b, outputs]."""
        if self.training:
            x = turned(x, torch.rand(len(x), device=x.device) * (2 * math.pi))
        return torch.stack([head(x) for head in self.heads])

    def head_of(self, name: str) -> int:
        """ "heads.3.query" -> 3."""
        return int(name.split(".")[1])


class AttentiveHead(nn.Module):
    """One of them; `forward` takes tokens [b, n, dim + 3] and gives [b, outputs]."""

    def __init__(self, dim: int, outputs: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        if width % heads or (width // heads) % (2 * AXES):
            cause = f"{width} channels in {heads} heads: a head needs a multiple of {2 * AXES}"
            raise UsageError("attentive head", cause, "take a width of 6 times the number of heads, or 12, 18, ...")
        self.project = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.query = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.norm = nn.LayerNorm(width)
        self.ask = _Attention(width, heads)
        self.classify = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens, places = x[..., :-AXES], x[..., -AXES:]
        tokens = self.project(tokens) + sines(places, self.query.shape[-1])
        for block in self.blocks:
            tokens = block(tokens, places)
        answer = self.ask(self.query.expand(len(x), -1, -1), self.norm(tokens), None, None)
        logits: Tensor = self.classify(answer[:, 0])
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = _Attention(width, heads), Mlp(width, 4 * width)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, places, places)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class _Attention(nn.Module):
    """Queries [b, m, width] ask tokens [b, n, width]; with places, both are turned by them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.count = heads
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, asking: Tensor, tokens: Tensor, at: Tensor | None, places: Tensor | None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.count, -1)).transpose(1, 2)
            for part in (self.q(asking), *self.kv(tokens).chunk(2, dim=-1))
        )
        if at is not None and places is not None:
            q, k = rotate(q, at), rotate(k, places)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


def _angles(places: Tensor, channels: int) -> Tensor:
    """[b, n, 3] -> [b, n, 3 * channels]: each coordinate at `channels` frequencies from 2 pi down to 2 pi / 100."""
    frequencies = 2 * math.pi * 100 ** (-torch.arange(channels, device=places.device) / max(1, channels - 1))
    return (places[..., None] * frequencies.to(places.dtype)).flatten(-2)


def sines(places: Tensor, width: int) -> Tensor:
    """[b, n, 3] -> [b, n, width]: sine and cosine of every coordinate; zeros fill what 6 does not divide."""
    angles = _angles(places, width // (2 * AXES))
    joined = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return F.pad(joined, (0, width - joined.shape[-1]))


def rotate(u: Tensor, places: Tensor) -> Tensor:
    """Rotary positions in three axes: [b, heads, n, d] turned by places [b, n, 3], so that products see differences."""
    angles = _angles(places, u.shape[-1] // (2 * AXES))[:, None]
    first, second = u.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def turned(x: Tensor, radians: Tensor) -> Tensor:
    """Tokens [b, n, dim + 3] with row and column turned about the middle by radians [b]."""
    row, column = x[..., -2], x[..., -1]
    cos, sin = radians.cos()[:, None], radians.sin()[:, None]
    turned_places = torch.stack([row * cos - column * sin, row * sin + column * cos], dim=-1)
    return torch.cat([x[..., :-2], turned_places.to(x.dtype)], dim=-1)
