"""The one type that every evaluation returns and every table reads."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from opendino.errors import DataError


@dataclass(frozen=True)
class Result:
    """One number with all that is needed to compare it.

    protocol: "knn", "linear"; variant: "ours", "official" or "paper"; dataset: its name; split_hash: which pictures
    were scored against which; n: scored pictures; metric: "top1"; value: percent, 0 to 100; interval: its 95 % bounds;
    model_hash: SHA-256 of the weights, empty while they change; config: every setting, JSON values.
    """

    protocol: str
    variant: str
    dataset: str
    split_hash: str
    n: int
    metric: str
    value: float
    interval: tuple[float, float] | None
    model_hash: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def to_dict(result: Result) -> dict[str, Any]:
    """Plain JSON values."""
    return dataclasses.asdict(result)


def from_dict(value: Mapping[str, Any]) -> Result:
    """What `to_dict` gave, back. Raises DataError naming missing and unknown keys."""
    known = {item.name for item in dataclasses.fields(Result)}
    needed = known - {"model_hash", "config"}
    if wrong := sorted((needed - value.keys()) | (value.keys() - known)):
        raise DataError("result", f"keys missing or unknown: {', '.join(wrong)}")
    interval = value["interval"]
    return Result(**{**value, "interval": None if interval is None else (interval[0], interval[1])})


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors of a module, in order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(raw.view(torch.uint8).numpy().data if raw.numel() else b"")
    return digest.hexdigest()
