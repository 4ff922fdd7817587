"""DINOv2's vision transformer: the ViT of `vit.py` with a learned table of positions instead of rotary ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.rope import Turn
from opendino.models.vit import ViT, ViTConfig


@dataclass(frozen=True)
class Dinov2Config(ViTConfig):
    """A ViTConfig with DINOv2's defaults; its `rope_*` fields mean nothing here.

    position_side: the table holds position_side x position_side patches (37 for 518 px).
    position_resize: how the table meets another grid, always bicubic in fp32. `antialias`: to the grid's size, with
        antialias (the released models with registers; timm). `plain`: the same without antialias (transformers'
        Dinov2). `offset`: by the factors (h + 0.1) / side and (w + 0.1) / side (the released models without registers).
    """

    patch: int = 14
    registers: int = 0
    mask_k_bias: bool = False
    layer_scale: float = 1.0
    norm_eps: float = 1e-6
    position_side: int = 37
    position_resize: Literal["antialias", "plain", "offset"] = "antialias"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position_side < 1:
            raise UsageError("Dinov2Config position_side", f"must be at least 1, got {self.position_side}")
        if self.position_resize not in ("antialias", "plain", "offset"):
            raise UsageError("Dinov2Config position_resize", f"unknown: {self.position_resize}")


class Dinov2(ViT):
    """DINOv2. Source: arXiv 2304.07193; registers: arXiv 2309.16588.

    Tokens: [CLS][registers][patches]; CLS and patches get a learned position each, registers none.
    """

    config: Dinov2Config

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__(config)
        self.cls_position = nn.Parameter(torch.empty(1, 1, config.dim))
        self.positions = nn.Parameter(torch.empty(1, config.position_side**2, config.dim))
        for token in (self.cls_token, self.registers):
            if token.numel():
                nn.init.normal_(token, std=1e-6)
        nn.init.trunc_normal_(self.cls_position, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def _embed(self, images: Tensor, mask: Tensor | None, *, pad: bool) -> tuple[Tensor, tuple[int, int], Turn]:
        patches, grid = self._patches(images, mask, pad=pad)
        batch = len(patches)
        cls = (self.cls_token + self.cls_position).expand(batch, -1, -1)
        patches = patches + self._positions_of(grid).to(patches.dtype)
        return torch.cat([cls, self.registers.expand(batch, -1, -1), patches], dim=1), grid, _unturned

    def _positions_of(self, grid: tuple[int, int]) -> Tensor:
        """The table at the size of a grid, [1, h*w, D]. Overlapping patches count as a finer grid of the same image."""
        side = self.config.position_side
        if grid == (side, side):
            return self.positions
        table = self.positions.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.config.position_resize == "offset":
            # The kernel samples by the factor itself, so the 0.1 moves every sample a little.
            factors = tuple((count + 0.1) / side for count in grid)
            table = F.interpolate(table, scale_factor=factors, mode="bicubic")
            if tuple(table.shape[-2:]) != grid:
                raise AssertionError(f"a table of {side} scaled to {tuple(table.shape[-2:])}, {grid} wanted")
        else:
            antialias = self.config.position_resize == "antialias"
            table = F.interpolate(table, size=grid, mode="bicubic", antialias=antialias)
        return table.flatten(2).transpose(1, 2)


def _unturned(u: Tensor) -> Tensor:
    return u.to(torch.promote_types(u.dtype, torch.float32))
