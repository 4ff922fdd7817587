"""A first layer that starts at what the pictures look like: whitened k-means centres of their patches. Not of the
paper: it gives a student that learns for minutes edges and colours from the first step on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import DataError

WINDOW, STRIDE = 6, 2
CONTRAST_FLOOR = 0.01  # of normalised pixels: keeps flat patches flat instead of blowing up their noise
WHITENING_FLOOR = 0.1
SPARSITY = -0.3  # start of the bias before the ReLU, in standard deviations
SAMPLED_PATCHES, ROUNDS = 40_000, 12


class KMeansStem(nn.Module):
    """[B, C, H, W] -> [B, filters, H/4, W/4]: filters on contrast-normalised windows, BatchNorm, ReLU, 2 x 2 mean.

    Each 6 x 6 window (stride 2) is divided by its standard deviation before the filters, which sum to 0, see it.
    Everything is trained; `fit` sets the start. H and W are multiples of 4. Source: k-means features after Coates, Lee
    and Ng, AISTATS 2011.
    """

    def __init__(self, filters: int, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, WINDOW, STRIDE, bias=False)
        self.norm = nn.BatchNorm2d(filters)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.constant_(self.norm.bias, SPARSITY)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, filters, H/4, W/4]."""
        # Repeated border pixels: a frame of zeros would be an edge that is not there.
        images = F.pad(images, [(WINDOW - STRIDE) // 2] * 4, mode="replicate")
        mean = F.avg_pool2d(images.mean(1, keepdim=True), WINDOW, STRIDE)
        square = F.avg_pool2d(images.square().mean(1, keepdim=True), WINDOW, STRIDE)
        contrast = ((square - mean.square()).clamp(min=0) + CONTRAST_FLOOR).rsqrt()
        return F.avg_pool2d(F.relu(self.norm(self.conv(images) * contrast)), 2)

    @torch.no_grad()
    def fit(self, images: Tensor, seed: int) -> None:
        """Start the filters at spherical k-means centres of whitened, contrast-normalised patches, in seconds.

        Args:
            images: [N, C, H, W] float, normalised; some thousands are plenty.
            seed: the same pictures and seed give the same filters.
        Raises:
            DataError: no picture, or pictures smaller than 6 x 6.
        """
        if images.ndim != 4 or not len(images) or min(images.shape[-2:]) < WINDOW:
            raise DataError(f"pictures {list(images.shape)}", f"need at least one, with sides of at least {WINDOW} px")
        generator = torch.Generator().manual_seed(seed)
        patches = _sample_patches(images.float().cpu(), generator).flatten(1)
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches / (patches.var(1, keepdim=True) + CONTRAST_FLOOR).sqrt()
        patches = patches - patches.mean(0)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        whiten = vectors @ torch.diag((values.clamp(min=0) + WHITENING_FLOOR).rsqrt()) @ vectors.T
        filters = _spherical_kmeans(patches @ whiten, self.conv.out_channels, generator) @ whiten
        self.conv.weight.copy_((filters - filters.mean(1, keepdim=True)).view_as(self.conv.weight))


def _sample_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """[M, C, 6, 6] windows at random places."""
    count, _, height, width = images.shape
    which = torch.randint(count, (SAMPLED_PATCHES,), generator=generator)
    top = torch.randint(height - WINDOW + 1, (SAMPLED_PATCHES,), generator=generator)
    left = torch.randint(width - WINDOW + 1, (SAMPLED_PATCHES,), generator=generator)
    windows = images.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)  # a view: [N, C, H-5, W-5, 6, 6]
    return windows[which, :, top, left]


def _spherical_kmeans(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """[M, d] -> [clusters, d] unit vectors; each point counts by its length."""
    centres = F.normalize(points[torch.randint(len(points), (clusters,), generator=generator)], dim=1)
    for _ in range(ROUNDS):
        nearest = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        empty = torch.bincount(nearest, minlength=clusters) == 0
        fresh = points[torch.randint(len(points), (clusters,), generator=generator)]
        centres = F.normalize(torch.where(empty[:, None], fresh, sums), dim=1)
    return centres
