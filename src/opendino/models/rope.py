"""Axial rotary position embedding: where a patch lies, told to attention by turning queries and keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Turn = Callable[[Tensor], Tensor]  # what attention does to queries and keys [..., T, d]; result at least fp32

CACHE_SIZE = 32  # grids kept per model; a viewer that walks through many image sizes must not grow without end


def rope_periods(head_dim: int, base: float = 100.0, *, rounded: bool = False) -> Tensor:
    """Periods of the d/4 frequencies of one axis, [d/4] fp32: base^(4j/d), j = 0..d/4-1.

    `rounded` gives the values rounded to bfloat16, as the released checkpoints store them (up to 0.2 % off); the
    exact ones are what transformers and timm compute.
    """
    periods = base ** (torch.arange(head_dim // 4, dtype=torch.float64, device="cpu") * 4 / head_dim)
    return periods.bfloat16().float() if rounded else periods.float()


def patch_centres(height: int, width: int, spacing: float = 1.0) -> Tensor:
    """(y, x) of the patch centres, [h*w, 2] fp32 in (-1, 1), row-major; each axis is scaled by its own length.

    spacing: distance of neighbouring patches in patch sides; below 1 they overlap.
    """
    y, x = (
        (torch.arange(count, dtype=torch.float32, device="cpu") * spacing + 0.5) / ((count - 1) * spacing + 1) * 2 - 1
        for count in (height, width)
    )
    return torch.cartesian_prod(y, x)


def augment_centres(centres: Tensor, shift: float | None, jitter: float | None, rescale: float | None) -> Tensor:
    """Training only, in this order, shared by the batch: move each axis by U(-shift, shift), stretch each axis
    log-uniformly within [1/jitter, jitter], stretch both alike within [1/rescale, rescale]. Draws from torch's global
    CPU generator. Source: arXiv 2508.10104, section 3.2 (the paper trains with rescale 2 alone)."""
    if shift is not None:
        centres = centres + torch.empty(2, device="cpu").uniform_(-shift, shift)
    if jitter is not None:
        centres = centres * torch.empty(2, device="cpu").uniform_(-math.log(jitter), math.log(jitter)).exp()
    if rescale is not None:
        centres = centres * torch.empty(1, device="cpu").uniform_(-math.log(rescale), math.log(rescale)).exp()
    return centres


@dataclass(frozen=True)
class Rotation:
    """The turn of every token. cos, sin: [T, d] fp32; prefix tokens (CLS, registers) have cos 1 and sin 0.

    `sin` carries the minus sign of the first half, so that turning is `u*cos + swap_halves(u)*sin`: feature k pairs
    with feature k + d/2.
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """[..., T, d] -> the same, turned; computed in fp32 (or wider) and returned so."""
        u = u.to(torch.promote_types(u.dtype, torch.float32))
        return u * self.cos + u.roll(u.shape[-1] // 2, dims=-1) * self.sin


class AxialRope:
    """Makes the `Rotation` of a patch grid; not a module, since it holds nothing that is learned or stored.

    Feature layout of a head: quarters [y | x | y | x]. Angle of frequency j: 2 pi c / period_j, c the patch centre.
    """

    def __init__(
        self,
        head_dim: int,
        prefix: int,
        base: float = 100.0,
        *,
        rounded: bool = False,
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = None,
    ) -> None:
        self.head_dim, self.prefix, self.base, self.rounded = head_dim, prefix, base, rounded
        self.shift, self.jitter, self.rescale = shift, jitter, rescale
        self._cache: dict[tuple[int, int, float, str], Rotation] = {}

    def rotation(
        self, height: int, width: int, device: torch.device, *, augment: bool, spacing: float = 1.0
    ) -> Rotation:
        """The rotation of an h x w grid. With `augment` (training) every call draws anew where the config says so.

        We draw once per forward and crop group; the released code draws again in every block.
        """
        if augment and (self.shift, self.jitter, self.rescale) != (None, None, None):
            centres = patch_centres(height, width, spacing)
            return self._build(augment_centres(centres, self.shift, self.jitter, self.rescale), device)
        key = (height, width, spacing, str(device))
        if key not in self._cache:
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            # A tensor made in inference mode could never be used by a later training step.
            with torch.inference_mode(False):
                self._cache[key] = self._build(patch_centres(height, width, spacing), device)
        return self._cache[key]

    def _build(self, centres: Tensor, device: torch.device) -> Rotation:
        periods = rope_periods(self.head_dim, self.base, rounded=self.rounded)
        angles = (2 * math.pi * centres[:, :, None] / periods).flatten(1)  # [N, d/2]: y quarter, x quarter
        angles = torch.nn.functional.pad(angles, (0, 0, self.prefix, 0))
        cos, sin = angles.cos(), angles.sin()
        return Rotation(torch.cat([cos, cos], -1).to(device), torch.cat([-sin, sin], -1).to(device))
