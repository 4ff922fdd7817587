"""`write_model`: a trained backbone as a folder that opens with `opendino.load` and, where possible, transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from opendino.data.transform import Transform
from opendino.files import write_atomic, write_json
from opendino.models.family import Config
from opendino.models.vit import ViTConfig
from opendino.weights.config_hf import OUR_TYPES, config_to_json
from opendino.weights.keys_hf import rules_for, to_theirs
from opendino.weights.load import WEIGHTS

_OWN_LAYOUT = "opens with opendino.load; no model of transformers has this shape"
_ROUNDED = "positions use bf16-rounded periods; transformers computes exact ones, its outputs differ by up to about 1 %"


def write_model(folder: Path, model: nn.Module, transform: Transform, card: dict[str, Any]) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors (fp32); older ones are replaced, each whole.

    A ViT or ConvNeXt also opens in transformers (AutoModel, AutoImageProcessor) with equal outputs. What transformers
    has no place for stands in config.json under `opendino`; a trained local norm is stored as two more tensors.

    Args:
        model: a backbone of the family; on any device, in any mode.
        card: name, licence, source and whatever else should travel with the weights; JSON values.
    """
    config: Config = model.config  # type: ignore[assignment]
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {}
    for rule in rules_for(config, state):
        tensors.update(to_theirs(rule, state[rule.ours]))
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    fields = config_to_json(config, transform.size)
    extra: dict[str, Any] = {"format": 1, "card": dict(card)}
    if fields["model_type"] in OUR_TYPES:
        extra["card"].setdefault("note", _OWN_LAYOUT)
    elif isinstance(config, ViTConfig) and config.rope_rounded:
        extra["rope_rounded"] = True
        extra["card"].setdefault("note", _ROUNDED)
    folder.mkdir(parents=True, exist_ok=True)
    # The weights go last: a folder without them is no model, whatever else it holds.
    write_json(folder / "config.json", {**fields, "opendino": extra})
    write_json(folder / "preprocessor_config.json", transform.to_dict())
    write_atomic(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
