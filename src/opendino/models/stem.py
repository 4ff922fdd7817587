"""The first convolution of given weights, for pictures of other channels or patches of another side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import UsageError

STEMS = ("patch_embed.weight", "downsample_layers.0.0.weight")


def adapt_stem(weight: Tensor, channels: int) -> Tensor:
    """The first convolution's weight [D, 3, P, P] for C channels: [D, C, P, P], every channel m * 3/C.

    m is the mean over R, G and B. A grey picture, equal in all channels, gets the response that it had as RGB:
    sum over C of (3/C) m g = (w_R + w_G + w_B) g; with C = 1 this is the sum of the three. All channels start alike and
    come apart in training: nothing says which of them resembles red. With C as it was, the weight itself.
    """
    before = weight.shape[1]
    if channels == before:
        return weight
    return (weight.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1).contiguous()


def resample_patch(weight: Tensor, patch: int) -> Tensor:
    """The projection [D, C, P, P] of patches, for patches of side `patch`: [D, C, patch, patch].

    The least-squares solution of FlexiViT (arXiv 2212.08013): a patch that is enlarged bilinearly, linear operator B,
    gets the token that it had, B(x) . new = x . old. With the side as it was, the weight itself.
    """
    before = weight.shape[-1]
    if patch == before:
        return weight
    basis = torch.eye(before * before, dtype=torch.float64).reshape(-1, 1, before, before)
    enlarge = F.interpolate(basis, size=(patch, patch), mode="bilinear", antialias=patch < before).flatten(1)
    flat = weight.double().flatten(2) @ torch.linalg.pinv(enlarge).T
    return flat.to(weight.dtype).reshape(*weight.shape[:2], patch, patch).contiguous()


def stem_name(model: nn.Module) -> str:
    """The name of the first convolution's weight. Raises UsageError for the small students, whose stems differ."""
    names = model.state_dict().keys()
    for name in STEMS:
        if name in names:
            return name
    raise UsageError("channels", "this kind of model has no rule for other ones", "train it on them")
