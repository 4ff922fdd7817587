"""How patch features are kept: fp16, int8 with one scale a patch, or int8 of their PCA; with the loss measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.errors import UsageError

PatchKind = Literal["none", "fp16", "int8", "pca"]
KINDS: tuple[PatchKind, ...] = ("none", "fp16", "int8", "pca")
PCA_DIMS = 128
_COMPARED = 512


@dataclass(frozen=True)
class Basis:
    """Principal directions of patches: mean [D], components [k, D] rows of length 1, step [k]: one int8 unit each."""

    mean: Tensor
    components: Tensor
    step: Tensor


@dataclass(frozen=True)
class PatchCodec:
    """Turns [n, D] float32 patches into numbers to store and back. basis: for `pca` alone."""

    kind: PatchKind
    basis: Basis | None = None

    def encode(self, patches: Tensor) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
        """Values of n patches in a row (float16 or int8), and for `int8` the n scales of the patches."""
        none = np.empty(0, np.float32)
        if self.kind == "fp16":
            return patches.half().flatten().numpy(), none
        if self.kind == "int8":
            scale = patches.abs().amax(1).clamp(min=1e-12) / 127
            return (patches / scale[:, None]).round().to(torch.int8).flatten().numpy(), scale.numpy()
        assert self.basis is not None
        scores = (patches - self.basis.mean) @ self.basis.components.T / self.basis.step
        return scores.round().clamp(-127, 127).to(torch.int8).flatten().numpy(), none

    def decode(self, values: NDArray[np.generic], scales: NDArray[np.float32], count: int) -> Tensor:
        """The inverse of `encode` up to its loss: [count, D] float32."""
        stored = torch.from_numpy(np.array(values)).float().view(count, -1)
        if self.kind == "int8":
            return stored * torch.from_numpy(np.array(scales))[:, None]
        if self.kind == "pca":
            assert self.basis is not None
            return (stored * self.basis.step) @ self.basis.components + self.basis.mean
        return stored

    @property
    def value_type(self) -> str:
        """Of one stored number, in Arrow's words."""
        return "float16" if self.kind == "fp16" else "int8"


def find_kind(name: str) -> PatchKind:
    """The kind of this name. Raises UsageError naming them all."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise UsageError(f"--patches {name}", "no such form", f"forms: {', '.join(KINDS)}")


def fit_basis(patches: Tensor, dims: int = PCA_DIMS) -> Basis:
    """PCA of [n, D] patches; the steps let the sample's largest score fit into int8 with a fifth to spare."""
    mean = patches.mean(0)
    centred = (patches - mean).double()
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)[:dims]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    components = (directions * torch.where(largest < 0, -1.0, 1.0)).float().contiguous()
    step = ((patches - mean) @ components.T).abs().amax(0).clamp(min=1e-12) * 1.2 / 127
    return Basis(mean, components, step)


@dataclass(frozen=True)
class PatchLoss:
    """What keeping patches in a smaller form costs, on a sample.

    cosine_mean, cosine_worst: between a patch and its stored form. neighbour_kept: share of patches whose nearest
    patch in the other pictures stays the same.
    """

    cosine_mean: float
    cosine_worst: float
    neighbour_kept: float


def measure_loss(codec: PatchCodec, pictures: Sequence[Tensor]) -> PatchLoss:
    """Loss on patches [n_i, D] of a few pictures; with one picture no neighbour is asked and `neighbour_kept` is 1."""
    patches = torch.cat(list(pictures))
    owner = torch.repeat_interleave(torch.arange(len(pictures)), torch.tensor([len(one) for one in pictures]))
    stored = codec.decode(*codec.encode(patches), len(patches))
    cosine = F.cosine_similarity(patches, stored)
    kept = 1.0
    if len(pictures) > 1:
        asked = torch.linspace(0, len(patches) - 1, min(_COMPARED, len(patches))).long()
        found = [_nearest(form, asked, owner) for form in (patches, stored)]
        kept = float((found[0] == found[1]).float().mean())
    return PatchLoss(float(cosine.mean()), float(cosine.min()), kept)


def _nearest(patches: Tensor, asked: Tensor, owner: Tensor) -> Tensor:
    unit = F.normalize(patches, dim=1)
    alike = unit[asked] @ unit.T
    return alike.masked_fill(owner[asked][:, None] == owner, -2).argmax(1)
