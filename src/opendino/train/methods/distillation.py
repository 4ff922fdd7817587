"""Distillation: a student learns from a frozen teacher, by the teacher's heads or by its features alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.losses import dino_loss, ibot_loss, koleo_loss
from opendino.losses.match import MatchKind, match_loss
from opendino.models.heads import ProjectionHead
from opendino.monitor.health import Probe
from opendino.train.method import LossTerms
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.teacher import Grid, Taught, Teacher, resize_images


@dataclass(frozen=True)
class DistillConfig:
    """The teacher and what is taken from it. Student heads, weights, temperatures and EMA are those of `method`."""

    objective: Literal["heads", "match"] = "heads"
    """heads: DINO and iBOT against the teacher's prototypes; match: CLS and patches themselves, through a projector."""
    teacher: str = ""
    """Run, model folder, weights file or name."""
    teacher_hash: str = ""
    """Of its weights and heads, filled by the command: a resume under another teacher is refused."""
    heads: str = ""
    """Run that trained the teacher's heads."""
    teacher_px: int = 0
    """Side at which the teacher sees the global crops; 0: as they are."""
    student_px: int = 0
    """Side at which this student sees the global crops, local ones in proportion; 0: as they are."""
    teacher_batch: int = 0
    """Pictures that the teacher looks at together; 0: the whole batch."""
    match: MatchKind = "cosine"
    """Distance of the match objective."""
    cls_weight: float = 1.0
    """Of the match of CLS."""
    patch_weight: float = 1.0
    """Of the match of patches."""

    def __post_init__(self) -> None:
        for name in ("teacher_px", "student_px", "teacher_batch", "cls_weight", "patch_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"distill.{name}", f"must be 0 or more, got {getattr(self, name)}")
        if self.cls_weight == self.patch_weight == 0:
            raise UsageError("distill", "cls_weight and patch_weight are both 0", "match one of them")


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation [D] of the teacher's CLS and of its patches over some pictures."""

    cls_mean: Tensor
    cls_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor

    @classmethod
    def of(cls, tokens: Tensor, patches: Tensor) -> Standard:
        """From CLS [B, D] and patches [B, h, w, D] of at least 2 pictures; a dimension that stands still has std 1."""
        values = []
        for rows in (tokens.float(), patches.float().flatten(0, 2)):
            std = rows.std(dim=0)
            values += [rows.mean(dim=0), torch.where(std > 1e-6, std, 1.0)]
        return cls(*values)


class Distillation(nn.Module):
    """One student, its heads or projectors, and their average, which is what is exported; fulfils `train.method.Method`.

    heads: the objective of pretraining with the frozen teacher in the place of the average: cross-entropy of every
    student view with the teacher's balanced assignment of the *other* global view, cross-entropy of patches at the
    places of the masks, KoLeo. The student sees every patch: masks only choose the places that are compared.
    match: distance of projected CLS and patches to the teacher's, standardised, of the same view.
    Source: arXiv 2508.10104, section 5 (heads); match is ours, after the feature distillation of arXiv 2312.06709.

    Args:
        backbone: the student, fresh or trained.
        method: heads, weights, temperatures, average.
        teacher: for `probe`; what it says of a batch comes with the batch.
        teacher_dim: width of its tokens; standard: of its tokens, where they are matched.
    """

    def __init__(
        self,
        backbone: nn.Module,
        method: SelfDistillationConfig,
        config: DistillConfig,
        total_steps: int,
        teacher: Teacher,
        standard: Standard | None = None,
    ) -> None:
        super().__init__()
        self.method, self.config, self.total_steps = method, config, total_steps
        # In a tuple: no part of the state, which every student keeps for itself.
        self._teacher = (teacher,)
        dim, teacher_dim = int(backbone.dim), int(teacher.backbone.dim)  # type: ignore[arg-type]
        student: dict[str, nn.Module] = {"backbone": backbone}
        if config.objective == "heads":
            student |= _heads(dim, method)
        else:
            student |= {"cls_projector": nn.Linear(dim, teacher_dim), "patch_projector": nn.Linear(dim, teacher_dim)}
        self.student = nn.ModuleDict(student)
        self.average = copy.deepcopy(self.student).requires_grad_(False).eval()
        for name, value in vars(standard).items() if standard is not None else ():
            self.register_buffer(name, value)

    # --- what the loop asks ---

    def trained(self) -> Mapping[str, nn.Module]:
        return dict(self.student.items())

    def losses(self, batch: Taught, step: int) -> Iterator[LossTerms]:
        self.student.train()
        count = batch.crops.global_crops.shape[0] // 2
        size = self.method.micro_batch or count
        for start in range(0, count, size):
            part = _Part(count, slice(start, min(start + size, count)))
            terms = self._match(batch, part) if self.config.objective == "match" else self._by_heads(batch, part)
            total = torch.stack([value * weight for value, weight in terms.values()]).sum()
            yield LossTerms(total, {name: value.detach() for name, (value, _) in terms.items()})

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        momentum = self.method.momentum_schedule.at(step, self.total_steps)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.student.parameters()), 1 - momentum)
        for kept, now in zip(self.average.buffers(), self.student.buffers(), strict=True):
            kept.copy_(now)

    def scalars(self, step: int) -> Mapping[str, float]:
        return {"momentum": self.method.momentum_schedule.at(step, self.total_steps)}

    @torch.no_grad()
    def probe(self, images: Tensor) -> Probe:
        features = self.average["backbone"](images)
        teacher_logits = student_logits = None
        if self.config.objective == "heads":
            (teacher,) = self._teacher
            seen = teacher.backbone(resize_images(images, images.shape[-1] // teacher.backbone.patch * teacher.backbone.patch))
            teacher_logits = teacher.logits(seen.cls) / self.method.teacher_temperature
            student_logits = self.average["dino_head"](features.cls).float() / self.method.student_temperature
        patches = features.patches.flatten(1, 2).float()
        return Probe(features.cls.float(), patches, teacher_logits, student_logits)

    def export(self) -> nn.Module:
        backbone: nn.Module = self.average["backbone"]
        return backbone.eval()

    # --- parts ---

    def _features(self, batch: Taught, part: _Part) -> list[Any]:
        crops, px = batch.crops, self.config.student_px
        groups = [resize_images(part.of(crops.global_crops), px)]
        if crops.local_crops is not None:
            side, whole = crops.local_crops.shape[-1], crops.global_crops.shape[-1]
            groups.append(resize_images(part.of(crops.local_crops), round(side * px / whole)))
        backbone: Any = self.student["backbone"]
        features: list[Any] = backbone.forward_crops(groups, [None] * len(groups))
        return features

    def _by_heads(self, batch: Taught, part: _Part) -> dict[str, tuple[Tensor, float]]:
        method, features = self.method, self._features(batch, part)
        assert batch.dino is not None
        probs = batch.dino[:, part.rows]
        # Each group passes the head on its own: with batch statistics, small crops must not shift large ones.
        logits = [self.student["dino_head"](group.cls).unflatten(0, (-1, part.count)) for group in features]
        dino, pairs = torch.zeros((), device=probs.device), 0
        for group, views in enumerate(logits):
            count = 2 if group == 0 else 2 * len(views)
            loss = dino_loss(
                views, probs, student_temperature=method.student_temperature, ignore_diagonal=group == 0
            )
            dino, pairs = dino + count * loss, pairs + count
        terms = {"dino": (dino / pairs * part.share, method.dino_weight)}
        if method.koleo_weight > 0 and part.count > 1:
            views = features[0].cls.unflatten(0, (2, part.count))
            koleo = sum(koleo_loss(view, group_size=method.koleo_group) for view in views)
            terms["koleo"] = (torch.as_tensor(koleo) * part.share, method.koleo_weight)
        patches = features[0].patches
        grid: Grid = tuple(patches.shape[1:3])
        if method.ibot_weight > 0 and grid in batch.ibot:
            targets = batch.ibot[grid]
            masks = part.of(targets.masks)
            if masks.any():
                rows = torch.full_like(targets.masks, -1, dtype=torch.long)
                rows[targets.masks] = torch.arange(len(targets.probs), device=rows.device)
                weights = 1 / masks.sum(dim=(1, 2)).clamp_min(1).float()
                ibot = ibot_loss(
                    self.student["ibot_head"](patches[masks]),
                    targets.probs[part.of(rows)[masks]],
                    weights[:, None, None].expand(masks.shape)[masks],
                    2 * part.batch,
                    student_temperature=method.student_temperature,
                )
                terms["ibot"] = (ibot, method.ibot_weight)
        return terms

    def _match(self, batch: Taught, part: _Part) -> dict[str, tuple[Tensor, float]]:
        features = self._features(batch, part)[0]
        config = self.config
        terms = {}
        if config.cls_weight > 0:
            wanted = (part.of(batch.cls).float() - self.cls_mean) / self.cls_std
            loss = match_loss(self.student["cls_projector"](features.cls), wanted, config.match)
            terms["match_cls"] = (loss * part.share, config.cls_weight)
        if config.patch_weight > 0:
            grid: Grid = tuple(features.patches.shape[1:3])
            wanted = (part.of(batch.patches[grid]).float() - self.patch_mean) / self.patch_std
            loss = match_loss(self.student["patch_projector"](features.patches), wanted, config.match)
            terms["match_patches"] = (loss * part.share, config.patch_weight)
        return terms


@dataclass(frozen=True)
class _Part:
    """Some pictures of a batch: those of a micro-batch."""

    batch: int
    rows: slice

    @property
    def count(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def share(self) -> float:
        return self.count / self.batch

    def of(self, crops: Tensor) -> Tensor:
        """All views of these pictures, view-major: [V * batch, ...] -> [V * count, ...]."""
        return crops.unflatten(0, (-1, self.batch))[:, self.rows].flatten(0, 1)


def _heads(dim: int, method: SelfDistillationConfig) -> dict[str, nn.Module]:
    unit = method.unit_prototypes
    heads: dict[str, nn.Module] = {
        "dino_head": ProjectionHead(
            *(dim, method.hidden, method.bottleneck, method.prototypes),
            batch_norm=method.head_batch_norm,
            unit_prototypes=unit,
        )
    }
    if method.ibot_weight > 0:
        width = method.ibot_prototypes
        heads["ibot_head"] = ProjectionHead(dim, method.hidden, method.bottleneck, width, unit_prototypes=unit)
    return heads
