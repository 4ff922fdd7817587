"""A small ViT on the k-means stem whose CLS is the mean of its patches. Not of the paper: ours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.models.contract import Features
from opendino.models.kmeans_stem import KMeansStem
from opendino.models.vit import ViT, ViTConfig


@dataclass(frozen=True)
class KMeansViTConfig(ViTConfig):
    """A ViTConfig with the number of stem filters; the stem fixes the stride, `patch`, at 8."""

    dim: int = 192
    depth: int = 4
    heads: int = 3
    hidden: int = 768
    patch: int = 8
    registers: int = 0
    layer_scale: float = 0.1
    filters: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch != 8 or self.filters < 1:
            raise UsageError("KMeansViTConfig", "patch must be 8 (the stem's stride) and filters at least 1")


class KMeansViT(ViT):
    """The blocks of `ViT` on a `KMeansStem`; run `kmeans_stem.fit_stem(model.patch_embed, ...)` before training.

    CLS is the mean of the final-normed patches: it carries something before any training. The sequence still has its
    CLS token, as one more register, and `attention` shows that token's view. Stem windows reach 2 to 4 px into
    neighbouring patches, so a masked patch is not wholly unseen.
    """

    config: KMeansViTConfig

    def _build_stem(self, config: ViTConfig) -> nn.Module:
        assert isinstance(config, KMeansViTConfig)
        return KMeansStem(config.filters, config.dim, config.channels)

    def _features(self, x: Tensor, grid: tuple[int, int]) -> Features:
        features = super()._features(x, grid)
        return Features(cls=features.patches.mean((1, 2)), registers=features.registers, patches=features.patches)
