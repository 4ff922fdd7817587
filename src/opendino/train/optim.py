"""Optimizer: parameter groups with their multipliers, clipping per module, and the schedules that drive them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from opendino.errors import UsageError
from opendino.train.muon import MuonAdamW
from opendino.train.schedules import Length, Rise, Schedule, rising, to_steps


@dataclass(frozen=True)
class Rate:
    """Multipliers of one parameter on the scheduled learning rate and weight decay."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class OptimConfig:
    """AdamW or SGD with warm-up. `lr` is the effective peak: recipes scale it, nothing scales it later."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """Rule of the update."""
    lr: float = 1e-3
    """Peak learning rate, as it is used."""
    lr_final: float = 1e-6
    """At the end of the cosine."""
    muon_lr: float = 0.0
    """Above 0: peak rate of Muon's step for matrices and convolutions, on the schedule of `lr`; not of the paper."""
    lr_start: float = 0.0
    """At step 0."""
    schedule: Literal["cosine", "open cosine", "constant", "cosine rise"] = "cosine"
    """After the warm-up; an open cosine would reach lr_final one step after the last. A cosine rise is a warm-up along
    half a cosine, and constant after."""
    warmup: Length = 0.1
    """Length of the rise from lr_start, a line otherwise."""
    hold: Length = 0
    """Length of the stay at the peak between the warm-up and the cosine."""
    weight_decay: float = 0.04
    """At the start, on matrices and tokens."""
    weight_decay_final: float = 0.04
    """At the end."""
    weight_decay_rise: Rise = "cosine"
    """The way between the two."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of AdamW's two moments; SGD's momentum is the first."""
    eps: float = 1e-8
    """AdamW's, beside the root of the second moment."""
    clip: float = 3.0
    """Largest gradient norm of each trained module; 0 switches clipping off."""
    layer_decay: float = 1.0
    """Learning rate multiplier per block, counted from the output (1: all the same)."""
    patch_embed_lr: float = 1.0
    """Multiplier on the first layer, on top of layer_decay; 0.2 in the paper."""
    freeze_last_layer: Length = 0
    """The prototypes stand still for so long."""
    backbone_lr: float = 1.0
    """Multiplier on the rates of the backbone, on top of layer_decay: below 1 where it is trained already."""
    freeze_backbone: Length = 0
    """The backbone stands still for so long, so that fresh heads learn its features first; then its rate rises linearly
    over as long again."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UsageError("optim.lr", f"must be above 0, got {self.lr}")
        rates = ("lr_start", "lr_final", "muon_lr", "patch_embed_lr", "backbone_lr")
        for name in (*rates, "weight_decay", "weight_decay_final", "eps", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"optim.{name}", f"must be 0 or more, got {getattr(self, name)}")
        for name in ("warmup", "hold", "freeze_last_layer", "freeze_backbone"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"optim.{name}", f"must be steps or a share of the run, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError("optim.betas", f"must be in [0, 1), got {self.betas}")
        if self.kind == "sgd" and self.muon_lr > 0:
            raise UsageError("optim.muon_lr", "goes with adamw alone", "leave it at 0 with optim.kind sgd")
        if not 0 < self.layer_decay <= 1:
            raise UsageError("optim.layer_decay", f"must be in (0, 1], got {self.layer_decay}")

    @property
    def lr_schedule(self) -> Schedule:
        if self.schedule == "cosine rise":
            return Schedule(self.lr_start, self.lr_start, self.lr, cosine=self.warmup)
        end = self.lr if self.schedule == "constant" else self.lr_final
        return Schedule(self.lr_start, self.lr, end, self.warmup, hold=self.hold, open=self.schedule == "open cosine")

    @property
    def weight_decay_schedule(self) -> Schedule:
        return rising(self.weight_decay, self.weight_decay_final, self.weight_decay_rise)


_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_FIRST_LAYER = ("patch_embed.", "stem.")
_TOKENS = ("cls_token", "registers", "mask_token")
_NO_MATRICES = (*_TOKENS, "last_layer", "stem.conv.")
"""Kept from Muon although two-dimensional: tokens and prototypes are lists of vectors, and filters of a k-means first
layer should stay near the centres they started from."""


def lr_multiplier(name: str, num_layers: int, config: OptimConfig) -> float:
    """Layer-wise decay of a backbone parameter: decay^(L + 1 - id), id 0 for first layer and tokens, i + 1 for block i.

    Source: arXiv 2508.10104, appendix C; final norms and everything else have id L + 1, so multiplier 1.
    """
    block = _BLOCK.search(name)
    first = name.startswith(_FIRST_LAYER)
    index = int(block.group(1)) + 1 if block else 0 if first or name in _TOKENS else num_layers + 1
    return config.layer_decay ** (num_layers + 1 - index) * (config.patch_embed_lr if first else 1.0)


def build_optimizer(
    modules: Mapping[str, nn.Module], config: OptimConfig, rates: Mapping[str, Rate] | None = None
) -> torch.optim.Optimizer:
    """AdamW, Muon for matrices, or SGD, in groups with `lr_mult`, `wd_mult`, `last_layer`, `backbone` and the
    parameters' names.

    No weight decay on biases, norms and LayerScale; everything else decays, tokens and prototypes included, as in
    the published recipe. Parameters of one group share all of them, so a step sets few numbers. What needs no gradient
    when this is called is left out for good.

    Args:
        rates: multipliers of single parameters, by "module.name", in place of those that follow from their names.
    """
    rates = rates or {}
    groups: dict[tuple[float, float, bool, bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for module_name, module in modules.items():
        num_layers = getattr(module, "num_layers", 0)
        backbone = module_name == "backbone"
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            decays = parameter.ndim > 1 and not name.endswith("bias") and "norm" not in name and "gamma" not in name
            multiplier = lr_multiplier(name, num_layers, config) * config.backbone_lr if backbone else 1.0
            matrix = parameter.ndim in (2, 4) and not any(part in name for part in _NO_MATRICES)
            orthogonal = config.muon_lr > 0 and matrix
            if orthogonal:
                multiplier *= config.muon_lr / config.lr
            rate = rates.get(f"{module_name}.{name}", Rate(multiplier, 1.0 if decays else 0.0))
            key = (rate.lr, rate.weight_decay, "last_layer" in name, backbone, orthogonal)
            groups.setdefault(key, []).append((f"{module_name}.{name}", parameter))
    described = [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "lr_mult": lr_mult,
            "wd_mult": wd_mult,
            "last_layer": last_layer,
            "backbone": backbone,
            "orthogonal": orthogonal,
        }
        for (lr_mult, wd_mult, last_layer, backbone, orthogonal), members in groups.items()
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(described, lr=config.lr, momentum=config.betas[0])
    return MuonAdamW(described, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def set_hyperparameters(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, total: int) -> float:
    """Write this step's learning rates and weight decays into the groups; returns the base learning rate.

    A backbone that stands still asks for no gradient, so that no backward pass goes through it.
    """
    lr = config.lr_schedule.at(step, total)
    weight_decay = config.weight_decay_schedule.at(step, total)
    frozen = step < to_steps(config.freeze_last_layer, total)
    share = backbone_share(config, step, total)
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if frozen and group["last_layer"] else lr * group["lr_mult"]
        group["weight_decay"] = weight_decay * group["wd_mult"]
        if group["backbone"] and config.freeze_backbone:
            group["lr"] *= share
            for parameter in group["params"]:
                parameter.requires_grad_(share > 0)
    return lr


def backbone_share(config: OptimConfig, step: int, total: int) -> float:
    """Share of its rate that the backbone has at a step: 0 while frozen, a linear rise of the same length, then 1."""
    frozen = to_steps(config.freeze_backbone, total)
    if step < frozen or not frozen:
        return 0.0 if step < frozen else 1.0
    return min(1.0, (step + 1 - frozen) / frozen)


def clip_gradients(modules: Mapping[str, nn.Module], limit: float) -> float:
    """Scale each module's gradients to a norm of at most `limit` (0: leave them); returns the norm over all, before."""
    squares = 0.0
    for module in modules.values():
        parameters = [p for p in module.parameters() if p.grad is not None]
        if parameters:
            norm = nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else float("inf"), foreach=True)
            squares += float(norm) ** 2
    return squares**0.5
