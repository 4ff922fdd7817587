"""What a file of tensors is: which library's names, which model, told from names and shapes alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from opendino.errors import UsageError, WeightsError
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import FAMILY, Config
from opendino.models.rope import rope_periods
from opendino.models.vit import ViTConfig
from opendino.weights.config_hf import MAX_DEPTH
from opendino.weights.keys import Layout
from opendino.weights.keys_hf import TRANSFORMERS
from opendino.weights.keys_official import OFFICIAL, OWN, PERIODS
from opendino.weights.keys_timm import TIMM

# Left in front by wrappers, training code and classifiers; taken off as often as they occur.
_OUTER = re.compile(
    r"^(?:(?:module|_orig_mod|backbone|model|state_dict|method|teacher|student|ema|ema_model|model_ema|dinov2"
    r"|dinov2_with_registers)\.)+"
)
# Left inside names by compiling, sharding and activation checkpointing of single blocks.
_INNER = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_TEACHER = re.compile(r"^(?:[\w]+\.)*?(?:teacher|ema|ema_model|model_ema)\.")
_BESIDE = re.compile(r"(?:^|\.)(?:optimizer|dino_head|ibot_head|dino_loss|ibot_patch_loss|classifier|gram_teacher)\.")
_RENAMED = (  # transformers 5's module names to the names on disk, and DINOv2's chunks of blocks
    (re.compile(r"^encoder\.layer\.(\d+)\.attention\.q_proj\."), r"encoder.layer.\1.attention.attention.query."),
    (re.compile(r"^encoder\.layer\.(\d+)\.attention\.k_proj\."), r"encoder.layer.\1.attention.attention.key."),
    (re.compile(r"^encoder\.layer\.(\d+)\.attention\.v_proj\."), r"encoder.layer.\1.attention.attention.value."),
    (re.compile(r"^encoder\.layer\.(\d+)\.attention\.o_proj\."), r"encoder.layer.\1.attention.output.dense."),
    (re.compile(r"^encoder\.layer\.(\d+)\.mlp\.down_proj\."), r"encoder.layer.\1.mlp.weights_out."),
    (re.compile(r"^blocks\.\d+\.(\d+)\."), r"blocks.\1."),
)
_GATES = re.compile(r"^(encoder\.layer\.\d+\.mlp\.)gate_proj\.(weight|bias)$")


@dataclass(frozen=True)
class Found:
    """tensors: under plain names. left_out: names of the file that belong to something else (heads, the student).

    prefix: what stood in front of most names, such as `teacher.backbone.`; empty for nothing.
    """

    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    prefix: str = ""


def plain_names(tensors: Mapping[str, Tensor], where: object) -> Found:
    """Take prefixes off and keep one model: the averaged teacher where a training checkpoint holds several.

    Raises WeightsError when two tensors end up under one name.
    """
    beside = [name for name in tensors if _BESIDE.search(name)]
    names = [name for name in tensors if not _BESIDE.search(name)]
    teachers = [name for name in names if _TEACHER.match(name)]
    left_out = beside + [name for name in names if teachers and name not in set(teachers)]
    plain: dict[str, Tensor] = {}
    prefixes = Counter(found.group() if (found := _OUTER.match(name)) else "" for name in teachers or names)
    for name in teachers or names:
        short = _INNER.sub("", _OUTER.sub("", name))
        for pattern, form in _RENAMED:
            short = pattern.sub(form, short)
        if short in plain:
            raise WeightsError(where, "holds several models under different prefixes", "keep one of them in the file")
        plain[short] = tensors[name]
    for name in [name for name in plain if _GATES.match(name)]:
        # transformers 5 holds apart what version 4 and the files hold as one.
        up = name.replace("gate_proj", "up_proj")
        if up in plain:
            plain[_GATES.sub(r"\1weights_in.\2", name)] = torch.cat([plain.pop(name), plain.pop(up)])
    return Found(plain, tuple(left_out), max(prefixes, key=prefixes.__getitem__, default=""))


def recognise(names: frozenset[str]) -> tuple[Layout, type[Any]] | None:
    """The layout of plain names and the kind of config that they belong to; None when no layout fits."""
    if "embeddings.patch_embeddings.weight" in names:
        return TRANSFORMERS, ViTConfig
    if "embeddings.patch_embeddings.projection.weight" in names and "encoder.layer.0.layer_scale1.lambda1" in names:
        return TRANSFORMERS, Dinov2Config
    if "stages.0.downsample_layers.0.weight" in names:
        return TRANSFORMERS, ConvNeXtConfig
    if "stem.0.weight" in names and "stages.0.blocks.0.conv_dw.weight" in names:
        return TIMM, ConvNeXtConfig
    if "downsample_layers.0.0.weight" in names:
        return OFFICIAL, ConvNeXtConfig
    if "blocks.0.gamma_1" in names and "blocks.0.attn.qkv.weight" in names and "pos_embed" not in names:
        return TIMM, ViTConfig
    if "blocks.0.ls1.gamma" not in names or "blocks.0.attn.qkv.weight" not in names:
        return None
    if "patch_embed.weight" in names:
        return OWN, Dinov2Config if "positions" in names else ViTConfig
    if "pos_embed" not in names:
        return OFFICIAL, ViTConfig
    return (OFFICIAL if "mask_token" in names else TIMM), Dinov2Config


def infer_config(
    layout: Layout, kind: type[Any], tensors: Mapping[str, Tensor], heads: int | None, where: object
) -> Config:
    """The config that shapes tell. The number of heads stands in no shape: the periods' length, the family, or heads
    of 64 features tell it, or `heads` does.

    Raises WeightsError when a tensor that is needed for this is missing or the sizes are of no model.
    """
    try:
        if kind is ConvNeXtConfig:
            return _convnext(layout, tensors)
        return _vit(layout, kind, tensors, heads, where)
    except (KeyError, IndexError, UsageError, ValueError) as error:
        cause = f"has names of {layout.name}, but its sizes tell no model ({error})"
        raise WeightsError(where, cause, "the file is incomplete; copy or download it again") from None


def _convnext(layout: Layout, tensors: Mapping[str, Tensor]) -> ConvNeXtConfig:
    norm, block = {
        "official": ("stages.{}.0.norm.weight", r"stages\.{}\.(\d+)\."),
        "transformers": ("stages.{}.layers.0.layer_norm.weight", r"stages\.{}\.layers\.(\d+)\."),
        "timm": ("stages.{}.blocks.0.norm.weight", r"stages\.{}\.blocks\.(\d+)\."),
    }[layout.name]
    stem = tensors[
        {
            "official": "downsample_layers.0.0.weight",
            "transformers": "stages.0.downsample_layers.0.weight",
            "timm": "stem.0.weight",
        }[layout.name]
    ]
    return ConvNeXtConfig(
        depths=tuple(_count(block.format(stage), tensors) for stage in range(4)),
        dims=tuple(tensors[norm.format(stage)].shape[0] for stage in range(4)),
        channels=stem.shape[1],
    )


def _vit(
    layout: Layout, kind: type[ViTConfig], tensors: Mapping[str, Tensor], heads: int | None, where: object
) -> ViTConfig:
    dinov2 = kind is Dinov2Config
    hf, own = layout is TRANSFORMERS, layout is OWN
    outer = "embeddings." if hf else ""
    projection = "patch_embeddings.projection" if dinov2 else "patch_embeddings"
    patch = tensors[
        f"embeddings.{projection}.weight" if hf else "patch_embed.weight" if own else "patch_embed.proj.weight"
    ]
    stack = ("encoder.layer" if dinov2 else "layer") if hf else "blocks"
    dim = tensors[f"{outer}cls_token"].shape[-1]
    register_names = ("register_tokens", "storage_tokens", "reg_token", "registers")
    registers = [tensors[outer + name].shape[1] for name in register_names if outer + name in tensors]
    up, swiglu = _feed_forward(f"{stack}.0.mlp.", tensors)
    values: dict[str, Any] = {
        "dim": dim,
        "depth": _count(re.escape(stack) + r"\.(\d+)\.", tensors),
        "hidden": up,
        "patch": patch.shape[-1],
        "channels": patch.shape[1],
        "registers": registers[0] if registers else 0,
        "swiglu": swiglu,
    }
    if dinov2:
        values |= _dinov2_fields(layout, tensors, values["registers"])
    else:
        values["local_cls_norm"] = "local_cls_norm.weight" in tensors
        values["qkv_bias"] = any(name.endswith(("qkv.bias", "q_proj.bias", "attn.q_bias")) for name in tensors)
        values["mask_k_bias"] = not any(name.endswith("k_proj.bias") for name in tensors)
    config = kind(**values, heads=_heads(kind, values, tensors, heads, where))
    if layout is TIMM and not dinov2 and not config.qkv_bias:
        twins = [row for row in FAMILY.values() if _shape(row.config) == _shape(config)]
        config = replace(
            config, qkv_bias=any(row.config.qkv_bias for row in twins if isinstance(row.config, ViTConfig))
        )
    return _with_periods(config, tensors, where) if PERIODS in tensors else config


def _feed_forward(block: str, tensors: Mapping[str, Tensor]) -> tuple[int, bool]:
    """Hidden width, and whether it is gated."""
    for gate, share in (("w1", 1), ("gate_proj", 1), ("fc1_g", 1), ("w12", 2), ("weights_in", 2)):
        if f"{block}{gate}.weight" in tensors:
            return tensors[f"{block}{gate}.weight"].shape[0] // share, True
    up = tensors[f"{block}{'fc1' if f'{block}fc1.weight' in tensors else 'up_proj'}.weight"]
    down = tensors.get(f"{block}fc2.weight")
    fused = down is not None and up.shape[0] == 2 * down.shape[1]  # timm's DINOv2 giant
    return up.shape[0] // (2 if fused else 1), fused


def _dinov2_fields(layout: Layout, tensors: Mapping[str, Tensor], registers: int) -> dict[str, Any]:
    if layout is OWN:
        side = math.isqrt(tensors["positions"].shape[1])
    else:
        name = "embeddings.position_embeddings" if layout is TRANSFORMERS else "pos_embed"
        side = math.isqrt(tensors[name].shape[1])  # with or without CLS: s*s <= s*s + 1 < (s+1)*(s+1)
    resize = "antialias"
    if not registers and layout is not TIMM:
        resize = "plain" if layout is TRANSFORMERS else "offset"
    return {"position_side": side, "position_resize": resize}


def _heads(
    kind: type[ViTConfig], values: Mapping[str, Any], tensors: Mapping[str, Tensor], heads: int | None, where: object
) -> int:
    dim: int = values["dim"]
    if heads is not None:
        return heads
    if PERIODS in tensors and tensors[PERIODS].numel():
        return dim // (4 * tensors[PERIODS].numel())
    for row in FAMILY.values():
        config = row.config
        if (
            type(config) is kind
            and isinstance(config, ViTConfig)
            and config.dim == dim
            and config.depth == values["depth"]
        ):
            return config.heads
    if dim % 64 == 0:
        return dim // 64
    raise WeightsError(where, f"no shape tells the number of heads of a model of width {dim}", "say heads=N")


def heads_are_assumed(config: Config, tensors: Mapping[str, Tensor]) -> bool:
    """Whether neither stored periods nor the family told the number of heads."""
    if not isinstance(config, ViTConfig) or PERIODS in tensors:
        return False
    sizes = (type(config), config.dim, config.depth)
    family = [row.config for row in FAMILY.values() if isinstance(row.config, ViTConfig)]
    return sizes not in [(type(other), other.dim, other.depth) for other in family]


def _with_periods(config: ViTConfig, tensors: Mapping[str, Tensor], where: object) -> ViTConfig:
    """Whether the stored periods are exact or rounded; others are refused, since they would be silently replaced."""
    stored = tensors[PERIODS].float()
    for rounded in (True, False):
        wanted = rope_periods(config.dim // config.heads, config.rope_base, rounded=rounded)
        if stored.shape == wanted.shape and torch.allclose(stored, wanted, rtol=1e-6, atol=0):
            return replace(config, rope_rounded=rounded)
    raise WeightsError(where, f"{PERIODS} are not those of base {config.rope_base:g}", "this model is not supported")


def names_of(config: Config) -> tuple[str, ...]:
    """Family members of this shape. Large and 7B exist for photographs and for satellite pictures: a local norm in a
    large one shows the latter, otherwise shapes cannot tell."""
    names = tuple(row.name for row in FAMILY.values() if _shape(row.config) == _shape(config))
    if isinstance(config, ViTConfig) and config.local_cls_norm and "vitl16_sat" in names:
        return ("vitl16_sat",)
    return names


def is_named(names: tuple[str, ...], name: str) -> bool:
    """Whether a file whose shape has these names may be the model `name`.

    A satellite model in a layout that drops its local norm has the shape of the other large one.
    """
    return name in names or (name.endswith("_sat") and name.removesuffix("_sat") in names)


def _shape(config: Config) -> tuple[Any, ...]:
    if isinstance(config, ViTConfig):
        sizes = (config.dim, config.depth, config.heads, config.hidden, config.patch, config.registers, config.swiglu)
        return (type(config), *sizes)
    if isinstance(config, ConvNeXtConfig):
        return type(config), config.depths, config.dims
    return type(config), config


def _count(pattern: str, tensors: Mapping[str, Tensor]) -> int:
    """Numbers in names start at 0 and have no hole; a hole shows later as a missing tensor."""
    found = {int(match.group(1)) for name in tensors if (match := re.match(pattern, name))}
    if not found or max(found) >= MAX_DEPTH:
        raise ValueError("no blocks")
    return max(found) + 1
