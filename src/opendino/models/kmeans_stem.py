"""A first layer that starts at what the pictures look like: whitened k-means centres of their patches. Not of the
paper: it gives a student that learns for minutes edges and colours from the first step on."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import DataError

WINDOW, STRIDE = 8, 4
CONTRAST_FLOOR = 0.01  # of normalised pixels: keeps flat patches flat instead of blowing up their noise
WHITENING_FLOOR = 0.1
SAMPLED_PATCHES, ROUNDS = 40_000, 10
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class KMeansStem(nn.Module):
    """[B, C, H, W] -> [B, D, H/8, W/8]: filters, local contrast division, GELU, 2 x 2 mean, standardise, linear.

    Each 8 x 8 window (stride 4) is freed from its mean and divided by its standard deviation over all its pixels
    before the filters see it. Everything is trained; `fit_stem` sets the start. H and W are multiples of 8.
    """

    def __init__(self, filters: int, dim: int, channels: int = 3) -> None:
        super().__init__()
        self.filters = nn.Conv2d(channels, filters, WINDOW, STRIDE, padding=(WINDOW - STRIDE) // 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(filters))
        self.shift = nn.Parameter(torch.zeros(filters))
        self.scale = nn.Parameter(torch.ones(filters))
        self.linear = nn.Conv2d(filters, dim, 1)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(cast(Tensor, self.linear.bias))

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, D, H/8, W/8]."""
        pooled = (self.responses(images) + self.shift[:, None, None]) * self.scale[:, None, None]
        return self.linear(pooled)

    def responses(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, F, H/8, W/8], before standardising."""
        padding = (WINDOW - STRIDE) // 2
        mean = F.avg_pool2d(images.mean(1, keepdim=True), WINDOW, STRIDE, padding)
        square = F.avg_pool2d(images.square().mean(1, keepdim=True), WINDOW, STRIDE, padding)
        contrast = ((square - mean.square()).clamp(min=0) + CONTRAST_FLOOR).sqrt()
        weight = self.filters.weight
        raw = F.conv2d(images, weight, None, STRIDE, padding)
        # w.(patch - mean) = w.patch - mean * sum(w): exact also when training moves the filters off zero sum.
        raw = (raw - mean * weight.sum((1, 2, 3))[:, None, None]) / contrast
        return F.avg_pool2d(F.gelu(raw + self.bias[:, None, None]), 2)


@torch.no_grad()
def fit_stem(
    stem: KMeansStem,
    images: Tensor,
    seed: int,
    *,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> None:
    """Start a stem from pictures, in place, in seconds; the same pictures and seed give the same stem.

    Filters: spherical k-means centres of whitened, contrast-normalised patches. Standardising: mean 0 and standard
    deviation 1 of every pooled filter over the pictures.

    Args:
        images: [N, C, H, W]; uint8, to be normalised by `mean` and `std`, or float, normalised already.
    Raises:
        DataError: no picture, or pictures smaller than 8 x 8.
    """
    if images.ndim != 4 or not len(images) or min(images.shape[-2:]) < WINDOW:
        raise DataError(f"pictures {list(images.shape)}", f"need [N, C, H, W], N at least 1, sides at least {WINDOW}")
    generator = torch.Generator().manual_seed(seed)
    images = images.cpu()

    def normalised(some: Tensor) -> Tensor:
        if some.dtype != torch.uint8:
            return some.float()
        return (some.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    patches = _sample_patches(images, generator)
    patches = normalised(patches).flatten(1)
    patches = patches - patches.mean(1, keepdim=True)
    patches = patches / (patches.var(1, keepdim=True, correction=0) + CONTRAST_FLOOR).sqrt()
    values, vectors = torch.linalg.eigh((patches - patches.mean(0)).T.cov(correction=0))
    whiten = vectors @ torch.diag((values.clamp(min=0) + WHITENING_FLOOR).rsqrt()) @ vectors.T
    centres = _spherical_kmeans((patches - patches.mean(0)) @ whiten, stem.filters.out_channels, generator)
    device = stem.filters.weight.device
    stem.filters.weight.copy_((centres @ whiten).view_as(stem.filters.weight))
    stem.bias.zero_()

    chosen = torch.randperm(len(images), generator=generator)[:512]
    height, width = (side // 8 * 8 for side in images.shape[-2:])
    pooled = torch.cat(
        [
            stem.responses(normalised(images[part, :, :height, :width]).to(device))
            .flatten(2)
            .transpose(1, 2)
            .flatten(0, 1)
            for part in chosen.split(32)
        ]
    )
    stem.shift.copy_(-pooled.mean(0))
    stem.scale.copy_(1 / pooled.std(0, correction=0).clamp(min=1e-4))


def _sample_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """[M, C, 8, 8] windows at random places, uint8 or float as the pictures are."""
    count, _, height, width = images.shape
    which = torch.randint(count, (SAMPLED_PATCHES,), generator=generator)
    top = torch.randint(height - WINDOW + 1, (SAMPLED_PATCHES,), generator=generator)
    left = torch.randint(width - WINDOW + 1, (SAMPLED_PATCHES,), generator=generator)
    windows = images.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)  # a view: [N, C, H-7, W-7, 8, 8]
    return windows[which, :, top, left]


def _spherical_kmeans(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """[M, d] -> [clusters, d] unit vectors; each point counts by its length along its nearest centre."""
    centres = F.normalize(points[torch.randint(len(points), (clusters,), generator=generator)], dim=1)
    for _ in range(ROUNDS):
        similarity, nearest = (points @ centres.T).max(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points * similarity[:, None])
        empty = torch.bincount(nearest, minlength=clusters) == 0
        fresh = points[torch.randint(len(points), (clusters,), generator=generator)]
        centres = F.normalize(torch.where(empty[:, None], fresh, sums), dim=1)
    return centres
