"""One table of every model that can be built by name: shape, size, licence, where it comes from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from opendino.errors import UsageError
from opendino.models.conv_mini import ConvMini, ConvMiniConfig
from opendino.models.convnext import ConvNeXt, ConvNeXtConfig
from opendino.models.layers import swiglu_hidden
from opendino.models.vit import ViT, ViTConfig

Config = ViTConfig | ConvNeXtConfig | ConvMiniConfig

PAPER_LICENCE = "DINOv3 License"
OUR_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class ModelSpec:
    """A row of the family: `params` counts trained numbers, `licence` is that of the weights that go by this name
    (weights that you train are yours), `source` says where architecture and weights come from."""

    name: str
    kind: str
    config: Config
    params: int
    licence: str
    source: str
    from_paper: bool
    note: str


def _paper(name: str, kind: str, config: Config, params: int, repository: str, note: str) -> ModelSpec:
    source = f"arXiv 2508.10104; weights huggingface.co/facebook/dinov3-{repository}-pretrain-lvd1689m (gated)"
    return ModelSpec(name, kind, config, params, PAPER_LICENCE, source, True, note)


def _ours(name: str, kind: str, config: Config, params: int, note: str) -> ModelSpec:
    return ModelSpec(name, kind, config, params, OUR_LICENCE, "opendino; no released weights", False, note)


_ROWS = (
    _paper("vits16", "vit", ViTConfig(dim=384, depth=12, heads=6, hidden=1536), 21_601_152, "vits16", "small"),
    _paper(
        "vits16plus",
        "vit",
        ViTConfig(dim=384, depth=12, heads=6, hidden=swiglu_hidden(384, 6), swiglu=True),
        28_697_472,
        "vits16plus",
        "with SwiGLU",
    ),
    _paper("vitb16", "vit", ViTConfig(dim=768, depth=12, heads=12, hidden=3072), 85_669_632, "vitb16", "base"),
    _paper("vitl16", "vit", ViTConfig(dim=1024, depth=24, heads=16, hidden=4096), 303_154_176, "vitl16", "large"),
    _paper(
        "vith16plus",
        "vit",
        ViTConfig(dim=1280, depth=32, heads=20, hidden=swiglu_hidden(1280, 6), swiglu=True),
        840_633_600,
        "vith16plus",
        "with SwiGLU",
    ),
    _paper(
        "vit7b16",
        "vit",
        ViTConfig(
            dim=4096,
            depth=40,
            heads=32,
            hidden=swiglu_hidden(4096, 3, align=64),
            swiglu=True,
            qkv_bias=False,
            local_cls_norm=True,
        ),
        6_716_043_264,
        "vit7b16",
        "the teacher",
    ),
    _paper(
        "convnext_tiny",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
        27_820_128,
        "convnext-tiny",
        "map of stride 32",
    ),
    _paper(
        "convnext_small",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 27, 3), dims=(96, 192, 384, 768)),
        49_454_688,
        "convnext-small",
        "map of stride 32",
    ),
    _paper(
        "convnext_base",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
        87_566_464,
        "convnext-base",
        "map of stride 32",
    ),
    _paper(
        "convnext_large",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 27, 3), dims=(192, 384, 768, 1536)),
        196_230_336,
        "convnext-large",
        "map of stride 32",
    ),
    _ours(
        "vit_tiny",
        "vit",
        ViTConfig(dim=128, depth=4, heads=2, hidden=512, patch=8, registers=0, layer_scale=0.3),
        819_328,
        "not of the paper: its kind of ViT, for a laptop",
    ),
    _ours(
        "conv_mini", "conv_mini", ConvMiniConfig(), 256_896, "not of the paper: convolutions for minutes on a laptop"
    ),
    _ours(
        "conv_kmeans",
        "conv_mini",
        ConvMiniConfig(stem="kmeans", stem_width=96, width=96, dim=320, inner=128),
        1_192_544,
        "not of the paper: convolutions on a k-means first layer",
    ),
)
FAMILY: dict[str, ModelSpec] = {row.name: row for row in _ROWS}


def build_from_config(config: Config) -> nn.Module:
    """The module that a config describes, with fresh weights from torch's global generator."""
    if isinstance(config, ViTConfig):
        return ViT(config)
    if isinstance(config, ConvNeXtConfig):
        return ConvNeXt(config)
    return ConvMini(config)


def build_model(name: str, **overrides: Any) -> nn.Module:
    """A model of the family with fresh weights; `overrides` are fields of its config, such as drop_path=0.3.

    Raises UsageError, with the nearest name, for an unknown model or field.
    """
    if name not in FAMILY:
        raise UsageError(f"model {name!r}", "unknown", _nearest(name, list(FAMILY)))
    config = FAMILY[name].config
    known = [field.name for field in fields(config)]
    for key in overrides:
        if key not in known:
            raise UsageError(f"{name} has no field {key!r}", "unknown", _nearest(key, known))
    return build_from_config(replace(config, **overrides))


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)
