"""Which model tensors belong to, told from their shapes: its config, its family members, the blocks that it lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
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
from opendino.weights.keys_official import OWN, PERIODS
from opendino.weights.keys_timm import TIMM

Depth = int | tuple[int, ...]


def infer_config(
    layout: Layout,
    kind: type[Any],
    tensors: Mapping[str, Tensor],
    where: object,
    *,
    heads: int | None = None,
    depth: Depth | None = None,
) -> Config:
    """The config that shapes tell. The number of heads stands in no shape: the periods' length, the family, or heads
    of 64 features tell it, or `heads` does.

    A file that has the widths of a family member and fewer blocks is taken for that member without its last ones, which
    are then missing; `depth` (for ConvNeXt that of each stage) says that it is whole as it is.

    Raises WeightsError when a tensor that is needed for this is missing or the sizes are of no model.
    """
    try:
        if kind is ConvNeXtConfig:
            return _convnext(layout, tensors, depth)
        return _vit(layout, kind, tensors, where, heads, depth)
    except (KeyError, IndexError, UsageError, ValueError) as error:
        cause = f"has names of {layout.name}, but its sizes tell no model ({error})"
        fix = "the file is incomplete; copy or download it again"
        if heads is not None or depth is not None:
            fix = "leave --heads and --depth (heads=, depth=) out, or give others"
        raise WeightsError(where, cause, fix) from None


def count_blocks(layout: Layout, kind: type[Any], tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks that a file holds, those of each stage for ConvNeXt. Raises ValueError when a stage has none."""
    if kind is ConvNeXtConfig:
        inner = {"official": "", "transformers": r"layers\.", "timm": r"blocks\."}[layout.name]
        return tuple(_count(rf"stages\.{stage}\.{inner}(\d+)\.", tensors) for stage in range(4))
    return (_count(re.escape(_stack(layout, kind)) + r"\.(\d+)\.", tensors),)


def missing_blocks(config: Config, counts: tuple[int, ...]) -> str:
    """In words, which last blocks a file with so many lacks; "" when it lacks none."""
    said = []
    for stage, (wanted, has) in enumerate(zip(_depths(config), counts, strict=True)):
        if has < wanted:
            blocks = f"block {has}" if wanted - has == 1 else f"blocks {has} to {wanted - 1}"
            said.append(f"{blocks} of stage {stage}" if len(counts) > 1 else blocks)
    return " and ".join(said)


def _depths(config: Config) -> tuple[int, ...]:
    return config.depths if isinstance(config, ConvNeXtConfig) else (config.depth,)  # type: ignore[union-attr]


def _stack(layout: Layout, kind: type[Any]) -> str:
    if layout is not TRANSFORMERS:
        return "blocks"
    return "encoder.layer" if kind is Dinov2Config else "layer"


def _convnext(layout: Layout, tensors: Mapping[str, Tensor], depth: Depth | None) -> ConvNeXtConfig:
    norm = {
        "official": "stages.{}.0.norm.weight",
        "transformers": "stages.{}.layers.0.layer_norm.weight",
        "timm": "stages.{}.blocks.0.norm.weight",
    }[layout.name]
    stem = tensors[
        {
            "official": "downsample_layers.0.0.weight",
            "transformers": "stages.0.downsample_layers.0.weight",
            "timm": "stem.0.weight",
        }[layout.name]
    ]
    dims = tuple(tensors[norm.format(stage)].shape[0] for stage in range(4))
    counts = count_blocks(layout, ConvNeXtConfig, tensors)
    depths = depth if isinstance(depth, tuple) else _whole_depths(counts, ConvNeXtConfig, {"dims": dims})
    return ConvNeXtConfig(depths=depths, dims=dims, channels=stem.shape[1])


def _whole_depths(counts: tuple[int, ...], kind: type[Any], sizes: Mapping[str, Any]) -> tuple[int, ...]:
    """The depths of the shallowest family member of these sizes that has all of a file's blocks; else the file's."""
    twins = [
        _depths(row.config)
        for row in FAMILY.values()
        if type(row.config) is kind and all(getattr(row.config, name) == value for name, value in sizes.items())
    ]
    deeper = [depths for depths in twins if all(has <= wanted for has, wanted in zip(counts, depths, strict=True))]
    return min(deeper, key=sum, default=counts)


def _vit(
    layout: Layout,
    kind: type[ViTConfig],
    tensors: Mapping[str, Tensor],
    where: object,
    heads: int | None,
    depth: Depth | None,
) -> ViTConfig:
    dinov2 = kind is Dinov2Config
    hf, own = layout is TRANSFORMERS, layout is OWN
    outer = "embeddings." if hf else ""
    projection = "patch_embeddings.projection" if dinov2 else "patch_embeddings"
    patch = tensors[
        f"embeddings.{projection}.weight" if hf else "patch_embed.weight" if own else "patch_embed.proj.weight"
    ]
    dim = tensors[f"{outer}cls_token"].shape[-1]
    register_names = ("register_tokens", "storage_tokens", "reg_token", "registers")
    registers = [tensors[outer + name].shape[1] for name in register_names if outer + name in tensors]
    up, swiglu = _feed_forward(f"{_stack(layout, kind)}.0.mlp.", tensors)
    values: dict[str, Any] = {
        "dim": dim,
        "hidden": up,
        "patch": patch.shape[-1],
        "registers": registers[0] if registers else 0,
        "swiglu": swiglu,
    }
    counts = count_blocks(layout, kind, tensors)
    sizes = values if heads is None else {**values, "heads": heads}
    values["depth"] = depth if isinstance(depth, int) else _whole_depths(counts, kind, sizes)[0]
    values["channels"] = patch.shape[1]
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
