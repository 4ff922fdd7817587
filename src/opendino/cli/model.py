"""The model that a command works with: the flags that choose it, and the one way that they are followed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opendino.cli.arguments import OptionalCount, OptionalText, Switch
from opendino.weights import load


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """Flags of every command that opens one model."""

    model: OptionalText = None
    """A run directory, a model folder, a weights file, or a name (`opendino models`); default: the best at hand."""
    stride: OptionalCount = None
    """Pixels from patch to patch; below the patch side they overlap, and maps become finer and slower."""
    channels: OptionalCount = None
    """Input channels; weights made for RGB are spread over them by the mean, as for a grey picture."""
    heads: OptionalCount = None
    """Attention heads, for a file whose shapes do not tell."""
    accept_licence: Switch = False
    """Accept the licence of an open mirror without being asked."""


@dataclass(frozen=True)
class Chosen:
    """model: as `opendino.load` returns it. named: what opens it again, a path that stays right elsewhere or a name."""

    model: Any
    named: str


def choose_model(
    what: Path | str | nn.Module | None,
    device: str | torch.device = "cpu",
    *,
    stride: int | None = None,
    channels: int | None = None,
    heads: int | None = None,
    accept_licence: bool = False,
) -> Chosen:
    """What was named, or a model that is open already, or, for None, the best at hand; standard error says which.

    Raises WeightsError or UsageError in one line, see `opendino.load`.
    """
    if isinstance(what, nn.Module):
        return Chosen(what, str(what.card["source"]))  # type: ignore[index]
    changes = {"stride": stride, "channels": channels, "heads": heads}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    model: Any = load(what, device, accept_licence=accept_licence, **given)
    if what is None:
        return Chosen(model, str(model.card["name"]))
    return Chosen(model, str(Path(what).resolve()) if Path(what).exists() else str(what))
