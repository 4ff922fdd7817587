"""Which model and which transform made a vector: short hashes that stand beside every stored row."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from opendino.data.images import Reading
from opendino.data.transform import Transform

HEX_DIGITS = 16
_PLAIN = Reading()


def model_hash(model: nn.Module) -> str:
    """Hash of all weights, their names, types and shapes; the same for one model in whatever file it came.

    Heads and stride change what the same weights compute, so they count too.
    """
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    stride = getattr(config, "stride", None) or getattr(config, "patch", None)
    digest.update(f"heads {getattr(config, 'heads', None)} stride {stride}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:HEX_DIGITS]


def transform_hash(transform: Transform, reading: Reading = _PLAIN) -> str:
    """Hash of everything that decides what the model sees of a picture file; a plain reading adds nothing to it."""
    told = json.dumps(transform.to_dict(), sort_keys=True)
    lasting = replace(reading, at_least=None)
    if lasting != _PLAIN:
        told += json.dumps(asdict(lasting), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:HEX_DIGITS]
