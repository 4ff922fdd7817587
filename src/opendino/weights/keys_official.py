"""Key map of the official flat layout of DINOv3 and DINOv2, and of our own modules' names."""

from __future__ import annotations

import torch
from torch import Tensor

from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import Config, build_from_config
from opendino.models.rope import rope_periods
from opendino.models.vit import ViTConfig
from opendino.weights.keys import Layout, Rule, State, pairs, same

PERIODS = "rope_embed.periods"


def _rules(config: Config, names: frozenset[str]) -> list[Rule]:
    if isinstance(config, ViTConfig):
        return _vit(config)
    assert isinstance(config, ConvNeXtConfig)
    return _convnext(config)


def _vit(config: ViTConfig) -> list[Rule]:
    dinov2 = isinstance(config, Dinov2Config)
    registers = "register_tokens" if dinov2 else "storage_tokens"
    rules = [
        same("cls_token"),
        same("mask_token"),
        same("registers", registers) if config.registers else Rule(("registers",), ()),
        *pairs("patch_embed", "patch_embed.proj"),
        *pairs("norm", "norm"),
    ]
    if dinov2:
        rules.append(Rule(("cls_position", "positions"), ("pos_embed",), dim=1))
    if config.local_cls_norm:
        rules += pairs("local_cls_norm", "local_cls_norm")
    for index in range(config.depth):
        block = f"blocks.{index}."
        layers = ["norm1", "norm2", "attn.proj"]
        layers += [] if config.swiglu else ["mlp.fc1", "mlp.fc2"]
        for layer in layers:
            rules += pairs(block + layer, block + layer)
        if config.swiglu and dinov2:
            for part in ("weight", "bias"):
                gate = (f"{block}mlp.w1.{part}", f"{block}mlp.w2.{part}")
                rules += [Rule(gate, (f"{block}mlp.w12.{part}",)), same(f"{block}mlp.w3.{part}")]
        elif config.swiglu:
            for part in ("w1", "w2", "w3"):
                rules += pairs(f"{block}mlp.{part}", f"{block}mlp.{part}")
        rules += [same(f"{block}{name}") for name in ("attn.qkv.weight", "ls1.gamma", "ls2.gamma")]
        if config.qkv_bias:
            mask = f"{block}attn.qkv.bias_mask"
            # DINOv2 has no mask. A checkpoint's own mask is kept, whatever it holds, so that a round trip is exact.
            fill = (1.0, 0.0 if config.mask_k_bias else 1.0, 1.0)
            rules += [same(f"{block}attn.qkv.bias"), Rule((mask,), () if dinov2 else (mask,), fill=fill)]
    return rules


def _convnext(config: ConvNeXtConfig) -> list[Rule]:
    rules = pairs("norm", "norm")
    for stage, depth in enumerate(config.depths):
        for index in (0, 1):
            rules += pairs(f"downsample_layers.{stage}.{index}", f"downsample_layers.{stage}.{index}")
        for number in range(depth):
            block = f"stages.{stage}.{number}."
            rules.append(same(f"{block}gamma"))
            for layer in ("dwconv", "norm", "pwconv1", "pwconv2"):
                rules += pairs(block + layer, block + layer)
    return rules


def _copies(config: Config, state: State) -> dict[str, Tensor]:
    """Periods follow from the config; a ConvNeXt's final norm stands in the file twice."""
    if isinstance(config, ConvNeXtConfig):
        return {f"norms.3.{part}": state[f"norm.{part}"] for part in ("weight", "bias")}
    if isinstance(config, ViTConfig) and not isinstance(config, Dinov2Config):
        return {PERIODS: rope_periods(config.dim // config.heads, config.rope_base, rounded=config.rope_rounded)}
    return {}


def _own_rules(config: Config, names: frozenset[str]) -> list[Rule]:
    with torch.device("meta"):
        return [same(name) for name in build_from_config(config).state_dict()]


OFFICIAL = Layout("official", _rules, _copies, masks_bias=True)
OWN = Layout("opendino", _own_rules, masks_bias=True)
