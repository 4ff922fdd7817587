"""Key map of Hugging Face transformers: DINOv3 ViT and ConvNeXt, DINOv2 with and without registers.

transformers 4 and 5 name some modules differently (`recognise.plain_names` brings them to the form below, which is what
both write to disk and what we write).
"""

from __future__ import annotations

from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import Config
from opendino.models.vit import ViTConfig
from opendino.weights.keys import Layout, Rule, pairs, same

CONVNEXT_BLOCK = (
    ("dwconv", "depthwise_conv"),
    ("norm", "layer_norm"),
    ("pwconv1", "pointwise_conv1"),
    ("pwconv2", "pointwise_conv2"),
)


def _rules(config: Config, names: frozenset[str]) -> list[Rule]:
    if isinstance(config, Dinov2Config):
        return _dinov2(config)
    if isinstance(config, ViTConfig):
        return _vit(config)
    assert isinstance(config, ConvNeXtConfig)
    return _convnext(config)


def _vit(config: ViTConfig) -> list[Rule]:
    rules = [
        same("cls_token", "embeddings.cls_token"),
        same("registers", "embeddings.register_tokens"),
        Rule(("mask_token",), ("embeddings.mask_token",), lead=True),
        *pairs("patch_embed", "embeddings.patch_embeddings"),
        *pairs("norm", "norm"),
    ]
    if config.local_cls_norm:
        # Used in training alone; transformers has no place for it, reports the two names and goes on.
        rules += pairs("local_cls_norm", "local_cls_norm")
    for index in range(config.depth):
        block, layer = f"blocks.{index}.", f"layer.{index}."
        for part in ("norm1", "norm2"):
            rules += pairs(block + part, layer + part)
        rules += pairs(f"{block}attn.proj", f"{layer}attention.o_proj")
        rules += [same(f"{block}ls{i}.gamma", f"{layer}layer_scale{i}.lambda1") for i in (1, 2)]
        if config.swiglu:
            rules += pairs(f"{block}mlp.w1", f"{layer}mlp.gate_proj") + pairs(f"{block}mlp.w2", f"{layer}mlp.up_proj")
            rules += pairs(f"{block}mlp.w3", f"{layer}mlp.down_proj")
        else:
            rules += pairs(f"{block}mlp.fc1", f"{layer}mlp.up_proj") + pairs(f"{block}mlp.fc2", f"{layer}mlp.down_proj")
        q, k, v = (f"{layer}attention.{letter}_proj." for letter in "qkv")
        rules.append(Rule((f"{block}attn.qkv.weight",), (q + "weight", k + "weight", v + "weight")))
        if config.qkv_bias:
            k_bias = None if config.mask_k_bias else k + "bias"
            rules.append(Rule((f"{block}attn.qkv.bias",), (q + "bias", k_bias, v + "bias")))
            rules.append(unmasked(config, block))
    return rules


def unmasked(config: ViTConfig, block: str) -> Rule:
    """The bias mask of a layout that has none: 1 for q and v, 0 for k where the key bias is held at 0."""
    return Rule((f"{block}attn.qkv.bias_mask",), (), fill=(1.0, 0.0 if config.mask_k_bias else 1.0, 1.0))


def _dinov2(config: Dinov2Config) -> list[Rule]:
    rules = [
        same("cls_token", "embeddings.cls_token"),
        Rule(("mask_token",), ("embeddings.mask_token",), optional=True),
        Rule(("cls_position", "positions"), ("embeddings.position_embeddings",), dim=1),
        *pairs("patch_embed", "embeddings.patch_embeddings.projection"),
        *pairs("norm", "layernorm"),
        same("registers", "embeddings.register_tokens") if config.registers else Rule(("registers",), ()),
    ]
    for index in range(config.depth):
        block, layer = f"blocks.{index}.", f"encoder.layer.{index}."
        for part in ("norm1", "norm2"):
            rules += pairs(block + part, layer + part)
        rules += pairs(f"{block}attn.proj", f"{layer}attention.output.dense")
        rules += [same(f"{block}ls{i}.gamma", f"{layer}layer_scale{i}.lambda1") for i in (1, 2)]
        for part in ("weight", "bias"):
            qkv = tuple(f"{layer}attention.attention.{word}.{part}" for word in ("query", "key", "value"))
            rules.append(Rule((f"{block}attn.qkv.{part}",), qkv))
            if config.swiglu:
                fused = Rule((f"{block}mlp.w1.{part}", f"{block}mlp.w2.{part}"), (f"{layer}mlp.weights_in.{part}",))
                rules += [fused, same(f"{block}mlp.w3.{part}", f"{layer}mlp.weights_out.{part}")]
        rules.append(unmasked(config, block))
        if not config.swiglu:
            rules += pairs(f"{block}mlp.fc1", f"{layer}mlp.fc1") + pairs(f"{block}mlp.fc2", f"{layer}mlp.fc2")
    return rules


def _convnext(config: ConvNeXtConfig) -> list[Rule]:
    rules = pairs("norm", "layer_norm")
    for stage, depth in enumerate(config.depths):
        for index in (0, 1):
            rules += pairs(f"downsample_layers.{stage}.{index}", f"stages.{stage}.downsample_layers.{index}")
        for number in range(depth):
            ours, theirs = f"stages.{stage}.{number}.", f"stages.{stage}.layers.{number}."
            rules.append(same(f"{ours}gamma", f"{theirs}gamma"))
            for left, right in CONVNEXT_BLOCK:
                rules += pairs(ours + left, theirs + right)
    return rules


TRANSFORMERS = Layout("transformers", _rules)
