"""Distillation: a student learns from a frozen teacher, by the teacher's heads or by its features alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opendino.errors import UsageError
from opendino.losses import dino_loss, ibot_loss, koleo_loss
from opendino.losses.match import MatchKind, match_loss
from opendino.models.contract import Features
from opendino.models.stochastic_depth import Part
from opendino.monitor.health import Probe
from opendino.train.method import LossTerms
from opendino.train.methods.self_distillation import SelfDistillationConfig, build_heads
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
    """Side at which the teacher sees the global crops; 0: as they are. Where sizes take turns (`data.crops.mix`) it is
    stated for `data.crops.global_px` and grows in proportion."""
    student_px: int = 0
    """Side at which this student sees the global crops, local ones in proportion; 0: as they are. `mix` as above."""
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
    """One student, its heads or projectors, and their average, which is exported; fulfils `train.method.Method`.

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

    cls_mean: Tensor
    cls_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor

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
            student |= build_heads(dim, method)
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
        # What the student draws is drawn for the whole batch: each micro-batch draws it again and takes its part.
        state = torch.get_rng_state()
        for start in range(0, count, size):
            torch.set_rng_state(state)
            part = Part(start, min(start + size, count), count)
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
            patch = teacher.backbone.patch
            seen = teacher.backbone(resize_images(images, max(1, images.shape[-1] // patch) * patch))
            teacher_logits = teacher.logits(seen.cls) / self.method.teacher_temperature
            student_logits = self.average["dino_head"](features.cls).float() / self.method.student_temperature
        patches = features.patches.flatten(1, 2).float()
        return Probe(features.cls.float(), patches, teacher_logits, student_logits)

    def export(self) -> nn.Module:
        backbone: nn.Module = self.average["backbone"]
        return backbone.eval()

    # --- parts ---

    def _features(self, batch: Taught, groups: Sequence[Tensor], part: Part) -> list[Features]:
        """Of the pictures of a part, from crops [V * B, ...] of all, at the side at which the student sees them."""
        share = batch.scale * self.config.student_px / groups[0].shape[-1]
        seen = [resize_images(_of(crops, part), round(share * crops.shape[-1])) for crops in groups]
        backbone: Any = self.student["backbone"]
        features: list[Features] = backbone.forward_crops(seen, [None] * len(seen), part)
        return features

    def _by_heads(self, batch: Taught, part: Part) -> dict[str, tuple[Tensor, float]]:
        method, crops = self.method, batch.crops
        groups = [crops.global_crops] if crops.local_crops is None else [crops.global_crops, crops.local_crops]
        features = self._features(batch, groups, part)
        count = part.stop - part.start
        assert batch.dino is not None
        head: Any = self.student["dino_head"]
        # Each group passes the head on its own: with batch statistics, small crops must not shift large ones.
        dino = dino_loss(
            torch.cat([head.bottleneck(group.cls).unflatten(0, (-1, count)) for group in features]),
            head.prototypes(),
            batch.dino[:, part.start : part.stop],
            part.batch,
            temperature=method.student_temperature,
        )
        terms = {"dino": (dino, method.dino_weight)}
        if method.koleo_weight > 0 and count > 1:
            views = features[0].cls.unflatten(0, (2, count))
            koleo = koleo_loss(views[0], group_size=method.koleo_group) + koleo_loss(
                views[1], group_size=method.koleo_group
            )
            terms["koleo"] = (koleo * count / part.batch, method.koleo_weight)
        if method.ibot_weight > 0 and (found := batch.ibot.get(_grid(features[0].patches))) is not None:
            masks = _of(found.masks, part)
            if masks.any():
                ids = torch.full_like(found.masks, -1, dtype=torch.long)
                ids[found.masks] = torch.arange(int(found.masks.sum()), device=ids.device)
                wanted, rows = found.probs, _of(ids, part)[masks]
                patch_head: Any = self.student["ibot_head"]
                ibot = ibot_loss(
                    patch_head.bottleneck(features[0].patches[masks]),
                    patch_head.prototypes(),
                    lambda chunk: wanted[rows[chunk]],
                    (1 / masks.sum(dim=(1, 2)).clamp_min(1).float())[:, None, None].expand(masks.shape)[masks],
                    2 * part.batch,
                    temperature=method.student_temperature,
                )
                terms["ibot"] = (ibot, method.ibot_weight)
        return terms

    def _match(self, batch: Taught, part: Part) -> dict[str, tuple[Tensor, float]]:
        config, share = self.config, (part.stop - part.start) / part.batch
        (features,) = self._features(batch, [batch.crops.global_crops], part)
        terms = {}
        if config.cls_weight > 0:
            wanted = (_of(batch.cls, part).float() - self.cls_mean) / self.cls_std
            loss = match_loss(self.student["cls_projector"](features.cls), wanted, config.match)
            terms["match_cls"] = (loss * share, config.cls_weight)
        if config.patch_weight > 0:
            patches = _of(batch.patches[_grid(features.patches)], part)
            wanted = (patches.float() - self.patch_mean) / self.patch_std
            loss = match_loss(self.student["patch_projector"](features.patches), wanted, config.match)
            terms["match_patches"] = (loss * share, config.patch_weight)
        return terms


def _grid(patches: Tensor) -> Grid:
    return patches.shape[1], patches.shape[2]


def _of(crops: Tensor, part: Part) -> Tensor:
    """The crops of the pictures in `part`, all views: [V * B, ...] -> [V * count, ...]."""
    return crops.unflatten(0, (-1, part.batch))[:, part.start : part.stop].flatten(0, 1)
