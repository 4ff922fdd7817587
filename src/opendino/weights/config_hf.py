"""config.json, both ways: Hugging Face fields for ViT, ConvNeXt and DINOv2, our own for the small students.

A config read from disk is untrusted: every number is checked against bounds before a tensor is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from opendino.errors import UsageError, WeightsError
from opendino.models.conv_mini import ConvMiniConfig
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import Config
from opendino.models.layers import swiglu_hidden
from opendino.models.vit import ViTConfig

MAX_DEPTH, MAX_WIDTH = 200, 65_536
OUR_TYPES = {"opendino_conv_mini": ConvMiniConfig}
# Fields that say nothing about the network's numbers, or only about what training once drew.
_NO_MEANING_HERE = {
    *("model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "opendino"),
    *("image_size", "initializer_range", "attention_dropout", "apply_layernorm", "reshape_hidden_states"),
    *("return_class_token", "out_features", "out_indices", "stage_names", "use_mask_token"),
    *("attention_probs_dropout_prob", "hidden_dropout_prob"),
}


def config_to_json(config: Config, image_size: int) -> dict[str, Any]:
    """The fields of config.json, all of them; `image_size` is the side in pixels that the transform makes."""
    if isinstance(config, ConvMiniConfig):
        return {"model_type": "opendino_conv_mini", "config": asdict(config)}
    shared = {"num_channels": config.channels, "image_size": image_size, "initializer_range": 0.02, "dtype": "float32"}
    if isinstance(config, ConvNeXtConfig):
        return {
            "model_type": "dinov3_convnext",
            "architectures": ["DINOv3ConvNextModel"],
            "depths": list(config.depths),
            "hidden_sizes": list(config.dims),
            "hidden_act": "gelu",
            "layer_norm_eps": config.norm_eps,
            "layer_scale_init_value": config.layer_scale,
            "drop_path_rate": config.drop_path,
            **shared,
        }
    if isinstance(config, Dinov2Config):
        return {**_dinov2_to_json(config), **shared, "image_size": config.position_side * config.patch}
    return {
        "model_type": "dinov3_vit",
        "architectures": ["DINOv3ViTModel"],
        "patch_size": config.patch,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "num_register_tokens": config.registers,
        "hidden_act": "silu" if config.swiglu else "gelu",
        "use_gated_mlp": config.swiglu,
        "query_bias": config.qkv_bias,
        "key_bias": config.qkv_bias and not config.mask_k_bias,
        "value_bias": config.qkv_bias,
        "proj_bias": True,
        "mlp_bias": True,
        "attention_dropout": 0.0,
        "layer_norm_eps": config.norm_eps,
        "layerscale_value": config.layer_scale,
        "drop_path_rate": config.drop_path,
        "rope_theta": config.rope_base,
        "pos_embed_shift": config.rope_shift,
        "pos_embed_jitter": config.rope_jitter,
        "pos_embed_rescale": config.rope_rescale,
        **shared,
    }


def _dinov2_to_json(config: Dinov2Config) -> dict[str, Any]:
    ratio = next((ratio for ratio in range(1, 65) if _dinov2_hidden(config, ratio) == config.hidden), None)
    if ratio is None:
        raise UsageError(
            "Dinov2Config hidden", f"{config.hidden} is no whole mlp_ratio of {config.dim}", "take another"
        )
    kind: dict[str, Any] = {"model_type": "dinov2", "architectures": ["Dinov2Model"]}
    if config.registers:
        kind = {"model_type": "dinov2_with_registers", "architectures": ["Dinov2WithRegistersModel"]}
        kind["num_register_tokens"] = config.registers
    return {
        **kind,
        "patch_size": config.patch,
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "mlp_ratio": ratio,
        "hidden_act": "gelu",
        "use_swiglu_ffn": config.swiglu,
        "qkv_bias": True,
        "layer_norm_eps": config.norm_eps,
        "layerscale_value": config.layer_scale,
        "drop_path_rate": config.drop_path,
    }


def _dinov2_hidden(config: Dinov2Config, ratio: int) -> int:
    return swiglu_hidden(config.dim, ratio) if config.swiglu else config.dim * ratio


def states_model(raw: Any) -> bool:
    """Whether parsed JSON states a model's shape: timm's says `architecture` and leaves the shape to its code, the file
    beside an official .pth holds a card and a transform."""
    return not (isinstance(raw, dict) and "model_type" not in raw and ("architecture" in raw or "opendino" in raw))


def config_from_json(raw: Any, path: Path, names: frozenset[str] = frozenset()) -> tuple[Config, list[str]]:
    """The config in parsed JSON, and the fields that were not understood.

    Args:
        names: tensor names of the weights; a `local_cls_norm` among them is believed, since no field states it.
    Raises:
        WeightsError: unknown model_type, or a field missing, of a wrong type, out of bounds or not supported.
    """
    if not isinstance(raw, dict):
        raise WeightsError(path, "is no JSON object")
    reader = _Fields(raw, path)
    kind = raw.get("model_type")
    try:
        if kind == "dinov3_vit":
            return _vit(reader, "local_cls_norm.weight" in names), reader.unknown()
        if kind in ("dinov2", "dinov2_with_registers"):
            return _dinov2(reader, registers=kind != "dinov2"), reader.unknown()
        if kind == "dinov3_convnext":
            return _convnext(reader), reader.unknown()
        if isinstance(kind, str) and kind in OUR_TYPES:
            return _ours(OUR_TYPES[kind], raw.get("config"), path)
    except UsageError as error:
        raise WeightsError(path, str(error)) from None
    known = ", ".join(["dinov3_vit", "dinov3_convnext", "dinov2", "dinov2_with_registers", *OUR_TYPES])
    raise WeightsError(path, f"model_type {str(kind)[:60]!r} is not known", f"known: {known}")


def _vit(read: _Fields, local_cls_norm: bool) -> ViTConfig:
    swiglu = read.flag("use_gated_mlp", False)
    read.must("hidden_act", "silu" if swiglu else "gelu")
    read.must("proj_bias", True)
    read.must("mlp_bias", True)
    query, key, value = (read.flag(f"{part}_bias", part != "key") for part in ("query", "key", "value"))
    if query != value or (key and not query):
        raise WeightsError(read.path, "query_bias, key_bias, value_bias in this combination are not supported")
    ours = read.raw.get("opendino")
    rounded = isinstance(ours, dict) and ours.get("rope_rounded") is True
    return ViTConfig(
        dim=read.whole("hidden_size", 384),
        depth=read.whole("num_hidden_layers", 12, high=MAX_DEPTH),
        heads=read.whole("num_attention_heads", 6),
        hidden=read.whole("intermediate_size", 1536),
        patch=read.whole("patch_size", 16),
        channels=read.whole("num_channels", 3),
        registers=read.whole("num_register_tokens", 0, low=0),
        swiglu=swiglu,
        qkv_bias=query,
        mask_k_bias=not key,
        layer_scale=read.real("layerscale_value", 1.0),
        drop_path=read.real("drop_path_rate", 0.0),
        norm_eps=read.real("layer_norm_eps", 1e-5),
        rope_base=read.real("rope_theta", 100.0),
        rope_rounded=rounded,
        rope_shift=read.real_or_none("pos_embed_shift", None),
        rope_jitter=read.real_or_none("pos_embed_jitter", None),
        rope_rescale=read.real_or_none("pos_embed_rescale", 2.0),
        local_cls_norm=local_cls_norm,
        stride=_our_stride(read),
    )


def _our_stride(read: _Fields) -> int | None:
    ours = read.raw.get("opendino")
    return _Fields(ours, read.path).whole("stride", 1) if isinstance(ours, dict) and "stride" in ours else None


def _dinov2(read: _Fields, *, registers: bool) -> Dinov2Config:
    read.must("hidden_act", "gelu")
    read.must("qkv_bias", True)
    dim = read.whole("hidden_size", 768)
    swiglu = read.flag("use_swiglu_ffn", False)
    ratio = read.real("mlp_ratio", 4.0)
    patch = read.whole("patch_size", 16 if registers else 14)
    ours = read.raw.get("opendino")
    resize = ours.get("position_resize") if isinstance(ours, dict) else None
    return Dinov2Config(
        dim=dim,
        depth=read.whole("num_hidden_layers", 12, high=MAX_DEPTH),
        heads=read.whole("num_attention_heads", 12),
        hidden=swiglu_hidden(dim, ratio) if swiglu else int(dim * ratio),
        patch=patch,
        channels=read.whole("num_channels", 3),
        registers=read.whole("num_register_tokens", 4, low=0) if registers else 0,
        swiglu=swiglu,
        layer_scale=read.real("layerscale_value", 1.0),
        drop_path=read.real("drop_path_rate", 0.0),
        norm_eps=read.real("layer_norm_eps", 1e-6),
        position_side=read.whole("image_size", 224) // patch,
        position_resize=resize if isinstance(resize, str) else "antialias" if registers else "plain",  # type: ignore[arg-type]
        stride=_our_stride(read),
    )


def _convnext(read: _Fields) -> ConvNeXtConfig:
    read.must("hidden_act", "gelu")
    return ConvNeXtConfig(
        depths=read.wholes("depths", (3, 3, 9, 3), high=MAX_DEPTH),
        dims=read.wholes("hidden_sizes", (96, 192, 384, 768)),
        channels=read.whole("num_channels", 3),
        layer_scale=read.real("layer_scale_init_value", 1e-6),
        drop_path=read.real("drop_path_rate", 0.0),
        norm_eps=read.real("layer_norm_eps", 1e-6),
    )


def _ours(kind: type[ConvMiniConfig], raw: Any, path: Path) -> tuple[Config, list[str]]:
    """Our own fields, each checked against the type of the dataclass's default."""
    if not isinstance(raw, dict):
        raise WeightsError(path, "has no config object")
    read = _Fields(raw, path)
    values: dict[str, Any] = {}
    for field in fields(kind):
        default = field.default
        assert default is not MISSING
        high = MAX_DEPTH if field.name in ("depth", "blocks") else MAX_WIDTH
        if isinstance(default, bool):
            values[field.name] = read.flag(field.name, default)
        elif isinstance(default, int):
            values[field.name] = read.whole(field.name, default, low=0, high=high)
        elif isinstance(default, tuple):
            values[field.name] = read.wholes(field.name, default, low=0, high=high)
        elif isinstance(default, str):
            values[field.name] = read.word(field.name, default)
        else:
            values[field.name] = read.real(field.name, default)
    return kind(**values), read.unknown()


class _Fields:
    """Reads fields of untrusted JSON by type and bounds, remembering which were asked for."""

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.raw, self.path, self.asked = raw, path, set[str]()

    def _get(self, key: str, default: Any) -> Any:
        self.asked.add(key)
        return self.raw.get(key, default)

    def _refuse(self, key: str, value: Any, allowed: str) -> WeightsError:
        return WeightsError(self.path, f"{key} must be {allowed}, got {str(value)[:60]}")

    def unknown(self) -> list[str]:
        return sorted(set(self.raw) - self.asked - _NO_MEANING_HERE)

    def whole(self, key: str, default: int, low: int = 1, high: int = MAX_WIDTH) -> int:
        value = self._get(key, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:  # [16, 16] for a square patch
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._refuse(key, value, f"a whole number from {low} to {high}")
        return value

    def wholes(self, key: str, default: tuple[int, ...], low: int = 1, high: int = MAX_WIDTH) -> tuple[int, ...]:
        value = self._get(key, list(default))
        if not isinstance(value, list) or not 1 <= len(value) <= 32:
            raise self._refuse(key, value, "a list of whole numbers")
        one = _Fields({key: 0}, self.path)
        numbers = []
        for number in value:
            one.raw = {key: number}
            numbers.append(one.whole(key, 0, low, high))
        return tuple(numbers)

    def real(self, key: str, default: float) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise self._refuse(key, value, "a finite number of at least 0")
        return float(value)

    def real_or_none(self, key: str, default: float | None) -> float | None:
        if self._get(key, default) is None:
            return None
        value = self.real(key, 0.0)
        if value == 0:
            raise self._refuse(key, value, "above 0, or null for off")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._refuse(key, value, "true or false")
        return value

    def word(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._refuse(key, value, "a word")
        return value

    def must(self, key: str, supported: Any) -> None:
        value = self._get(key, supported)
        if value != supported:
            raise self._refuse(key, value, f"{supported} (others are not supported)")
