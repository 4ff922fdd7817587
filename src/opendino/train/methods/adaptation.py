"""Adaptation: self-distillation that goes on from a trained backbone and stays near what it knew."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.losses import gram_loss
from opendino.losses.match import match_loss
from opendino.models.batch_norm import batch_norms
from opendino.models.contract import Features
from opendino.train.lora import add_lora, merged
from opendino.train.methods.self_distillation import SelfDistillation, SelfDistillationConfig


@dataclass(frozen=True)
class AdaptConfig:
    """What an adaptation holds on to, and when it ends early. Not of the paper, but for the Gram loss."""

    start: str = ""
    """Hash of the weights that it goes on from, filled by the command."""
    cls_weight: float = 0.0
    """Of the anchor on whole pictures: CLS stays near the start's."""
    gram_weight: float = 0.0
    """Of the anchor on patches: their similarities stay near the start's."""
    lora: int = 0
    """Rank of low-rank changes to a transformer's linear layers, all that is trained then; 0: all weights."""
    keep: str = ""
    """Fingerprint of the pictures by which retention is told, filled by the command."""
    max_loss: float = 2.0
    """Points of k-NN on what is to be kept that a model may lose and still count as the best one."""
    least_agreement: float = 0.3
    """Without such pictures: share of the start's nearest neighbours that must stay neighbours."""
    patience: int = 4
    """Looks without a new best after which a run ends; 0: never."""

    def __post_init__(self) -> None:
        for name in ("cls_weight", "gram_weight", "lora", "max_loss", "patience"):
            if getattr(self, name) < 0:
                raise UsageError(f"adapt.{name}", f"must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.least_agreement <= 1:
            raise UsageError("adapt.least_agreement", f"must be a share from 0 to 1, got {self.least_agreement}")


class Adaptation(SelfDistillation):
    """Student, teacher and fresh heads, and a frozen copy of the start as anchor.

    The heads learn on the frozen backbone first (`optim.freeze_backbone`). The anchor sees what the student sees, but
    nothing hidden: whole global crops. Its weights are kept with the checkpoint, so a resume needs no other file.
    """

    def __init__(
        self, backbone: nn.Module, config: SelfDistillationConfig, adapt: AdaptConfig, total_steps: int
    ) -> None:
        anchor = copy.deepcopy(backbone)
        if adapt.lora:
            add_lora(backbone, adapt.lora)
        super().__init__(backbone, config, total_steps)
        self.adapt = adapt
        self.anchor = anchor.requires_grad_(False).eval()

    def export(self) -> nn.Module:
        backbone = super().export()
        return merged(backbone) if self.adapt.lora else backbone

    def further_terms(self, features: Features, global_crops: Tensor) -> Mapping[str, tuple[Tensor, float]]:
        # While the backbone stands still it is the anchor.
        if not features.cls.requires_grad or not (self.adapt.cls_weight or self.adapt.gram_weight):
            return {}
        held = self._anchored(global_crops)
        terms: dict[str, tuple[Tensor, float]] = {}
        if self.adapt.cls_weight:
            terms["anchor"] = match_loss(features.cls, held.cls), self.adapt.cls_weight
        if self.adapt.gram_weight:
            terms["gram"] = gram_loss(features.patches, held.patches), self.adapt.gram_weight
        return terms

    @torch.no_grad()
    def _anchored(self, global_crops: Tensor) -> Features:
        # As in the teacher: BatchNorm by the batch at hand, or the anchor would pull towards the statistics of the
        # pictures that the start was trained on.
        self.anchor.eval()
        for norm in batch_norms(self.anchor):
            norm.train()
        held: Any = self.anchor(global_crops)
        self.anchor.eval()
        return held
