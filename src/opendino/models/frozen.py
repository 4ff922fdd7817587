"""A backbone that stays as it is while something on it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opendino.models.contract import Features
from opendino.models.stochastic_depth import Part


class Frozen(nn.Module):
    """The contract of a backbone without parameters: the one inside is shared, in eval mode and without gradient.

    Copies share it too, and a state dict does not hold it: it comes from its own file. Move it to its device before.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        inner: Any = backbone.eval().requires_grad_(False)
        # In a tuple, so that `train`, `parameters` and `state_dict` do not reach it.
        self._inner: tuple[Any] = (inner,)
        self.dim, self.patch, self.strides = inner.dim, inner.patch, inner.strides
        self.num_layers, self.num_registers = inner.num_layers, inner.num_registers

    @property
    def backbone(self) -> nn.Module:
        """The one inside."""
        inner: nn.Module = self._inner[0]
        return inner

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self

    def forward(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """As the backbone inside."""
        with torch.no_grad():
            features: Features = self._inner[0](images, mask=mask, pad=pad)
        return features

    def forward_crops(
        self, groups: Sequence[Tensor], masks: Sequence[Tensor | None], part: Part | None = None
    ) -> list[Features]:
        """As the backbone inside, which reads crops as it reads pictures: without anything random."""
        return [self(images, mask=mask) for images, mask in zip(groups, masks, strict=True)]
