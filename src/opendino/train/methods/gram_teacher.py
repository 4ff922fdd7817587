"""Gram anchoring in a run: the frozen teacher, when it is renewed, and how much its similarities weigh."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opendino.data.config import CropConfig
from opendino.errors import UsageError
from opendino.losses import gram_loss
from opendino.losses.gram import GramLevel, Negatives
from opendino.models.batch_norm import batch_norms
from opendino.train.schedules import Length, Schedule, to_steps

WAITING = -1
"""Refreshes of a teacher that has not taken its first copy yet."""


@dataclass(frozen=True)
class GramConfig:
    """The Gram term. Lengths are steps or shares of the run. Source: arXiv 2508.10104, section 4 and appendix C."""

    weight: float = 0.0
    """Once risen; 0: no Gram term and no Gram teacher. Published: 2, and 1.5 at high resolution."""
    start: Length = 0
    """Where the weight begins to rise from 0."""
    ramp: Length = 0
    """Length of the rise, half a cosine."""
    teacher: Literal["frozen", "average"] = "frozen"
    """frozen: a copy that stands still between refreshes; average: the teacher of this run as it is."""
    copy_at: Length = 0
    """Step at which the frozen teacher is copied from the average; 0: it is what the run starts from, or was given."""
    refresh_every: Length = 0
    """The frozen teacher is copied anew from the average at multiples of this; 0: never."""
    first_refresh: Length = 0
    """No refresh before."""
    max_refreshes: int = 3
    """And not more of them."""
    level: GramLevel = "image"
    """Similarities within each image, or among all patches of a batch."""
    negatives: Negatives = "keep"
    """keep; drop: those below 0 count as 0; drop_teacher: those of the Gram teacher do."""
    patches: Literal["all", "masked", "visible"] = "all"
    """Which patches of the student's crops count; masked and visible need level batch."""
    local_weight: float = 1.0
    """Of local crops in the DINO term once the weight has risen: they pull patches towards CLS. Published: 0.5."""

    def __post_init__(self) -> None:
        for name in ("weight", "local_weight", "start", "ramp", "copy_at", "refresh_every", "first_refresh"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"method.gram.{name}", f"must be 0 or more, got {getattr(self, name)}")
        if self.max_refreshes < 0:
            raise UsageError("method.gram.max_refreshes", f"must be 0 or more, got {self.max_refreshes}")
        if self.patches != "all" and self.level == "image":
            cause = f"{self.patches} patches need level batch, since images have different numbers of them"
            raise UsageError("method.gram.patches", cause, "add --method.gram.level batch")
        if self.teacher == "average" and (self.copy_at or self.refresh_every):
            cause = "an average is never copied or refreshed: it moves with every step"
            raise UsageError("method.gram.teacher", cause, "choose frozen, or leave copy_at and refresh_every at 0")
        if not self.weight and self.local_weight != 1:
            cause = f"is {self.local_weight:g} without a Gram term"
            raise UsageError("method.gram.local_weight", cause, "add --method.gram.weight 2")

    def check(self, crops: CropConfig, masked: bool) -> None:
        """Raise UsageError, in words, when the crops or the masks of a run do not fit this."""
        sides = [sizes.gram_px for sizes in crops.sizes]
        field = "data.crops.mix" if crops.mix else "data.crops.gram_px"
        if self.weight and self.teacher == "frozen" and not all(sides):
            size = 2 * crops.sizes[0].global_px
            fix = f"add --data.crops.gram-px {size}, twice the global crops" if not crops.mix else "write 64/32/96:0.5"
            raise UsageError(field, "has no crops for the Gram teacher", fix)
        if not self.weight and any(sides):
            raise UsageError(field, "has Gram crops, but there is no Gram term", "add --method.gram.weight 2")
        if self.weight and self.patches != "all" and not masked:
            cause = f"{self.patches} patches of a student that sees no masks"
            raise UsageError("method.gram.patches", cause, "a convolution has no tokens to mask; choose all")

    @property
    def weight_schedule(self) -> Schedule:
        return Schedule(0.0, 0.0, self.weight, self.start, self.ramp)

    @property
    def local_weight_schedule(self) -> Schedule:
        return Schedule(1.0, 1.0, self.local_weight, self.start, self.ramp)


class GramTeacher(nn.Module):
    """The frozen backbone and the count of its refreshes; both lie in the state of a run, so a resume is exact.

    Copies take the whole state, buffers too: rotation periods, bias masks and running statistics go with the weights
    that they belong to.
    """

    refreshes: Tensor

    def __init__(self, average: nn.Module, config: GramConfig, total_steps: int) -> None:
        """average: the backbone to copy."""
        super().__init__()
        self.config, self.total_steps = config, total_steps
        if to_steps(config.copy_at, total_steps) > to_steps(config.start, total_steps):
            cause = f"the weight rises from {config.start}, before the teacher is copied at {config.copy_at}"
            raise UsageError("method.gram.copy_at", cause, "copy it at the start of the rise or earlier")
        if config.teacher == "frozen":
            self.backbone = copy.deepcopy(average).requires_grad_(False)
            self.register_buffer("refreshes", torch.tensor(WAITING if to_steps(config.copy_at, total_steps) else 0))

    def weight(self, step: int) -> float:
        return self.config.weight_schedule.at(step, self.total_steps)

    def local_weight(self, step: int) -> float:
        return self.config.local_weight_schedule.at(step, self.total_steps)

    def loss(self, patches: Tensor, crops: Tensor, masks: Tensor | None, average: nn.Module) -> Tensor:
        """The Gram term of one micro-batch.

        Args:
            patches: [2b, h, w, D] of the student. crops: [2b, 3, G, G] for the Gram teacher. masks: [2b, h, w].
            average: the run's teacher, which is the Gram teacher unless a frozen one is.
        """
        backbone: Any = self.backbone if self.config.teacher == "frozen" else average
        backbone.eval()
        norms = batch_norms(backbone)
        # As for the teacher: by the batch at hand, for no running statistics belong to crops of this size.
        for norm in norms:
            norm.train()
        with torch.no_grad():
            anchor = backbone(crops).patches
        for norm in norms:
            norm.eval()
        chosen = None
        if self.config.patches != "all":
            assert masks is not None
            chosen = masks if self.config.patches == "masked" else ~masks
        return gram_loss(patches, anchor, level=self.config.level, negatives=self.config.negatives, chosen=chosen)

    @torch.no_grad()
    def after_step(self, step: int, average: nn.Module) -> None:
        """Take the first copy and the refreshes that are due once `step` is done.

        A refresh falls on multiples of refresh_every from first_refresh on. One that a failed step left out is taken
        at the next multiple; a first copy at the next step.
        """
        config, done = self.config, step + 1
        if config.teacher == "average":
            return
        first, every = (to_steps(length, self.total_steps) for length in (config.copy_at, config.refresh_every))
        if first and done >= first and int(self.refreshes) == WAITING:
            self.take(average)
        due = every and done % every == 0 and done >= max(1, to_steps(config.first_refresh, self.total_steps))
        if due and WAITING < int(self.refreshes) < config.max_refreshes and done != first:
            self.take(average)
            self.refreshes += 1

    def take(self, backbone: nn.Module) -> None:
        """Become a copy of `backbone`."""
        self.backbone.load_state_dict(backbone.state_dict())
        self.refreshes.clamp_(min=0)
