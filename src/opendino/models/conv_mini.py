"""A small residual convolutional student for minutes on a laptop. Not of the paper: ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.contract import Features
from opendino.models.kmeans_stem import KMeansStem
from opendino.models.layers import fit_to_patch, hide_pixels
from opendino.models.stochastic_depth import Part


@dataclass(frozen=True)
class ConvMiniConfig:
    """A stem of stride 4, residual blocks there, then a strided convolution and residual blocks at stride 8.

    stem: "conv" learns its filters from noise; "kmeans" starts at k-means centres of the pictures' patches.
    stem_width: its filters. width: at stride 4. dim: at stride 8, the width of the features. inner: width between the
    two convolutions of a block at stride 8. blocks: at stride 4 and at stride 8. gain: start of the learned factor on
    each residual branch.
    """

    stem: Literal["conv", "kmeans"] = "conv"
    stem_width: int = 48
    width: int = 48
    dim: int = 128
    inner: int = 64
    blocks: tuple[int, int] = (1, 1)
    gain: float = 0.2
    channels: int = 3

    def __post_init__(self) -> None:
        if min(self.stem_width, self.width, self.dim, self.inner, self.channels) < 1 or min(self.blocks) < 0:
            raise UsageError("ConvMiniConfig", "widths and channels must be at least 1, blocks at least 0")
        if self.stem not in ("conv", "kmeans"):
            raise UsageError("ConvMiniConfig stem", f"must be conv or kmeans, got {self.stem!r}")


def _conv(
    before: int, after: int, kernel: int, stride: int = 1, padding: Literal["zeros", "replicate"] = "zeros"
) -> nn.Sequential:
    """Convolution and BatchNorm. A window of more than the stride, padded so that the map is input / stride."""
    margin = (kernel - stride + 1) // 2
    conv = nn.Conv2d(before, after, kernel, stride, margin, bias=False, padding_mode=padding)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class ConvMiniBlock(nn.Module):
    """relu(x + gamma * conv(relu(conv x))), 3 x 3 convolutions with their norms."""

    def __init__(self, width: int, inner: int, gain: float) -> None:
        super().__init__()
        self.conv1 = _conv(width, inner, 3)
        self.conv2 = _conv(inner, width, 3)
        self.gamma = nn.Parameter(torch.full((width, 1, 1), gain))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        return F.relu(x + self.gamma * self.conv2(F.relu(self.conv1(x))))


class ConvMini(nn.Module):
    """Two residual stages on a stem of stride 4, with the contract of the transformers. Not of the paper.

    CLS is the mean of the last map, standardised (BatchNorm without affine part: every direction counts alike, as k-NN
    wants it); patches are the map, standardised; registers are empty. Masks hide pixels (0, the mean colour).
    `intermediate` counts stages; only the last one has a norm. In training mode all norms use the batch at hand; for
    eval mode `batch_norm.calibrate` sets their statistics from pictures at the size at which they will be read.
    """

    num_layers, num_registers, patch, strides = 2, 0, 8, (4, 8)

    def __init__(self, config: ConvMiniConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        self.stem: nn.Module
        if config.stem == "kmeans":
            self.stem = KMeansStem(config.stem_width, config.channels)
        else:
            half = max(8, config.stem_width // 2)
            # A frame of zeros around the picture would be an edge that is not there. In deeper layers repeated margins
            # cost 30 % of the step for a score that is level (LOG.md).
            first = _conv(config.channels, half, 4, 2, padding="replicate")
            second = _conv(half, config.stem_width, 3, 2)
            self.stem = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        widen = [] if config.width == config.stem_width else [_conv(config.stem_width, config.width, 1), nn.ReLU()]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*widen, *(self._block(config.width, config.width) for _ in range(config.blocks[0]))),
                nn.Sequential(
                    _conv(config.width, config.dim, 3, 2),
                    nn.ReLU(),
                    *(self._block(config.dim, config.inner) for _ in range(config.blocks[1])),
                ),
            ]
        )
        self.cls_norm = nn.BatchNorm1d(config.dim, affine=False)
        self.patch_norm = nn.BatchNorm2d(config.dim, affine=False)
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            # 20 to 35 % faster on a CPU.
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)

    def _block(self, width: int, inner: int) -> nn.Module:
        return ConvMiniBlock(width, inner, self.config.gain)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """[B, C, H, W] normalised -> Features; `mask` [B, h, w] bool hides pixels.

        Raises ShapeError when a side is no multiple of 8, unless `pad` (zeros at right and bottom).
        """
        return self._features(self._maps(images, mask, pad=pad)[-1], norm=True)

    def forward_crops(
        self, groups: Sequence[Tensor], masks: Sequence[Tensor | None], part: Part | None = None
    ) -> list[Features]:
        """Features of each crop group; norms take their statistics over each group alone, so over a part alone too."""
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
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def _features(self, x: Tensor, *, norm: bool) -> Features:
        cls = x.mean((2, 3))
        if norm:
            cls, x = self.cls_norm(cls), self.patch_norm(x)
        return Features(cls=cls, registers=cls.new_zeros(len(cls), 0, cls.shape[1]), patches=x.permute(0, 2, 3, 1))
