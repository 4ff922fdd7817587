"""What a key map is made of: rules that are read in both directions, and the layout that owns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.models.family import Config

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """Some tensors of ours and those of a file that hold the same numbers.

    Ours, joined along `dim`, equal theirs, joined along `dim`: q, k and v become one tensor, a fused gate becomes two.

    theirs: names in the file, of equal length along `dim`; None stands for zeros that the file does not keep. Empty:
        the layout has no place for it, and ours gets `fill`, one value for each equal part of its length.
    lead: the file has one more dimension of size 1 in front.
    optional: files without it exist; ours then gets `fill`.
    """

    ours: tuple[str, ...]
    theirs: tuple[str | None, ...]
    dim: int = 0
    lead: bool = False
    optional: bool = False
    fill: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Layout:
    """Names of tensors that one library writes.

    rules: for a config and the names in a file, the rules, one for each of our tensors. The names decide between
        variants of a layout; for writing they are empty, which gives the fullest variant.
    copies: tensors of the file that follow from others: name -> value from our state. Files may lack them; when present
        they must agree.
    masks_bias: False where the file has no `bias_mask`, so that a written bias must have it applied.
    """

    name: str
    rules: Callable[[Config, frozenset[str]], list[Rule]]
    copies: Callable[[Config, State], dict[str, Tensor]] = lambda config, state: {}
    masks_bias: bool = False


def same(ours: str, theirs: str | None = None) -> Rule:
    """A tensor that only changes its name, if that."""
    return Rule((ours,), (theirs or ours,))


def pairs(ours: str, theirs: str) -> list[Rule]:
    """The weight and the bias of one layer."""
    return [same(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def shapes_in_file(rule: Rule, ours: State) -> dict[str, tuple[int, ...]]:
    """What the file must hold for a rule: name -> shape. `ours` may lie on the meta device."""
    shape = list(ours[rule.ours[0]].shape)
    if len(rule.ours) > 1 or len(rule.theirs) > 1:  # a single tensor may be a scalar, without any dimension
        shape[rule.dim] = sum(ours[name].shape[rule.dim] for name in rule.ours) // len(rule.theirs)
    whole = (1, *shape) if rule.lead else tuple(shape)
    return {name: whole for name in rule.theirs if name is not None}


def to_ours(rule: Rule, tensors: State, ours: State) -> dict[str, Tensor]:
    """Fresh tensors of ours, floats as fp32, from a file whose shapes have been checked."""
    named = [tensors[name] for name in rule.theirs if name is not None and name in tensors]
    if not named:
        return {name: _filled(ours[name].shape, rule.fill) for name in rule.ours}
    dtype = torch.float32 if named[0].is_floating_point() else named[0].dtype
    parts = [named[0].new_zeros(named[0].shape) if name is None else tensors[name] for name in rule.theirs]
    parts = [part[0] if rule.lead else part for part in parts]
    lengths = [ours[name].shape[rule.dim] if ours[name].ndim else 1 for name in rule.ours]
    if len(parts) == 1 == len(lengths):
        return {rule.ours[0]: parts[0].to(dtype, copy=True).contiguous()}
    whole = torch.cat([part.to(dtype) for part in parts], rule.dim)
    split = whole.split(lengths, rule.dim) if len(lengths) > 1 else (whole,)
    return {name: part.clone().contiguous() for name, part in zip(rule.ours, split, strict=True)}


def to_theirs(rule: Rule, ours: State) -> dict[str, Tensor]:
    """The file's tensors that hold those of a rule; what the layout has no place for is left out."""
    if not rule.theirs:
        return {}
    parts = [ours[name] for name in rule.ours]
    whole = torch.cat(parts, rule.dim) if len(parts) > 1 else parts[0]
    split = whole.chunk(len(rule.theirs), rule.dim) if len(rule.theirs) > 1 else (whole,)
    found = {name: part.contiguous() for name, part in zip(rule.theirs, split, strict=True) if name is not None}
    return {name: part[None] for name, part in found.items()} if rule.lead else found


def masked(state: State) -> dict[str, Tensor]:
    """A state whose biases are what attention adds, for layouts without a bias mask."""
    return {
        name: tensor * state[f"{name}_mask"] if f"{name}_mask" in state else tensor for name, tensor in state.items()
    }


def _filled(shape: torch.Size, fill: tuple[float, ...]) -> Tensor:
    if len(fill) == 1:
        return torch.full(shape, fill[0])
    return torch.tensor(fill).repeat_interleave(shape[0] // len(fill))
