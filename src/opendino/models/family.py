"""One table of every model that can be built by name: shape, size, licence, where it comes from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from opendino.errors import UsageError
from opendino.models.conv_mini import ConvMini, ConvMiniConfig
from opendino.models.convnext import ConvNeXt, ConvNeXtConfig
from opendino.models.dinov2 import Dinov2, Dinov2Config
from opendino.models.layers import swiglu_hidden
from opendino.models.vit import ViT, ViTConfig

Config = ViTConfig | ConvNeXtConfig | ConvMiniConfig

PAPER_LICENCE = "DINOv3 License"
APACHE = "Apache-2.0"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))


# They stand in the names of the official files.
_DIGESTS = {
    "vits16": "08c60483",
    "vits16plus": "4057cbaa",
    "vitb16": "73cec8be",
    "vitl16": "8aa4cbdd",
    "vitl16_sat": "eadcf0ff",
    "vith16plus": "7c1da9a5",
    "vit7b16": "a955f4ea",
    "vit7b16_sat": "a6675841",
    "convnext_tiny": "21b726bb",
    "convnext_small": "296db49d",
    "convnext_base": "801f2ba9",
    "convnext_large": "61fa432d",
}


@dataclass(frozen=True)
class ModelSpec:
    """A row of the family.

    params: trained numbers. licence: of the released weights that go by this name (weights that you train are yours).
    source: where architecture and weights come from. repository: their Hugging Face repository; gated: it wants an
    account that was let in. mirror: a repository of the same weights in timm's layout, open to all under the same
    licence. picture_mean, picture_std: of RGB in [0, 1], what the released weights expect. digest: the first eight hex
    digits of the SHA-256 of the official file, where they are published.
    """

    name: str
    kind: str
    config: Config
    params: int
    licence: str
    source: str
    from_paper: bool
    note: str
    repository: str | None = None
    gated: bool = False
    mirror: str | None = None
    picture_mean: tuple[float, float, float] = IMAGENET[0]
    picture_std: tuple[float, float, float] = IMAGENET[1]
    digest: str = ""


def _paper(name: str, kind: str, config: Config, params: int, repository: str, mirror: str, note: str) -> ModelSpec:
    data = "sat493m" if name.endswith("_sat") else "lvd1689m"
    hub = f"facebook/dinov3-{repository}-pretrain-{data}"
    mean, std = SATELLITE if data == "sat493m" else IMAGENET
    return ModelSpec(
        *(name, kind, config, params, PAPER_LICENCE),
        source=f"arXiv 2508.10104; weights huggingface.co/{hub} (gated)",
        from_paper=True,
        note=note,
        repository=hub,
        gated=True,
        mirror=f"timm/{mirror}.dinov3_{data}" if kind == "convnext" else f"timm/{mirror}_patch16_dinov3.{data}",
        picture_mean=mean,
        picture_std=std,
        digest=_DIGESTS[name],
    )


def _dinov2(letter: str, size: str, config: Dinov2Config, params: int) -> tuple[ModelSpec, ModelSpec]:
    """A size of DINOv2 without and with registers."""
    rows = []
    for registers in (0, 4):
        name = f"dinov2_vit{letter}14" + ("_reg" if registers else "")
        hub = f"facebook/dinov2-{'with-registers-' if registers else ''}{size}"
        shape = replace(config, registers=registers, position_resize="antialias" if registers else "offset")
        note = f"DINOv2 {size}{', registers' if registers else ''}; not of the paper"
        source = f"arXiv 2304.07193; weights huggingface.co/{hub} (open)"
        count = params + registers * config.dim
        rows.append(ModelSpec(name, "vit", shape, count, APACHE, source, False, note, repository=hub))
    return rows[0], rows[1]


def _ours(name: str, kind: str, config: Config, params: int, note: str) -> ModelSpec:
    return ModelSpec(name, kind, config, params, APACHE, "opendino; no released weights", False, note)


_VITL = ViTConfig(dim=1024, depth=24, heads=16, hidden=4096)
_VIT7B = ViTConfig(
    dim=4096,
    depth=40,
    heads=32,
    hidden=swiglu_hidden(4096, 3, align=64),
    swiglu=True,
    qkv_bias=False,
    local_cls_norm=True,
)
_ROWS = (
    _paper(
        "vits16", "vit", ViTConfig(dim=384, depth=12, heads=6, hidden=1536), 21_601_152, "vits16", "vit_small", "small"
    ),
    _paper(
        "vits16plus",
        "vit",
        ViTConfig(dim=384, depth=12, heads=6, hidden=swiglu_hidden(384, 6), swiglu=True),
        28_697_472,
        "vits16plus",
        "vit_small_plus",
        "with SwiGLU",
    ),
    _paper(
        "vitb16", "vit", ViTConfig(dim=768, depth=12, heads=12, hidden=3072), 85_669_632, "vitb16", "vit_base", "base"
    ),
    _paper("vitl16", "vit", _VITL, 303_154_176, "vitl16", "vit_large", "large"),
    _paper(
        "vitl16_sat",
        "vit",
        replace(_VITL, local_cls_norm=True),
        303_156_224,
        "vitl16",
        "vit_large",
        "large, satellite pictures",
    ),
    _paper(
        "vith16plus",
        "vit",
        ViTConfig(dim=1280, depth=32, heads=20, hidden=swiglu_hidden(1280, 6), swiglu=True),
        840_633_600,
        "vith16plus",
        "vit_huge_plus",
        "with SwiGLU",
    ),
    _paper("vit7b16", "vit", _VIT7B, 6_716_043_264, "vit7b16", "vit_7b", "the teacher"),
    _paper("vit7b16_sat", "vit", _VIT7B, 6_716_043_264, "vit7b16", "vit_7b", "the teacher, satellite pictures"),
    _paper(
        "convnext_tiny",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
        27_820_128,
        "convnext-tiny",
        "convnext_tiny",
        "map of stride 32",
    ),
    _paper(
        "convnext_small",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 27, 3), dims=(96, 192, 384, 768)),
        49_454_688,
        "convnext-small",
        "convnext_small",
        "map of stride 32",
    ),
    _paper(
        "convnext_base",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
        87_566_464,
        "convnext-base",
        "convnext_base",
        "map of stride 32",
    ),
    _paper(
        "convnext_large",
        "convnext",
        ConvNeXtConfig(depths=(3, 3, 27, 3), dims=(192, 384, 768, 1536)),
        196_230_336,
        "convnext-large",
        "convnext_large",
        "map of stride 32",
    ),
    *_dinov2("s", "small", Dinov2Config(dim=384, depth=12, heads=6, hidden=1536), 22_056_576),
    *_dinov2("b", "base", Dinov2Config(dim=768, depth=12, heads=12, hidden=3072), 86_580_480),
    *_dinov2("l", "large", Dinov2Config(dim=1024, depth=24, heads=16, hidden=4096), 304_368_640),
    *_dinov2("g", "giant", Dinov2Config(dim=1536, depth=40, heads=24, hidden=4096, swiglu=True), 1_136_480_768),
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
    if isinstance(config, Dinov2Config):
        return Dinov2(config)
    if isinstance(config, ViTConfig):
        return ViT(config)
    if isinstance(config, ConvNeXtConfig):
        return ConvNeXt(config)
    return ConvMini(config)


def build_model(name: str, **overrides: Any) -> nn.Module:
    """A model of the family with fresh weights; `overrides` are fields of its config, such as drop_path=0.3.

    Raises UsageError, with the nearest name, for an unknown model or field.
    """
    return build_from_config(changed(find_spec(name).config, overrides))


def find_spec(name: str) -> ModelSpec:
    """The row of a name. Raises UsageError with the nearest name."""
    if name not in FAMILY:
        raise UsageError(f"model {name!r}", "unknown", nearest(name, list(FAMILY)))
    return FAMILY[name]


def patch_side(name: str, patch: int | None = None) -> int:
    """Pixels from patch to patch of a model of the family; `patch` where it is changed from the family's."""
    config = find_spec(name).config
    if isinstance(config, ViTConfig):
        return patch or config.patch
    return 32 if isinstance(config, ConvNeXtConfig) else ConvMini.patch


def changed(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A config with some fields replaced. Raises UsageError with the nearest field's name."""
    known = [field.name for field in fields(config)]
    for key in overrides:
        if key not in known:
            raise UsageError(f"{type(config).__name__} has no field {key!r}", "unknown", nearest(key, known))
    return replace(config, **overrides)


def nearest(name: str, known: list[str]) -> str:
    """In words: the name that was probably meant, else all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)
