"""A small residual convolutional student for minutes on a laptop. Not of the paper: ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.contract import Features
from opendino.models.layers import fit_to_patch, hide_pixels

Norm = Literal["batch", "group", "none"]


@dataclass(frozen=True)
class ConvMiniConfig:
    """Width, number of blocks and stride of each stage; the product of the strides is the patch size.

    dim: width of the features; another than the last stage's width adds a 1 x 1 convolution.
    norm: after each convolution: over the batch (running statistics in eval), over groups of 16 channels, or none.
    gain: start of the learned factor on each residual branch.
    """

    dims: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (1, 1, 1)
    strides: tuple[int, ...] = (2, 2, 2)
    dim: int = 128
    norm: Norm = "batch"
    gain: float = 0.2
    channels: int = 3

    def __post_init__(self) -> None:
        if not len(self.dims) == len(self.blocks) == len(self.strides) > 0:
            raise UsageError("ConvMiniConfig", "dims, blocks and strides need one number for each stage")
        if min(*self.dims, *self.strides, self.dim, self.channels) < 1 or min(self.blocks) < 0:
            raise UsageError("ConvMiniConfig", "dims, strides, dim and channels must be at least 1, blocks at least 0")
        if self.norm not in ("batch", "group", "none"):
            raise UsageError("ConvMiniConfig norm", f"must be batch, group or none, got {self.norm!r}")


def _norm(kind: Norm, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(math.gcd(width, max(width // 16, 1)), width) if kind == "group" else nn.Identity()


def _conv(before: int, after: int, kernel: int, stride: int, norm: Norm) -> nn.Sequential:
    padding = (kernel - stride + 1) // 2
    conv = nn.Conv2d(before, after, kernel, stride, padding, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, _norm(norm, after))


class ConvMiniBlock(nn.Module):
    """relu(x + gain * conv(relu(conv x))), 3 x 3 convolutions with their norms."""

    def __init__(self, width: int, config: ConvMiniConfig) -> None:
        super().__init__()
        self.conv1 = _conv(width, width, 3, 1, config.norm)
        self.conv2 = _conv(width, width, 3, 1, config.norm)
        self.gain = nn.Parameter(torch.full((width, 1, 1), config.gain))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        return F.relu(x + self.gain * self.conv2(F.relu(self.conv1(x))))


class ConvMini(nn.Module):
    """Residual stages, each a strided convolution and its blocks, with the contract of the transformers. Not of the
    paper.

    CLS is the mean of the last map, taken before the final LayerNorm and then normed, as in ConvNeXt; patches are the
    normed map; registers are empty. Masks hide pixels (set to 0, the mean colour). `intermediate` counts stages, whose
    widths differ: only the last one has a norm.
    """

    def __init__(self, config: ConvMiniConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.num_layers, self.num_registers = config.dim, len(config.dims), 0
        self.strides = tuple(math.prod(config.strides[: index + 1]) for index in range(len(config.strides)))
        self.patch = self.strides[-1]
        self.stages = nn.ModuleList()
        before = config.channels
        for width, blocks, stride in zip(config.dims, config.blocks, config.strides, strict=True):
            # A window of 2 x stride sees every pixel alike; stride 1 keeps the usual 3 x 3.
            down = [_conv(before, width, 3 if stride == 1 else 2 * stride, stride, config.norm), nn.ReLU()]
            self.stages.append(nn.Sequential(*down, *(ConvMiniBlock(width, config) for _ in range(blocks))))
            before = width
        self.proj = nn.Identity() if config.dim == before else nn.Conv2d(before, config.dim, 1)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """[B, C, H, W] normalised -> Features; `mask` [B, h, w] bool hides pixels.

        Raises ShapeError when a side is no multiple of the total stride, unless `pad` (zeros at right and bottom).
        """
        return self._features(self._maps(images, mask, pad=pad)[-1], norm=True)

    def forward_crops(self, groups: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[Features]:
        """Features of each crop group; batch norm takes its statistics over each group alone."""
        return [self(images, mask=mask) for images, mask in zip(groups, masks, strict=True)]

    def intermediate(self, images: Tensor, layers: Sequence[int], norm: bool = True) -> list[Features]:
        """Features of the given 0-based stages, in ascending order; `norm` acts on the last stage alone."""
        last = self.num_layers - 1
        for layer in layers:
            if not 0 <= layer <= last:
                raise UsageError(f"layer {layer}", f"this network has the stages 0 to {last}")
        maps = self._maps(images, None, pad=False)
        return [self._features(maps[stage], norm=norm and stage == last) for stage in sorted(set(layers))]

    def attention(self, images: Tensor, layer: int) -> Tensor:
        """Raises UsageError: convolutions have no attention."""
        raise UsageError("attention", "a convolutional network has none", "use similarity of patches, or a ViT")

    def _maps(self, images: Tensor, mask: Tensor | None, *, pad: bool) -> list[Tensor]:
        x = fit_to_patch(images, self.patch, self.config.channels, pad=pad)
        if mask is not None:
            x = hide_pixels(x, mask, self.patch)
        x = x.contiguous(memory_format=torch.channels_last)  # a quarter faster on a CPU (measured)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [*maps[:-1], self.proj(x)]

    def _features(self, x: Tensor, *, norm: bool) -> Features:
        cls, patches = x.mean((2, 3)), x.permute(0, 2, 3, 1)
        if norm:
            cls, patches = self.norm(cls), self.norm(patches)
        return Features(cls=cls, registers=cls.new_zeros(len(cls), 0, cls.shape[1]), patches=patches)
