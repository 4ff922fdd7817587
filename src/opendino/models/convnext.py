"""The ConvNeXt students of DINOv3: four stages of depthwise 7 x 7 blocks at strides 4, 8, 16, 32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.contract import Features
from opendino.models.layers import fit_to_patch, hide_pixels, init_linear
from opendino.models.stochastic_depth import Kept, Part, add_branch, draw_kept


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Depth and width of the four stages; `layer_scale` starts the residual factors; `drop_path` rises linearly from
    0 to this rate over the blocks (0 in every published recipe)."""

    depths: tuple[int, ...] = (3, 3, 9, 3)
    dims: tuple[int, ...] = (96, 192, 384, 768)
    channels: int = 3
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if len(self.depths) != 4 or len(self.dims) != 4:
            raise UsageError("ConvNeXtConfig", f"needs 4 depths and 4 dims, got {self.depths} and {self.dims}")
        if min(*self.depths, *self.dims, self.channels) < 1 or not 0 <= self.drop_path < 1:
            raise UsageError("ConvNeXtConfig", "depths, dims and channels must be at least 1, drop_path in [0, 1)")


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """x + gamma * pwconv2(GELU(pwconv1(LN(dwconv x))))."""

    def __init__(self, dim: int, config: ConvNeXtConfig) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), config.layer_scale))

    def forward(self, x: Tensor, kept: Kept | None = None) -> Tensor:
        """[B, C, h, w] -> the same shape; with stochastic depth the branch runs on the samples that are kept."""
        return add_branch(x, self._branch, kept)

    def _branch(self, x: Tensor) -> Tensor:
        x = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        x = self.gamma * self.pwconv2(F.gelu(self.pwconv1(x)))
        return x.permute(0, 3, 1, 2)


class ConvNeXtStage(nn.ModuleList):
    """Blocks of one width."""

    def forward(self, x: Tensor, kept: Sequence[Kept | None]) -> Tensor:
        """[B, C, h, w] -> the same shape; `kept` has one entry a block."""
        for block, rows in zip(self, kept, strict=True):
            x = block(x, rows)
        return x


class ConvNeXt(nn.Module):
    """ConvNeXt with the contract of the transformers. Source: arXiv 2508.10104, section 5.2; arXiv 2201.03545.

    CLS is the mean of the last map, taken before the final norm and then normed; registers are empty; `patch` is the
    stride 32 of the last map. `intermediate` counts stages, whose widths differ: only the last one has a real norm.
    Masks hide pixels (set to 0, the mean colour) before the stem; the paper never masks a ConvNeXt.
    """

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.patch = config.dims[-1], 32
        self.num_layers, self.num_registers = 4, 0
        self.strides = (4, 8, 16, 32)
        total = sum(config.depths)
        self.rates = [config.drop_path * index / max(total - 1, 1) for index in range(total)]
        self.downsample_layers, self.stages = nn.ModuleList(), nn.ModuleList()
        before = config.channels
        for depth, dim in zip(config.depths, config.dims, strict=True):
            if not self.stages:
                down = nn.Sequential(nn.Conv2d(before, dim, 4, stride=4), ChannelNorm(dim, eps=config.norm_eps))
            else:
                down = nn.Sequential(ChannelNorm(before, eps=config.norm_eps), nn.Conv2d(before, dim, 2, stride=2))
            self.downsample_layers.append(down)
            self.stages.append(ConvNeXtStage(ConvNeXtBlock(dim, config) for _ in range(depth)))
            before = dim
        self.norm = nn.LayerNorm(self.dim, eps=config.norm_eps)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                init_linear(module)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """[B, C, H, W] normalised -> Features of the last stage; `mask` [B, H/32, W/32] bool hides pixels.

        Raises ShapeError when a side is no multiple of 32, unless `pad` (zeros at right and bottom).
        """
        return self._features(self._maps(images, mask, pad=pad)[-1], last=True)

    def forward_crops(
        self, groups: Sequence[Tensor], masks: Sequence[Tensor | None], part: Part | None = None
    ) -> list[Features]:
        """Features of each crop group; a ConvNeXt treats global and local crops alike.

        `part`: the pictures that the groups hold of the batch; dropped rows are those of all of it.
        """
        return [
            self._features(self._maps(images, mask, pad=False, part=part)[-1], last=True)
            for images, mask in zip(groups, masks, strict=True)
        ]

    def intermediate(self, images: Tensor, layers: Sequence[int], norm: bool = True) -> list[Features]:
        """Features of the given 0-based stages, in ascending order; CLS is each map's own mean.

        `norm` acts on the last stage alone, the only one that has a norm.
        """
        for layer in layers:
            if not 0 <= layer < 4:
                raise UsageError(f"layer {layer}", "a ConvNeXt has the stages 0 to 3")
        maps = self._maps(images, None, pad=False)
        return [self._features(maps[stage], last=norm and stage == 3) for stage in sorted(set(layers))]

    def attention(self, images: Tensor, layer: int) -> Tensor:
        """Raises UsageError: convolutions have no attention."""
        raise UsageError("attention", "a ConvNeXt has none", "use similarity of patches, or a ViT")

    def _maps(self, images: Tensor, mask: Tensor | None, *, pad: bool, part: Part | None = None) -> list[Tensor]:
        x = fit_to_patch(images, self.patch, self.config.channels, pad=pad)
        if mask is not None:
            x = hide_pixels(x, mask, self.patch)
        rates = self.rates if self.training else [0.0] * len(self.rates)
        kept = iter(draw_kept(rates, len(x), part, x.device))
        maps = []
        for down, stage, depth in zip(self.downsample_layers, self.stages, self.config.depths, strict=True):
            x = stage(down(x), list(islice(kept, depth)))
            maps.append(x)
        return maps

    def _features(self, x: Tensor, *, last: bool) -> Features:
        cls, patches = x.mean((2, 3)), x.permute(0, 2, 3, 1)
        if last:
            cls, patches = self.norm(cls), self.norm(patches)
        return Features(cls=cls, registers=cls.new_zeros(len(cls), 0, cls.shape[1]), patches=patches)
