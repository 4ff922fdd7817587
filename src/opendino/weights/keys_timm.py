"""Key map of timm: DINOv3 ViT (Eva class, with and without q and v biases), ConvNeXt, DINOv2.

timm drops the mask token, bias masks and the local norm; ours get zeros, the standard mask, and no local norm.
"""

from __future__ import annotations

from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import Config
from opendino.models.vit import ViTConfig
from opendino.weights.keys import Layout, Rule, pairs, same
from opendino.weights.keys_hf import unmasked

CONVNEXT_BLOCK = (("dwconv", "conv_dw"), ("norm", "norm"), ("pwconv1", "mlp.fc1"), ("pwconv2", "mlp.fc2"))


def _rules(config: Config, names: frozenset[str]) -> list[Rule]:
    if isinstance(config, ViTConfig):
        return _vit(config, names)
    assert isinstance(config, ConvNeXtConfig)
    return _convnext(config)


def _vit(config: ViTConfig, names: frozenset[str]) -> list[Rule]:
    dinov2 = isinstance(config, Dinov2Config)
    rules = [
        same("cls_token"),
        Rule(("mask_token",), ()),
        same("registers", "reg_token") if config.registers else Rule(("registers",), ()),
        *pairs("patch_embed", "patch_embed.proj"),
        *pairs("norm", "norm"),
    ]
    if dinov2 and config.registers:
        # timm adds the position of CLS to CLS itself and keeps the patches' positions alone.
        rules += [Rule(("cls_position",), ()), same("positions", "pos_embed")]
    elif dinov2:
        rules.append(Rule(("cls_position", "positions"), ("pos_embed",), dim=1))
    for index in range(config.depth):
        block = f"blocks.{index}."
        for layer in ("norm1", "norm2", "attn.proj"):
            rules += pairs(block + layer, block + layer)
        gammas = ("ls1.gamma", "ls2.gamma") if dinov2 else ("gamma_1", "gamma_2")
        rules += [same(f"{block}ls{i}.gamma", block + gammas[i - 1]) for i in (1, 2)]
        rules += _feed_forward(block, swiglu=config.swiglu, fused=dinov2)
        rules.append(same(f"{block}attn.qkv.weight"))
        if config.qkv_bias:
            rules += [_bias(block, dinov2, names), unmasked(config, block)]
    return rules


def _bias(block: str, dinov2: bool, names: frozenset[str]) -> Rule:
    ours = (f"{block}attn.qkv.bias",)
    if dinov2:
        return Rule(ours, ours)
    theirs = (f"{block}attn.q_bias", None, f"{block}attn.v_bias")
    # The plain variants were made from checkpoints whose biases are all 0 and leave them out.
    return Rule(ours, theirs if f"{block}attn.q_bias" in names else ())


def _feed_forward(block: str, *, swiglu: bool, fused: bool) -> list[Rule]:
    if not swiglu:
        return pairs(f"{block}mlp.fc1", f"{block}mlp.fc1") + pairs(f"{block}mlp.fc2", f"{block}mlp.fc2")
    down = pairs(f"{block}mlp.w3", f"{block}mlp.fc2")
    if not fused:
        return pairs(f"{block}mlp.w1", f"{block}mlp.fc1_g") + pairs(f"{block}mlp.w2", f"{block}mlp.fc1_x") + down
    gates = [
        Rule((f"{block}mlp.w1.{part}", f"{block}mlp.w2.{part}"), (f"{block}mlp.fc1.{part}",))
        for part in ("weight", "bias")
    ]
    return gates + down


def _convnext(config: ConvNeXtConfig) -> list[Rule]:
    rules = pairs("norm", "head.norm")
    for stage, depth in enumerate(config.depths):
        for index in (0, 1):
            theirs = f"stages.{stage}.downsample.{index}" if stage else f"stem.{index}"
            rules += pairs(f"downsample_layers.{stage}.{index}", theirs)
        for number in range(depth):
            ours, block = f"stages.{stage}.{number}.", f"stages.{stage}.blocks.{number}."
            rules.append(same(f"{ours}gamma", f"{block}gamma"))
            for left, right in CONVNEXT_BLOCK:
                rules += pairs(ours + left, block + right)
    return rules


TIMM = Layout("timm", _rules)
