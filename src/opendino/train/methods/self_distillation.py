"""Self-distillation: the DINOv3 pretraining objective (DINO + iBOT + KoLeo) of a student against its own average."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from opendino.data.loader import Crops
from opendino.errors import UsageError
from opendino.losses import balanced_targets, dino_loss, ibot_loss, koleo_loss, sinkhorn
from opendino.losses.koleo import group_starts
from opendino.losses.prototypes import BalancedTargets
from opendino.models.batch_norm import batch_norms
from opendino.models.contract import Features
from opendino.models.heads import ProjectionHead
from opendino.models.stochastic_depth import Part
from opendino.monitor.health import Probe
from opendino.train.method import LossTerms
from opendino.train.methods.gram_teacher import GramConfig, GramTeacher
from opendino.train.schedules import Length, Rise, Schedule, rising


@dataclass(frozen=True)
class SelfDistillationConfig:
    """Heads, targets and weights. Defaults are the paper's; small data needs others (recipes/small.py says why)."""

    prototypes: int = 65_536
    """Outputs of the DINO head."""
    hidden: int = 2048
    """Width of the DINO head."""
    bottleneck: int = 256
    """Width before the prototypes."""
    head_batch_norm: bool = False
    """BatchNorm on the statistics of the batch in the DINO head; not of the paper."""
    unit_prototypes: bool = False
    """Prototype rows of length 1, so that logits have a spread from the first step; not of the paper."""
    dino_weight: float = 1.0
    """Of the loss on CLS."""
    ibot_weight: float = 1.0
    """0: no masks, no iBOT head."""
    ibot_prototypes: int = 65_536
    """Outputs of the iBOT head."""
    ibot_hidden: int | None = None
    """Width of the iBOT head; None: as the DINO head's."""
    ibot_bottleneck: int | None = None
    """Its width before the prototypes; None: as the DINO head's."""
    koleo_weight: float = 0.1
    """Per global crop, so twice this weighs on their mean."""
    koleo_group: int = 16
    """Pictures among which KoLeo spreads features."""
    student_temperature: float = 0.1
    """Divides the student's logits."""
    teacher_temperature_start: float = 0.04
    """Divides the teacher's logits at step 0."""
    teacher_temperature: float = 0.07
    """The same once warmed up."""
    teacher_temperature_warmup: Length = 0.3
    """Length of the way between the two."""
    target_spread: float = 0.0
    """Above 0: DINO teacher logits are centred per prototype and scaled to this std; not of the paper."""
    queue: int = 0
    """Past DINO teacher logits that join in Sinkhorn, for when prototypes outnumber a batch; not of the paper."""
    momentum: float = 0.992
    """The teacher keeps so much of itself in a step."""
    momentum_final: float = 1.0
    """The same at the end."""
    momentum_rise: Rise = "cosine"
    """The way between the two."""
    micro_batch: int = 0
    """Pictures per backward pass; 0: the whole batch at once. The step is that of the whole batch all the same."""
    gram: GramConfig = field(default_factory=GramConfig)

    def __post_init__(self) -> None:
        if self.prototypes < 2:
            raise UsageError("method.prototypes", f"must be at least 2, got {self.prototypes}")
        for name in (
            "dino_weight",
            "ibot_weight",
            "koleo_weight",
            "queue",
            "micro_batch",
            "target_spread",
        ):
            if getattr(self, name) < 0:
                raise UsageError(f"method.{name}", f"must be at least 0, got {getattr(self, name)}")
        if self.koleo_group < 2:
            raise UsageError("method.koleo_group", f"must be at least 2, got {self.koleo_group}")
        for name in ("student_temperature", "teacher_temperature_start", "teacher_temperature"):
            if getattr(self, name) <= 0:
                raise UsageError(f"method.{name}", f"must be above 0, got {getattr(self, name)}")
        if not 0 <= self.momentum <= self.momentum_final <= 1:
            raise UsageError("method.momentum", f"must be in [0, momentum_final <= 1], got {self.momentum}")

    def check_batch(self, batch_size: int) -> None:
        """Raise UsageError when micro-batches of this batch would cut what is compared across pictures."""
        size = self.micro_batch or batch_size
        cuts = range(0, batch_size, size)
        if self.koleo_weight > 0 and not set(cuts) <= set(group_starts(batch_size, self.koleo_group)):
            near = max(1, size // self.koleo_group) * self.koleo_group
            raise UsageError(
                f"method.micro_batch {size}",
                f"cuts a batch of {batch_size} amid the groups of {self.koleo_group} pictures that KoLeo compares",
                f"use --method.micro-batch {near} and a multiple of it as batch, or another --method.koleo-group",
            )
        if self.gram.weight and self.gram.level == "batch" and size < batch_size:
            cause = "micro-batches would cut the one matrix of similarities of level batch"
            raise UsageError(f"method.micro_batch {size}", cause, "use --method.gram.level image")

    @property
    def momentum_schedule(self) -> Schedule:
        return rising(self.momentum, self.momentum_final, self.momentum_rise)

    @property
    def temperature_schedule(self) -> Schedule:
        return Schedule(
            self.teacher_temperature_start,
            self.teacher_temperature,
            self.teacher_temperature,
            self.teacher_temperature_warmup,
        )


def build_heads(dim: int, config: SelfDistillationConfig) -> dict[str, nn.Module]:
    """Fresh heads on a backbone of width `dim`: dino_head, and ibot_head where patches have a loss."""
    unit = config.unit_prototypes
    heads: dict[str, nn.Module] = {
        "dino_head": ProjectionHead(
            *(dim, config.hidden, config.bottleneck, config.prototypes),
            batch_norm=config.head_batch_norm,
            unit_prototypes=unit,
        )
    }
    if config.ibot_weight > 0:
        hidden, bottleneck = config.ibot_hidden or config.hidden, config.ibot_bottleneck or config.bottleneck
        heads["ibot_head"] = ProjectionHead(dim, hidden, bottleneck, config.ibot_prototypes, unit_prototypes=unit)
    return heads


@dataclass(frozen=True)
class _Targets:
    """Rows by index. dino: of the 2B global crops; ibot: of the M masked positions of all crops in order, or None."""

    dino: Tensor | BalancedTargets
    ibot: BalancedTargets | None


class SelfDistillation(nn.Module):
    """Student, teacher, heads and queue of one run; fulfils `train.method.Method`.

    One training step: teacher targets for the whole batch (no gradient), then student losses per micro-batch.
    Source: arXiv 2508.10104, section 3.2 and appendix C.
    """

    queue: Tensor

    def __init__(self, backbone: nn.Module, config: SelfDistillationConfig, total_steps: int) -> None:
        super().__init__()
        self.config, self.total_steps = config, total_steps
        dim: Any = backbone.dim
        self.student = nn.ModuleDict({"backbone": backbone, **build_heads(dim, config)})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        gram = config.gram.weight > 0
        self.gram_teacher = GramTeacher(self.teacher["backbone"], config.gram, total_steps) if gram else None
        # Rows of NaN are rows not filled yet.
        self.register_buffer("queue", torch.full((config.queue, config.prototypes), float("nan")))

    # --- what the loop asks ---

    def trained(self) -> Mapping[str, nn.Module]:
        return dict(self.student.items())

    def losses(self, crops: Crops, step: int) -> Iterator[LossTerms]:
        self.student.train()
        # No drop path and no position augmentation in the teacher, but BatchNorm by the batch at hand: running
        # statistics would belong to weights that the average has left behind.
        self.teacher.eval()
        for norm in batch_norms(self.teacher):
            norm.train()
        targets = self._targets(crops, step)
        self.teacher.eval()
        batch = crops.global_crops.shape[0] // 2
        size = self.config.micro_batch or batch
        # What the student draws is drawn for the whole batch: each micro-batch draws it again and takes its part.
        state = torch.get_rng_state()
        for start in range(0, batch, size):
            torch.set_rng_state(state)
            yield self._micro_losses(crops, targets, Part(start, min(start + size, batch), batch), step)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        momentum = self.config.momentum_schedule.at(step, self.total_steps)
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)
        if self.gram_teacher is not None:
            self.gram_teacher.after_step(step, self.teacher["backbone"])

    def scalars(self, step: int) -> Mapping[str, float]:
        gram = self.gram_teacher
        return {
            "momentum": self.config.momentum_schedule.at(step, self.total_steps),
            "teacher_temperature": self._temperature(step),
            **({} if gram is None else {"gram_weight": gram.weight(step), "local_weight": gram.local_weight(step)}),
        }

    @torch.no_grad()
    def probe(self, images: Tensor) -> Probe:
        features = self.teacher["backbone"](images)
        logits = self._spread(self.teacher["dino_head"](features.cls).float())
        training = self.student.training
        self.student.eval()
        student = self.student["dino_head"](self.student["backbone"](images).cls).float()
        self.student.train(training)
        return Probe(
            cls=features.cls.float(),
            patches=features.patches.flatten(1, 2).float(),
            teacher_logits=logits / self.config.teacher_temperature,
            student_logits=student / self.config.student_temperature,
        )

    def remarks(self, batch_size: int) -> Iterator[str]:
        """What a person should know before the first step, in words."""
        size = self.config.micro_batch or batch_size
        if size == 1 and self.config.koleo_weight > 0:
            yield "one picture at a time: the KoLeo term is off, since it needs a neighbour to move away from"
        if size < batch_size and any(isinstance(module, _BatchNorm) for module in self.student.modules()):
            yield (
                f"batch norm takes its statistics from {size} pictures at a time: in this alone micro-batches differ "
                f"from a whole batch of {batch_size}"
            )

    def export(self) -> nn.Module:
        backbone: nn.Module = self.teacher["backbone"]
        return backbone.eval()

    # --- for methods that build on this one ---

    def further_terms(self, features: Features, global_crops: Tensor) -> Mapping[str, tuple[Tensor, float]]:
        """Losses beside those above, by name with their weights, as means over a micro-batch's global crops.

        Args:
            features: the student's, of the global crops [V * b, ...], all first views first; some patches were masked.
        """
        return {}

    # --- parts ---

    def _temperature(self, step: int) -> float:
        return self.config.temperature_schedule.at(step, self.total_steps)

    def _spread(self, logits: Tensor) -> Tensor:
        if self.config.target_spread == 0:
            return logits
        centred = logits - logits.mean(dim=0, keepdim=True)
        return centred * (self.config.target_spread / centred.std().clamp_min(1e-6))

    @torch.no_grad()
    def _targets(self, crops: Crops, step: int) -> _Targets:
        batch = crops.global_crops.shape[0] // 2
        size = self.config.micro_batch or batch
        dino_head: Any = self.teacher["dino_head"]
        ibot_head: Any = self.teacher["ibot_head"] if self.config.ibot_weight > 0 else None
        tokens, patches = [], []
        masks = crops.masks if self.config.ibot_weight > 0 else None
        # Chunks run along the 2B crops: order is kept, so masked positions stay in the order of the masks.
        for start in range(0, 2 * batch, 2 * size):
            chunk = slice(start, start + 2 * size)
            features = self.teacher["backbone"](crops.global_crops[chunk])
            tokens.append(dino_head.bottleneck(features.cls))
            if masks is not None:
                patches.append(ibot_head.bottleneck(features.patches[masks[chunk]]))
        temperature = self._temperature(step)
        dino: Tensor | BalancedTargets
        if self.config.queue or self.config.target_spread:
            logits = F.linear(torch.cat(tokens), dino_head.prototypes()).float()
            filled = self.queue[~self.queue[:, 0].isnan()]
            dino = sinkhorn(self._spread(torch.cat([logits, filled])), temperature)
            self.queue.copy_(torch.cat([logits, self.queue])[: self.config.queue])
        else:
            dino = balanced_targets(torch.cat(tokens), dino_head.prototypes(), temperature)
        ibot = None
        if masks is not None and masks.any():
            ibot = balanced_targets(
                torch.cat(patches),
                ibot_head.prototypes(),
                temperature,
            )
        return _Targets(dino, ibot)

    def _micro_losses(self, crops: Crops, targets: _Targets, part: Part, step: int) -> LossTerms:
        config, batch, gram = self.config, part.batch, self.gram_teacher
        count = part.stop - part.start
        share = count / batch

        def select(crop_major: Tensor) -> Tensor:
            """The crops of the pictures in `part`, all views: [V * B, ...] -> [V * count, ...]."""
            return crop_major.unflatten(0, (-1, batch))[:, part.start : part.stop].flatten(0, 1)

        masks = select(crops.masks) if crops.masks is not None and config.ibot_weight > 0 else None
        groups = [select(crops.global_crops)]
        if crops.local_crops is not None:
            groups.append(select(crops.local_crops))
        backbone: Any = self.student["backbone"]
        features = backbone.forward_crops(groups, [masks] + [None] * (len(groups) - 1), part)

        head: Any = self.student["dino_head"]
        # Each group passes the head on its own: with batch statistics, small crops must not shift large ones.
        dino = dino_loss(
            torch.cat([head.bottleneck(group.cls).unflatten(0, (-1, count)) for group in features]),
            head.prototypes(),
            targets.dino[select(torch.arange(2 * batch, device=crops.device))].unflatten(0, (2, count)),
            batch,
            temperature=config.student_temperature,
            local_weight=1.0 if gram is None else gram.local_weight(step),
        )
        terms = {"dino": (dino, config.dino_weight)}
        if config.koleo_weight > 0 and count > 1:
            views = features[0].cls.unflatten(0, (2, count))
            koleo = koleo_loss(views[0], group_size=config.koleo_group) + koleo_loss(
                views[1], group_size=config.koleo_group
            )
            terms["koleo"] = (koleo * share, config.koleo_weight)
        if masks is not None and targets.ibot is not None and masks.any():
            assert crops.masks is not None
            ids = torch.full_like(crops.masks, -1, dtype=torch.long)
            ids[crops.masks] = torch.arange(int(crops.masks.sum()), device=ids.device)
            wanted, rows = targets.ibot, select(ids)[masks]
            patch_head: Any = self.student["ibot_head"]
            ibot = ibot_loss(
                patch_head.bottleneck(features[0].patches[masks]),
                patch_head.prototypes(),
                lambda chunk: wanted[rows[chunk]],
                (1 / masks.sum(dim=(1, 2)).clamp_min(1).float())[:, None, None].expand(masks.shape)[masks],
                2 * batch,
                temperature=config.student_temperature,
            )
            terms["ibot"] = (ibot, config.ibot_weight)
        if gram is not None and gram.weight(step) > 0:
            seen = crops.global_crops if crops.gram_crops is None else crops.gram_crops
            similarity = gram.loss(features[0].patches, select(seen), masks, self.teacher["backbone"])
            terms["gram"] = (similarity * share, gram.weight(step))
        for name, (value, weight) in self.further_terms(features[0], groups[0]).items():
            terms[name] = (value * share, weight)
        total = torch.stack([value * weight for value, weight in terms.values()]).sum()
        return LossTerms(total, {name: value.detach() for name, (value, _) in terms.items()})
