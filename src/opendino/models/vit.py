"""The vision transformer of DINOv3: this file explains the model, `layers.py` and `rope.py` hold its small parts.

Sizes: B images, h x w patches of P pixels, R registers, T = 1 + R + h*w tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.contract import Features
from opendino.models.layers import (
    Attention,
    LayerScale,
    Mlp,
    SwiGlu,
    check_mask,
    fit_to_patch,
    init_linear,
)
from opendino.models.rope import AxialRope, Turn
from opendino.models.stochastic_depth import Kept, Part, add_branch, draw_kept


@dataclass(frozen=True)
class ViTConfig:
    """Everything that decides a ViT's shape and training behaviour. Defaults are those of the paper's models.

    hidden: width inside the feed-forward (`layers.swiglu_hidden` gives it for SwiGLU ratios).
    mask_k_bias: keep the key bias at 0. layer_scale: start of the residual branches' factors.
    drop_path: stochastic depth rate, the same in all blocks. rope_*: see `rope.py`; None = off.
    local_cls_norm: CLS and registers of local crops get a final norm of their own, in training only.
    stride: pixels from patch to patch; None = the patch side. A smaller one makes patches overlap, for a finer map of
        the same weights at inference (after arXiv 2112.05814).
    """

    dim: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int = 1536
    patch: int = 16
    channels: int = 3
    registers: int = 4
    swiglu: bool = False
    qkv_bias: bool = True
    mask_k_bias: bool = True
    layer_scale: float = 1e-5
    drop_path: float = 0.0
    norm_eps: float = 1e-5
    rope_base: float = 100.0
    rope_rounded: bool = False
    rope_shift: float | None = None
    rope_jitter: float | None = None
    rope_rescale: float | None = 2.0
    local_cls_norm: bool = False
    stride: int | None = None

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.hidden, self.patch, self.channels) < 1 or self.registers < 0:
            raise UsageError("ViTConfig", "dim, depth, heads, hidden, patch and channels must be at least 1")
        if self.dim % (4 * self.heads):
            raise UsageError(
                f"ViTConfig dim {self.dim}, heads {self.heads}",
                "dim must be a multiple of 4 x heads (two axes, sine and cosine)",
                f"try dim {math.ceil(self.dim / (4 * self.heads)) * 4 * self.heads}",
            )
        if not 0 <= self.drop_path < 1:
            raise UsageError("ViTConfig drop_path", f"must be in [0, 1), got {self.drop_path}")
        if self.stride is not None and not 1 <= self.stride <= self.patch:
            raise UsageError("ViTConfig stride", f"must be from 1 to the patch side {self.patch}, got {self.stride}")


class Block(nn.Module):
    """x + LS(Attention(LN x)), then x + LS(FFN(LN x))."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        dim, eps = config.dim, config.norm_eps
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, config.heads, qkv_bias=config.qkv_bias, mask_k_bias=config.mask_k_bias)
        self.ls1 = LayerScale(dim, config.layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = SwiGlu(dim, config.hidden) if config.swiglu else Mlp(dim, config.hidden)
        self.ls2 = LayerScale(dim, config.layer_scale)

    def forward(self, x: Tensor, rotation: Turn, kept_attn: Kept | None = None, kept_mlp: Kept | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; with stochastic depth each branch runs on the samples that are kept for it."""
        x = add_branch(x, lambda part: self.ls1(self.attn(self.norm1(part), rotation)), kept_attn)
        return add_branch(x, lambda part: self.ls2(self.mlp(self.norm2(part))), kept_mlp)


class ViT(nn.Module):
    """Vision transformer with registers and axial rotary positions. Source: arXiv 2508.10104, section 3 and table 1.

    Tokens: [CLS][registers][patches, row-major]; no position is added to them, attention alone sees positions.
    `strides[i]` is the pixel stride of the map after layer i. In training mode the patch coordinates are augmented and
    stochastic depth is on; in eval mode equal images give equal features.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.patch = config.dim, config.patch
        self.num_layers, self.num_registers = config.depth, config.registers
        self.stride = config.stride or config.patch
        self.strides = (self.stride,) * config.depth
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.registers = nn.Parameter(torch.empty(1, config.registers, config.dim))
        self.mask_token = nn.Parameter(torch.empty(1, config.dim))
        self.patch_embed = self._build_stem(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.local_cls_norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.local_cls_norm else None
        self.rope = AxialRope(
            config.dim // config.heads,
            1 + config.registers,
            config.rope_base,
            rounded=config.rope_rounded,
            shift=config.rope_shift,
            jitter=config.rope_jitter,
            rescale=config.rope_rescale,
        )
        self._init_weights()

    def _build_stem(self, config: ViTConfig) -> nn.Module:
        return nn.Conv2d(config.channels, config.dim, kernel_size=config.patch, stride=self.stride)

    def _init_weights(self) -> None:
        nn.init.normal_(self.cls_token, std=0.02)
        if self.num_registers:
            nn.init.normal_(self.registers, std=0.02)
        nn.init.zeros_(self.mask_token)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                init_linear(module)
        if isinstance(self.patch_embed, nn.Conv2d):
            bound = 1 / math.sqrt(self.patch_embed.weight[0].numel())
            nn.init.uniform_(self.patch_embed.weight, -bound, bound)
            if self.patch_embed.bias is not None:
                nn.init.uniform_(self.patch_embed.bias, -bound, bound)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """[B, C, H, W] normalised -> Features; `mask` [B, h, w] bool puts the mask token in place of hidden patches.

        Raises ShapeError when a side is no multiple of the patch size, unless `pad` (zeros at right and bottom). With
        a stride below the patch, sides are patch + a multiple of stride, and the grid has (side - patch) / stride + 1.
        """
        return self._run(images, mask, pad=pad, local=False)

    def forward_crops(
        self, groups: Sequence[Tensor], masks: Sequence[Tensor | None], part: Part | None = None
    ) -> list[Features]:
        """Features of each crop group: group 0 the global crops, the others local ones (own norm where configured).

        Every group has its own draw of stochastic depth and coordinates, in the order of the groups.
        `part`: the pictures that the groups hold of the batch; coordinates and dropped rows are those of all of it.
        """
        return [
            self._run(images, mask, pad=False, local=index > 0, part=part)
            for index, (images, mask) in enumerate(zip(groups, masks, strict=True))
        ]

    def intermediate(self, images: Tensor, layers: Sequence[int], norm: bool = True) -> list[Features]:
        """Features after the given 0-based blocks, in ascending order; `norm` applies the final norm to each."""
        wanted = {self._check_layer(layer) for layer in layers}
        x, grid, rotation = self._embed(images, None, pad=False)
        found = []
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            x = block(x, rotation)
            if index in wanted:
                found.append(self._features(self.norm(x) if norm else x, grid))
        return found

    def attention(self, images: Tensor, layer: int) -> Tensor:
        """How much CLS looks at each patch in one block: [B, heads, h, w] fp32.

        The rest, up to a sum of 1, goes to CLS itself and the registers. The same numbers that the fused kernel uses.
        """
        self._check_layer(layer)
        x, (height, width), rotation = self._embed(images, None, pad=False)
        for block in self.blocks[:layer]:
            x = block(x, rotation)
        last = cast(Block, self.blocks[layer])
        weights = last.attn.weights(last.norm1(x), rotation, queries=1)
        return weights[:, :, 0, -height * width :].unflatten(-1, (height, width))

    def _run(
        self, images: Tensor, mask: Tensor | None, *, pad: bool, local: bool, part: Part | None = None
    ) -> Features:
        x, grid, rotation = self._embed(images, mask, pad=pad)
        rate = self.config.drop_path if self.training else 0.0
        kept = draw_kept([rate] * (2 * self.num_layers), len(x), part, x.device)
        for block, attn, mlp in zip(self.blocks, kept[::2], kept[1::2], strict=True):
            x = block(x, rotation, attn, mlp)
        if local and self.training and self.local_cls_norm is not None:
            prefix = 1 + self.num_registers
            normed = torch.cat([self.local_cls_norm(x[:, :prefix]), self.norm(x[:, prefix:])], dim=1)
        else:
            normed = self.norm(x)
        return self._features(normed, grid)

    def _embed(self, images: Tensor, mask: Tensor | None, *, pad: bool) -> tuple[Tensor, tuple[int, int], Turn]:
        patches, (height, width) = self._patches(images, mask, pad=pad)
        batch = len(patches)
        x = torch.cat([self.cls_token.expand(batch, -1, -1), self.registers.expand(batch, -1, -1), patches], dim=1)
        spacing = self.stride / self.patch
        return x, (height, width), self.rope.rotation(height, width, x.device, augment=self.training, spacing=spacing)

    def _patches(self, images: Tensor, mask: Tensor | None, *, pad: bool) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens [B, N, D], hidden ones replaced by the mask token, and their grid."""
        images = fit_to_patch(images, self.patch, self.config.channels, pad=pad, stride=self.stride)
        patches = self.patch_embed(images)  # [B, D, h, w]
        batch, _, height, width = patches.shape
        patches = patches.flatten(2).transpose(1, 2)  # [B, N, D]
        if mask is not None:
            hidden = check_mask(mask, batch, height, width).flatten(1)[:, :, None]
            patches = torch.where(hidden, self.mask_token.to(patches.dtype), patches)
        return patches, (height, width)

    def _features(self, x: Tensor, grid: tuple[int, int]) -> Features:
        prefix = 1 + self.num_registers
        return Features(cls=x[:, 0], registers=x[:, 1:prefix], patches=x[:, prefix:].unflatten(1, grid))

    def _check_layer(self, layer: int) -> int:
        if not 0 <= layer < self.num_layers:
            raise UsageError(f"layer {layer}", f"this model has layers 0 to {self.num_layers - 1}")
        return layer
