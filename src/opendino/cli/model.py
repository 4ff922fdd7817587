"""The model that a command works with: the flags that choose it, and the one way that they are followed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opendino.cli.arguments import OptionalCount, OptionalText, Switch
from opendino.data.images import Reading
from opendino.data.transform import Transform
from opendino.errors import UsageError
from opendino.features.identity import model_hash, transform_hash
from opendino.weights import load
from opendino.weights.by_timm import is_timm
from opendino.weights.where import locate


@dataclass(frozen=True, kw_only=True)
class ModelChanges:
    """Flags that change a model as it is opened."""

    stride: OptionalCount = None
    """Pixels from patch to patch; below the patch side they overlap, and maps become finer and slower."""
    channels: OptionalCount = None
    """Input channels; weights made for RGB are spread over them by the mean, as for a grey picture."""
    resample_patch: OptionalCount = None
    """Patch side in pixels that the weights are resampled to."""
    mean: OptionalText = None
    """Mean of each channel in [0, 1], with commas, instead of the model's own; recorded with what is made."""
    std: OptionalText = None
    """Standard deviation of each channel, as --mean."""
    heads: OptionalCount = None
    """Attention heads, for a file whose shapes do not tell."""
    depth: OptionalCount = None
    """Blocks, for a file that has fewer than the family's model of its widths and is whole all the same."""
    partial: Switch = False
    """Take what fits of weights that do not fit as a whole; the rest keeps random values, and is named."""
    accept_licence: Switch = False
    """Accept the licence of an open mirror without being asked."""


@dataclass(frozen=True, kw_only=True)
class ModelArgs(ModelChanges):
    """Flags of every command that opens one model."""

    model: OptionalText = None
    """A run directory, a model folder, a weights file, a name (`opendino models`) or timm:NAME; default: the best at
    hand."""


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
    resample_patch: int | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    heads: int | None = None,
    depth: int | None = None,
    partial: bool = False,
    accept_licence: bool = False,
) -> Chosen:
    """What was named, or a model that is open already, or, for None, the best at hand; standard error says which.

    Args:
        stride, channels, heads, depth, partial: see `opendino.load`; resample_patch is its `patch`.
        mean, std: of each channel, in the place of those in its transform; numbers, or text with commas.
    Raises:
        UsageError: changes to a model that is open already. Else as `opendino.load`.
    """
    changes = {"stride": stride, "channels": channels, "patch": resample_patch, "heads": heads, "depth": depth}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if isinstance(what, nn.Module):
        if given or mean or std:
            raise UsageError("model", "is open already", "give its changes to opendino.load, or set model.transform")
        return Chosen(what, str(what.card["source"]))  # type: ignore[index]
    if is_timm(what):
        foreign: Any = load(what, device, partial=partial, **given)
        _normalise_by(foreign, mean, std)
        return Chosen(foreign, foreign.card["source"])
    origin = locate(what, accept_licence=accept_licence)
    if what is None:
        named = origin.name or str(origin.path.resolve())
    else:
        named = str(Path(what).resolve()) if Path(what).exists() else str(what)
    model: Any = load(origin, device, partial=partial, **given)
    _normalise_by(model, mean, std)
    return Chosen(model, named)


def require_family(model: Any) -> None:
    """Raise UsageError for a model that can only be used frozen."""
    if not hasattr(model, "config"):
        raise UsageError(
            model.card["source"], "is no model of the family, so it is only used frozen", "embed, evaluate"
        )


def model_changes(args: ModelChanges) -> dict[str, Any]:
    """The flags beside --model, as `choose_model` takes them."""
    return {field.name: getattr(args, field.name) for field in fields(ModelChanges)}


def as_flags(named: str, args: ModelArgs) -> str:
    """The same choice for the next command: --model and the flags that were given."""
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in model_changes(args).items()
        if name != "accept_licence" and value is not None and value is not False
    ]
    return " ".join([f"--model {shlex.quote(named)}", *given])


def model_inputs(model: Any, transform: Transform, reading: Reading | None = None) -> dict[str, Any]:
    """What `cli.output` keeps of a model: its name with the hash of its weights, and what pictures go through."""
    return {
        "model": f"{model.card['name']} ({model_hash(model)})",
        "transform": transform_hash(transform, reading or Reading()),
    }


def _normalise_by(model: Any, mean: str | Sequence[float] | None, std: str | Sequence[float] | None) -> None:
    given = {name: _numbers(name, value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    for name, values in given.items():
        if len(values) != (wanted := len(model.transform.mean)):
            raise UsageError(f"--{name}", f"must be {wanted} numbers, one a channel, got {len(values)}")
    if given:
        model.transform = replace(model.transform, **given)


def _numbers(name: str, value: str | Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in (value.split(",") if isinstance(value, str) else value))
    except ValueError:
        raise UsageError(f"--{name} {value}", "must be numbers with commas", "for example 0.43,0.41,0.30") from None
