"""What every backbone returns and answers to: the one type between models and everything after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from opendino.models.stochastic_depth import Part


@dataclass(frozen=True)
class Features:
    """Final-normed tokens of a batch of images.

    cls: [B, D]; registers: [B, R, D] (R may be 0); patches: [B, h, w, D], row-major grid.
    """

    cls: Tensor
    registers: Tensor
    patches: Tensor


class Backbone(Protocol):
    """The contract of ARCHITECTURE section 3; `tests/contract/` runs every family member through it."""

    dim: int
    patch: int
    num_layers: int
    num_registers: int
    strides: tuple[int, ...]

    def __call__(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """[B, C, H, W] float, normalised -> Features. `mask` [B, h, w] bool, True = hidden.

        Raises ShapeError when H or W is no multiple of `patch`, unless `pad` (zeros at right and bottom).
        """
        ...

    def forward_crops(
        self, groups: Sequence[Tensor], masks: Sequence[Tensor | None], part: Part | None = None
    ) -> list[Features]:
        """Training forward over crop groups of different sizes: group 0 holds global crops, the others local ones.

        `part`: the pictures of the batch that the groups belong to, when they are not all of it; what is drawn is the
        same for a picture whichever part it comes in.
        """
        ...

    def intermediate(self, images: Tensor, layers: Sequence[int], norm: bool = True) -> list[Features]:
        """Features after the given 0-based layers, in ascending order; `norm` applies the final norm to each."""
        ...

    def attention(self, images: Tensor, layer: int) -> Tensor:
        """CLS-to-patch attention [B, heads, h, w] of one layer."""
        ...
