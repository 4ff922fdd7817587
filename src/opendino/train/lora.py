"""Low-rank changes (LoRA) to the linear layers of a transformer, by the peft library: few trained numbers, merged away.

Source: Hu et al., arXiv 2106.09685.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from opendino.errors import OpendinoError, UsageError

SCALE = 2
"""alpha / rank: what the product of the two low-rank matrices is multiplied by."""


def check_lora(backbone: nn.Module) -> list[str]:
    """Names of the layers that get a change. Raises UsageError for a network without transformer blocks."""
    names = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("blocks.")
    ]
    if not names:
        raise UsageError("--lora", "the model has no transformer blocks to add low-rank changes to", "leave it out")
    return names


def add_lora(backbone: nn.Module, rank: int) -> None:
    """Give every linear layer of the blocks a change of this rank, which starts at 0; all else needs no gradient then.

    Raises:
        UsageError: as `check_lora`. OpendinoError: peft is missing or cannot be imported.
    """
    names = check_lora(backbone)
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=names, lora_dropout=0.0)
    peft.inject_adapter_in_model(config, backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merged(backbone: nn.Module) -> nn.Module:
    """A copy with the changes added into the weights: the plain model again, which opens everywhere."""
    layer_type = _peft().tuners.tuners_utils.BaseTunerLayer
    plain = copy.deepcopy(backbone).requires_grad_(True)
    for name, module in list(plain.named_modules()):
        if isinstance(module, layer_type):
            tuned: Any = module
            tuned.merge()
            home, _, own = name.rpartition(".")
            setattr(plain.get_submodule(home), own, tuned.get_base_layer())
    return plain


def _peft() -> Any:
    try:
        import peft
    except (ImportError, RuntimeError) as error:
        fix = "pip install 'opendino[adapt]', or train all weights: leave --lora out"
        raise OpendinoError("peft", f"is needed for --lora and cannot be imported ({error})", fix) from None
    return peft
