"""Whose names the tensors of a file have: prefixes are taken off, one model is kept, a library's layout is told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opendino.errors import WeightsError
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.vit import ViTConfig
from opendino.weights.keys import Layout
from opendino.weights.keys_hf import TRANSFORMERS
from opendino.weights.keys_official import OFFICIAL, OWN
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
            cause = "holds several models under different prefixes, or one outside the family"
            raise WeightsError(where, cause, "keep one of them in the file; timm's are timm:NAME=FILE")
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
