"""`write_model` and `write_official`: a backbone as a Hugging Face folder, or in the official flat layout."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from opendino.data.transform import Transform
from opendino.errors import UsageError
from opendino.files import write_atomic, write_json
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import Config
from opendino.models.vit import ViTConfig
from opendino.weights.config_hf import OUR_TYPES, config_to_json
from opendino.weights.folder import WEIGHTS
from opendino.weights.keys import Layout, masked, to_theirs
from opendino.weights.keys_hf import TRANSFORMERS
from opendino.weights.keys_official import OFFICIAL, OWN

MODEL_FILES = ("config.json", "preprocessor_config.json", WEIGHTS)
_OWN_LAYOUT = "opens with opendino.load; no model of transformers has this shape"
_ROUNDED = "positions use bf16-rounded periods; transformers computes exact ones, its outputs differ by up to about 1 %"
_RESIZED = "positions are resized as in the original; transformers resizes otherwise, its outputs differ a little"
_STRIDE = "made for overlapping patches; transformers sets them side by side"


def write_model(folder: Path, model: nn.Module, transform: Transform, card: dict[str, Any]) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors (fp32); older ones are replaced, each whole.

    A ViT, ConvNeXt or DINOv2 also opens in transformers (AutoModel, AutoImageProcessor) with equal outputs. What
    transformers has no place for stands in config.json under `opendino`; a trained local norm is stored as two more
    tensors.

    Args:
        model: a backbone of the family; on any device, in any mode.
        card: name, licence, source and whatever else should travel with the weights; JSON values.
    """
    config: Config = model.config  # type: ignore[assignment]
    fields = config_to_json(config, transform.size)
    layout = OWN if fields["model_type"] in OUR_TYPES else TRANSFORMERS
    extra: dict[str, Any] = {"format": 1, "card": dict(card)}
    for name, value, note in _beyond(config):
        extra[name] = value
        extra["card"].setdefault("note", note)
    if layout is OWN:
        extra["card"].setdefault("note", _OWN_LAYOUT)
    folder.mkdir(parents=True, exist_ok=True)
    # The weights go last: a folder without them is no model, whatever else it holds.
    config_file, transform_file, weights_file = (folder / name for name in MODEL_FILES)
    write_json(config_file, {**fields, "opendino": extra})
    write_json(transform_file, transform.to_dict())
    write_atomic(weights_file, save(_tensors(layout, config, model), metadata={"format": "pt"}))


def write_official(folder: Path, model: nn.Module, transform: Transform, card: dict[str, Any]) -> Path:
    """Write `NAME.pth`, a flat state dict in the official layout (fp32), and `NAME.json` with card and transform.

    Returns the .pth, which opens with `load` and with every reader of the official files.

    Raises UsageError for the small students, which the official layout does not have.
    """
    config: Config = model.config  # type: ignore[assignment]
    if config_to_json(config, 224)["model_type"] in OUR_TYPES:
        raise UsageError("the official layout", "has no place for this kind of model", "write the hf layout")
    name = official_stem(card)
    buffer = io.BytesIO()
    torch.save(_tensors(OFFICIAL, config, model), buffer)
    folder.mkdir(parents=True, exist_ok=True)
    beside = {"format": 1, "card": dict(card), "transform": transform.to_dict()}
    write_json(folder / f"{name}.json", {"opendino": beside})
    write_atomic(folder / f"{name}.pth", buffer.getvalue())
    return folder / f"{name}.pth"


def official_stem(card: dict[str, Any]) -> str:
    """The name of the files that `write_official` writes, without its ending."""
    return str(card.get("name", "model")).replace("/", "-") or "model"


def _tensors(layout: Layout, config: Config, model: nn.Module) -> dict[str, Tensor]:
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    state = state if layout.masks_bias else masked(state)
    tensors: dict[str, Tensor] = {}
    for rule in layout.rules(config, frozenset()):
        tensors.update(to_theirs(rule, state))
    tensors |= layout.copies(config, state)
    # Copies, so that no tensor shares memory with another one or drags a larger storage into the file.
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).clone() for name, tensor in tensors.items()
    }


def _beyond(config: Config) -> list[tuple[str, Any, str]]:
    """What a ViT's config.json has no field for: name, value, and what transformers then does."""
    found: list[tuple[str, Any, str]] = []
    if isinstance(config, ViTConfig):
        if config.rope_rounded and not isinstance(config, Dinov2Config):
            found.append(("rope_rounded", True, _ROUNDED))
        theirs = "antialias" if config.registers else "plain"
        if isinstance(config, Dinov2Config) and config.position_resize != theirs:
            found.append(("position_resize", config.position_resize, _RESIZED))
        if config.stride not in (None, config.patch):
            found.append(("stride", config.stride, _STRIDE))
    return found
