"""Key maps between our modules and the Hugging Face layout, as data that is read in both directions.

transformers 4 and 5 differ in a prefix of the blocks (`layer.` and `model.layer.`; `stages.` and `model.stages.`); both
write the shorter form, which is what we write. Prefixes that wrappers leave in front are taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.models.conv_mini import ConvMiniConfig
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.family import Config
from opendino.models.vit import ViTConfig

OUTER_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")


@dataclass(frozen=True)
class Rule:
    """One tensor of ours and what holds it in the file.

    theirs: the names in the file, to be stacked along dimension 0 in this order; None stands for rows of zeros that
        the file does not keep; no name at all for a constant, whose three parts have the values `thirds`.
    lead: the file has one more dimension of size 1 in front.
    """

    ours: str
    theirs: tuple[str | None, ...]
    lead: bool = False
    thirds: tuple[float, float, float] | None = None


_VIT_OUTSIDE = (
    ("cls_token", "embeddings.cls_token"),
    ("registers", "embeddings.register_tokens"),
    ("patch_embed.weight", "embeddings.patch_embeddings.weight"),
    ("patch_embed.bias", "embeddings.patch_embeddings.bias"),
    ("norm.weight", "norm.weight"),
    ("norm.bias", "norm.bias"),
)
_VIT_BLOCK = (
    ("norm1.weight", "norm1.weight"),
    ("norm1.bias", "norm1.bias"),
    ("attn.proj.weight", "attention.o_proj.weight"),
    ("attn.proj.bias", "attention.o_proj.bias"),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("norm2.weight", "norm2.weight"),
    ("norm2.bias", "norm2.bias"),
    ("ls2.gamma", "layer_scale2.lambda1"),
)
_MLP = (("mlp.fc1", "mlp.up_proj"), ("mlp.fc2", "mlp.down_proj"))
_SWIGLU = (("mlp.w1", "mlp.gate_proj"), ("mlp.w2", "mlp.up_proj"), ("mlp.w3", "mlp.down_proj"))
_CONVNEXT_BLOCK = (
    ("dwconv.weight", "depthwise_conv.weight"),
    ("dwconv.bias", "depthwise_conv.bias"),
    ("norm.weight", "layer_norm.weight"),
    ("norm.bias", "layer_norm.bias"),
    ("pwconv1.weight", "pointwise_conv1.weight"),
    ("pwconv1.bias", "pointwise_conv1.bias"),
    ("pwconv2.weight", "pointwise_conv2.weight"),
    ("pwconv2.bias", "pointwise_conv2.bias"),
    ("gamma", "gamma"),
)


def rules_for(config: Config, ours: Mapping[str, Tensor]) -> list[Rule]:
    """The rules of a config. `ours`: the module's state (tensors may be on the meta device).

    The small students that are not of the paper are stored under our own names.
    """
    if isinstance(config, ConvMiniConfig):
        return [Rule(name, (name,)) for name in ours]
    return _vit_rules(config) if isinstance(config, ViTConfig) else _convnext_rules(config)


def _vit_rules(config: ViTConfig) -> list[Rule]:
    rules = [Rule(ours, (theirs,)) for ours, theirs in _VIT_OUTSIDE]
    rules.append(Rule("mask_token", ("embeddings.mask_token",), lead=True))
    if config.local_cls_norm:
        # Used in training alone; transformers has no place for it, reports the two names and goes on.
        rules += [Rule(f"local_cls_norm.{part}", (f"local_cls_norm.{part}",)) for part in ("weight", "bias")]
    for index in range(config.depth):
        block, layer = f"blocks.{index}.", f"layer.{index}."
        q, k, v = (f"{layer}attention.{letter}_proj." for letter in "qkv")
        rules += [Rule(block + ours, (layer + theirs,)) for ours, theirs in _VIT_BLOCK]
        for ours, theirs in _SWIGLU if config.swiglu else _MLP:
            rules += [Rule(f"{block}{ours}.{part}", (f"{layer}{theirs}.{part}",)) for part in ("weight", "bias")]
        rules.append(Rule(f"{block}attn.qkv.weight", (q + "weight", k + "weight", v + "weight")))
        if config.qkv_bias:
            k_bias = None if config.mask_k_bias else k + "bias"
            rules.append(Rule(f"{block}attn.qkv.bias", (q + "bias", k_bias, v + "bias")))
            thirds = (1.0, 0.0 if config.mask_k_bias else 1.0, 1.0)
            rules.append(Rule(f"{block}attn.qkv.bias_mask", (), thirds=thirds))
    return rules


def _convnext_rules(config: ConvNeXtConfig) -> list[Rule]:
    rules = [Rule(f"norm.{part}", (f"layer_norm.{part}",)) for part in ("weight", "bias")]
    for stage, depth in enumerate(config.depths):
        for index in (0, 1):
            for part in ("weight", "bias"):
                ours = f"downsample_layers.{stage}.{index}.{part}"
                rules.append(Rule(ours, (f"stages.{stage}.downsample_layers.{index}.{part}",)))
        for block in range(depth):
            for ours, theirs in _CONVNEXT_BLOCK:
                rules.append(Rule(f"stages.{stage}.{block}.{ours}", (f"stages.{stage}.layers.{block}.{theirs}",)))
    return rules


def strip_outer(name: str) -> str:
    """A file's tensor name without what wrappers and transformers 5 put in front."""
    while prefix := next((prefix for prefix in OUTER_PREFIXES if name.startswith(prefix)), None):
        name = name[len(prefix) :]
    return name


def shapes_in_file(rule: Rule, ours: Tensor) -> dict[str, tuple[int, ...]]:
    """What the file must hold for one tensor of ours, which may be on the meta device: name -> shape."""
    shape = tuple(ours.shape)
    if rule.lead:
        shape = (1, *shape)
    elif len(rule.theirs) > 1:
        shape = (shape[0] // len(rule.theirs), *shape[1:])
    return {name: shape for name in rule.theirs if name is not None}


def to_ours(rule: Rule, tensors: Mapping[str, Tensor], ours: Tensor) -> Tensor:
    """One tensor of ours, a fresh one, from the tensors of a file whose shapes have been checked."""
    if rule.thirds is not None:
        return torch.tensor(rule.thirds).repeat_interleave(ours.shape[0] // 3)
    rows = ours.shape[0] // len(rule.theirs) if len(rule.theirs) > 1 else 0
    parts = [torch.zeros(rows, *ours.shape[1:]) if name is None else tensors[name] for name in rule.theirs]
    dtype = torch.float32 if parts[0].is_floating_point() else parts[0].dtype
    whole = torch.cat([part.to(dtype) for part in parts]) if len(parts) > 1 else parts[0].to(dtype, copy=True)
    return whole[0] if rule.lead else whole


def to_theirs(rule: Rule, ours: Tensor) -> dict[str, Tensor]:
    """The file's tensors that hold one of ours; constants and masked rows are left out."""
    if rule.lead:
        ours = ours[None]
    parts = ours.chunk(len(rule.theirs)) if len(rule.theirs) > 1 else (ours,) * len(rule.theirs)
    return {name: part.contiguous() for name, part in zip(rule.theirs, parts, strict=True) if name is not None}
