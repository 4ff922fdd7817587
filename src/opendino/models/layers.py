"""The small parts that the backbones are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import ShapeError
from opendino.models.rope import Turn


def init_linear(linear: nn.Linear | nn.Conv2d) -> None:
    """Truncated normal of std 0.02, bias 0 (the paper's ViT and heads)."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def fit_to_patch(images: Tensor, patch: int, channels: int, *, pad: bool, stride: int | None = None) -> Tensor:
    """Check [B, C, H, W] images against the patch grid; with `pad` add zeros at right and bottom.

    Patches of `patch` pixels lie `stride` (default: `patch`) apart and must cover the image exactly.
    Raises ShapeError naming the sizes and the two ways out.
    """
    if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
        raise ShapeError(
            f"images {list(images.shape)}",
            f"must be [B, {channels}, H, W]",
            "stack pictures of one size into a batch; for other channels load the model with channels=C",
        )
    stride = stride or patch
    height, width = images.shape[-2:]
    bottom, right = (max(patch - side, 0) or -(side - patch) % stride for side in (height, width))
    if not (right or bottom):
        return images
    if not pad:
        rule = f"multiples of the patch size {patch}" if stride == patch else f"{patch} + a multiple of {stride}"
        raise ShapeError(
            f"images of {height} x {width} px (height x width)",
            f"both must be {rule}",
            f"pass pad=True (zeros at right and bottom: {height + bottom} x {width + right}) or resize",
        )
    return F.pad(images, (0, right, 0, bottom))


def check_mask(mask: Tensor, batch: int, height: int, width: int) -> Tensor:
    """A bool mask of [B, h, w], True = hidden. Raises ShapeError naming both shapes."""
    if tuple(mask.shape) != (batch, height, width) or mask.dtype != torch.bool:
        raise ShapeError(
            f"mask {list(mask.shape)} {mask.dtype}", f"must be bool [{batch}, {height}, {width}]: one flag per patch"
        )
    return mask


def hide_pixels(images: Tensor, mask: Tensor, patch: int) -> Tensor:
    """Set the pixels of hidden patches to 0, the mean colour; for networks without tokens.

    images: [B, C, H, W] normalised; mask: [B, H/patch, W/patch] bool. Ours: the paper never masks a ConvNeXt.
    """
    mask = check_mask(mask, images.shape[0], images.shape[2] // patch, images.shape[3] // patch)
    pixels = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return images.masked_fill(pixels[:, None], 0.0)


class LayerScale(nn.Module):
    """A learned factor per feature on a residual branch; `init` small lets a deep net start near the identity."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return x * self.gamma


class Mlp(nn.Module):
    """fc2(GELU(fc1 x)), exact (erf) GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """w3(silu(w1 x) * w2 x): the gate is the first projection."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


def swiglu_hidden(dim: int, ratio: float, align: int = 8) -> int:
    """Hidden width of a SwiGLU that costs as much as an MLP of `ratio`: 2/3 of it, rounded up to `align`."""
    two_thirds = int(int(dim * ratio) * 2 / 3)
    return -(-two_thirds // align) * align


class QkvLinear(nn.Linear):
    """One projection to queries, keys and values; the key part of the bias is masked, as softmax ignores it.

    `bias_mask` [3D] is 1 for q, 0 for k (1 with `mask_k` off) and 1 for v.
    """

    bias_mask: Tensor

    def __init__(self, dim: int, *, bias: bool, mask_k: bool) -> None:
        super().__init__(dim, 3 * dim, bias=bias)
        if bias:
            mask = torch.ones(3, dim)
            if mask_k:
                mask[1] = 0
            self.register_buffer("bias_mask", mask.flatten())

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., 3D]: all of q, then k, then v."""
        return F.linear(x, self.weight, None if self.bias is None else self.bias * self.bias_mask)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions; softmax(q k / sqrt d) v, then a projection."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True, mask_k_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = QkvLinear(dim, bias=qkv_bias, mask_k=mask_k_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor, rotation: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, D] -> q, k (turned, at least fp32) and v, each [B, heads, T, d]."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return rotation(q), rotation(k), v

    def forward(self, x: Tensor, rotation: Turn) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        q, k, v = self.project(x, rotation)
        if x.device.type == "cpu":
            # In bf16 the backward pass of fused attention is about five times slower on CPUs (measured).
            with torch.autocast("cpu", enabled=False):
                out = F.scaled_dot_product_attention(q, k, v.to(q.dtype)).to(v.dtype)
        else:
            out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, rotation: Turn, queries: int | None = None) -> Tensor:
        """The attention that `forward` applies without showing: [B, heads, Q, T], rows sum to 1.

        `queries` keeps only the first Q tokens as queries, since T x T of a large image does not fit in memory.
        """
        q, k, _ = self.project(x, rotation)
        return torch.softmax(q[:, :, :queries] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
