"""Weights made for RGB, on pictures of another number of channels."""

from __future__ import annotations

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


def stem_name(model: nn.Module) -> str:
    """The name of the first convolution's weight. Raises UsageError for the small students, whose stems differ."""
    names = model.state_dict().keys()
    for name in STEMS:
        if name in names:
            return name
    raise UsageError("channels", "this kind of model has no rule for other channels", "train it on them")
