"""Health of a self-distillation run on a fixed probe batch: seven gauges, their words, and alarms with the key to turn.

No gauge here shows quality: effective rank rises in failed runs too (KoLeo alone lifts it). They show whether the
objective is alive; only k-NN against the run's own start shows that features get better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.errors import ShapeError

UNIFORM_SHARE = 0.97
"""Teacher entropy above this share of ln K counts as uniform: runs above it did not move in k-NN, runs below .9 did."""
ONE_PROTOTYPE_SHARE = 0.05
"""Teacher entropy below this share of ln K: the target is one prototype, whatever the picture shows."""
DEAD_INFORMATION = 0.02
"""Predicted information in nats: failed runs measured 0.00 to 0.02, moving ones 0.7 to 1.3."""
COLLAPSED_INFORMATION = 0.1
"""Predicted information in nats below which narrow targets count as collapse."""
USAGE_FLOOR = 0.05
"""Share of the prototypes that could be in use. Of 64 pictures one is already 1.6 %: 1 % would never ring."""
RANK_FLOOR = 0.05
"""Effective rank of CLS as a share of what the probe batch allows."""
EQUAL_RANK = 1.01
"""Effective rank of CLS below which all pictures have the same features; untrained ViTs measured 3."""
RANK_LOSS = 0.5
"""Rank below this share of its best since training began."""
PATCH_COSINE_CEILING = 0.9
"""Mean cosine of different patches of a picture; above it the patch map is nearly one colour."""
EARLY_LOOKS = 5
"""About a tenth of a run. Cosines of CLS and patches rise from 0 there while segmentation gains (LOG.md)."""
DRIFT_RISE = 0.2
"""Rise of cos(CLS, patch) above its minimum: patches turn into copies of CLS. Source: arXiv 2508.10104, figure 5."""
NORM_RATIO_CEILING = 5.0
"""99th percentile of patch norms over the median: a few patches carry the picture. Source: arXiv 2309.16588."""
PERSISTENCE = 3
"""Measurements in a row, step 0 left out, before a slow alarm rings: untrained networks fail several gauges."""
EQUAL_SPREAD = 1e-3
"""CLS tokens whose spread is below this share of their length are one vector with rounding noise: rank 1."""


@dataclass(frozen=True)
class Probe:
    """What a method shows on the fixed probe batch.

    cls [B, D] and patches [B, N, D] of the teacher; teacher_logits [B, K] as they enter Sinkhorn, divided by the
    teacher temperature; student_logits [B, K] divided by the student temperature. Both None without prototypes.
    """

    cls: Tensor
    patches: Tensor
    teacher_logits: Tensor | None
    student_logits: Tensor | None


@dataclass(frozen=True)
class Health:
    """Gauges of one moment.

    teacher_entropy: mean entropy of softmax(teacher logits), before Sinkhorn, in nats; at most max_entropy = ln K.
    prototype_usage: distinct arg-max prototypes of the teacher / min(B, K), in (0, 1].
    rank: effective rank of CLS, exp of the entropy of the singular values of centred CLS, in [1, rank_max = min(B, D)].
    cls_patch_cosine: mean cosine of CLS and the patches of its picture, in [-1, 1].
    patch_cosine: mean cosine of different patches of a picture, in [-1, 1].
    norm_ratio: 99th percentile of all patch norms over their median.
    information: entropy of the mean student prediction minus the mean entropy of predictions, in nats; 0 when the
        prediction does not depend on the picture.
    images: pictures in the probe batch.
    What needs prototypes is NaN without them.
    """

    teacher_entropy: float
    max_entropy: float
    prototype_usage: float
    rank: float
    rank_max: int
    cls_patch_cosine: float
    patch_cosine: float
    norm_ratio: float
    information: float
    images: int

    @property
    def has_prototypes(self) -> bool:
        """Whether the objective has any."""
        return not math.isnan(self.max_entropy)

    @property
    def prototypes_in_use(self) -> int:
        """Distinct arg-max prototypes."""
        return round(self.prototype_usage * self.prototypes_possible)

    @property
    def prototypes_possible(self) -> int:
        """min(B, K)."""
        return min(self.images, round(math.exp(self.max_entropy)))

    @property
    def uniform(self) -> bool:
        """The targets, or the student's predictions, are the same for all pictures and say nothing."""
        return self.teacher_entropy > UNIFORM_SHARE * self.max_entropy or self.information < DEAD_INFORMATION

    @property
    def equal(self) -> bool:
        """All pictures have the same features."""
        return self.rank < EQUAL_RANK

    @property
    def collapsed(self) -> bool:
        """All pictures have the same features, or predictions say next to nothing and narrow targets are to blame.

        Narrow features or targets alone are no collapse: Sinkhorn balances what is narrow only by a shared part.
        """
        narrow = self.rank < RANK_FLOOR * self.rank_max or self.prototype_usage <= USAGE_FLOOR
        spread = self.teacher_entropy <= UNIFORM_SHARE * self.max_entropy
        return self.equal or (narrow and spread and self.information < COLLAPSED_INFORMATION)


def measure(probe: Probe) -> Health:
    """Read all gauges, in float32 on the probe's device. Raises ShapeError when the batch has fewer than 2 pictures."""
    cls, patches = probe.cls.detach().float(), probe.patches.detach().float()
    logits = (probe.teacher_logits, probe.student_logits)
    sizes = [len(tensor) for tensor in (cls, patches, *logits) if tensor is not None]
    if min(sizes) < 2 or len(set(sizes)) > 1 or (logits[0] is None) != (logits[1] is None):
        raise ShapeError("probe", f"needs the same 2 or more pictures in all parts, got {sizes}")
    norms = patches.norm(dim=-1).flatten()
    return Health(
        **_prototype_gauges(*logits),
        rank=effective_rank(cls),
        rank_max=min(cls.shape),
        cls_patch_cosine=float(F.cosine_similarity(cls[:, None], patches, dim=-1).mean()),
        patch_cosine=_patch_cosine(patches),
        norm_ratio=float(_quantile(norms, 0.99) / _quantile(norms, 0.5).clamp_min(1e-12)),
        images=len(cls),
    )


def _prototype_gauges(teacher: Tensor | None, student: Tensor | None) -> dict[str, float]:
    if teacher is None or student is None:
        return dict.fromkeys(("teacher_entropy", "max_entropy", "prototype_usage", "information"), math.nan)
    teacher, student_probs = teacher.detach().float(), student.detach().float().softmax(dim=-1)
    return {
        "teacher_entropy": float(entropy(teacher.softmax(dim=-1)).mean()),
        "max_entropy": math.log(teacher.shape[1]),
        "prototype_usage": teacher.argmax(dim=-1).unique().numel() / min(teacher.shape),
        "information": max(0.0, float(entropy(student_probs.mean(dim=0)) - entropy(student_probs).mean())),
    }


def health_from_row(row: Mapping[str, Any]) -> Health:
    """The gauges of a health row of metrics.jsonl; what was not finite, and so stored as null, becomes NaN again."""
    values: dict[str, Any] = {}
    for field in fields(Health):
        value = row[field.name]
        values[field.name] = math.nan if value is None else value
    return Health(**values)


def entropy(probs: Tensor) -> Tensor:
    """Entropy in nats over the last dimension; 0 log 0 = 0."""
    return torch.special.entr(probs).sum(dim=-1)


def effective_rank(tokens: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred [B, D] tokens; 1 when all rows are equal.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    centred = tokens - tokens.mean(dim=0, keepdim=True)
    if not centred.norm() > EQUAL_SPREAD * tokens.norm():
        return 1.0
    values = torch.linalg.svdvals(centred.cpu())
    return float(entropy(values / values.sum()).exp())


def _patch_cosine(patches: Tensor) -> float:
    """Mean off-diagonal cosine within pictures, without the N x N matrix: (|sum of units|^2 - N) / (N (N - 1))."""
    units = F.normalize(patches, dim=-1)
    num = patches.shape[1]
    if num < 2:
        return 0.0
    squared = units.sum(dim=1).square().sum(dim=-1) - units.square().sum(dim=(1, 2))
    return float((squared / (num * (num - 1))).mean())


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value at `share` of the sorted list; torch.quantile refuses more than 16 million values."""
    return values.kthvalue(max(1, math.ceil(share * values.numel()))).values


def in_words(health: Health, first: Health | None = None) -> str:
    """One line for a person; with `first`, the health at step 0, it says from where the gauges came."""
    if health.collapsed:
        state = "outputs are nearly the same for all pictures"
    elif health.uniform:
        state = "outputs are uniform"
    else:
        state = "targets are spread"
    before = "" if first is None else f", {first.information:.2f} at the start"
    rank_before = "" if first is None else f" ({first.rank:.0f} at the start)"
    if not health.has_prototypes:
        state = "all pictures have the same features" if health.equal else "features differ"
        return f"{state}: they use {health.rank:.0f} of {health.rank_max} directions{rank_before}"
    return (
        f"{state} ({health.teacher_entropy:.1f} of {health.max_entropy:.1f} nats), "
        f"{health.prototypes_in_use} of at most {health.prototypes_possible} prototypes in use, "
        f"features use {health.rank:.0f} of {health.rank_max} directions{rank_before}, "
        f"predictions tell {health.information:.2f} nats{before}"
    )


def alarms(history: Sequence[Health]) -> list[str]:
    """Sentences about what is wrong now, each with the key to change; empty for a healthy run.

    A sentence is "NAME: numbers; advice". The name stays while numbers move: it tells a new alarm from one that lasts.
    `history` starts with step 0, which is never judged: untrained networks fail several gauges.
    """
    trained = list(history[1:])
    recent = trained[-PERSISTENCE:]
    lasting = _lasting_alarms(recent) if len(recent) == PERSISTENCE else []
    return [*lasting, *_sudden_alarms(trained)] if trained else []


def _lasting_alarms(recent: Sequence[Health]) -> list[str]:
    """What must hold for several measurements in a row."""
    now = recent[-1]
    entropies = f"teacher entropy {now.teacher_entropy:.2f} of at most {now.max_entropy:.2f} nats"
    sentences = []
    if all(h.teacher_entropy > UNIFORM_SHARE * h.max_entropy for h in recent):
        sentences.append(
            f"uniform targets: {entropies}, so there is nothing to learn; set --method.unit-prototypes and "
            "--method.target-spread 0.2"
        )
    if all(h.information < DEAD_INFORMATION for h in recent):
        sentences.append(
            f"blind predictions: they do not depend on the picture ({now.information:.3f} nats of information); raise "
            "--method.target-spread or lower --method.prototypes, and check --optim.lr"
        )
    if all(h.teacher_entropy < ONE_PROTOTYPE_SHARE * h.max_entropy and h.prototype_usage < 0.5 for h in recent):
        sentences.append(
            f"single-prototype targets: {entropies}, and only {now.prototypes_in_use} of {now.prototypes_possible} "
            "prototypes are in use; raise --method.teacher-temperature"
        )
    if all(h.prototype_usage <= USAGE_FLOOR for h in recent):
        sentences.append(
            f"unused prototypes: only {now.prototypes_in_use} of {now.prototypes_possible} are in use; set "
            "--method.queue, or lower --method.prototypes"
        )
    if all(EQUAL_RANK <= h.rank < RANK_FLOOR * h.rank_max for h in recent):
        sentences.append(
            f"narrow features: they use {now.rank:.1f} of {now.rank_max} directions; raise "
            "--method.koleo-weight or lower --optim.lr"
        )
    if all(h.patch_cosine > PATCH_COSINE_CEILING for h in recent):
        sentences.append(
            f"equal patches: those of a picture are nearly the same (mean cosine {now.patch_cosine:.2f}); raise "
            "--method.ibot-weight"
        )
    if all(h.norm_ratio > NORM_RATIO_CEILING for h in recent):
        sentences.append(
            f"outlier patches: a few are {now.norm_ratio:.1f} times as long as the median; lower --optim.lr (of ViTs, "
            "those with registers have fewer)"
        )
    return sentences


def _sudden_alarms(trained: Sequence[Health]) -> list[str]:
    """What one measurement shows, against the best one of training where that matters."""
    now = trained[-1]
    best_rank = max(h.rank for h in trained)
    settled = trained[EARLY_LOOKS:]
    lowest_cosine = min((h.cls_patch_cosine for h in settled), default=now.cls_patch_cosine)
    sentences = []
    if now.equal:
        sentences.append(
            "equal features: all pictures have the same; go back to an earlier checkpoint with a lower --optim.lr, or "
            "raise --method.koleo-weight"
        )
    elif now.rank < RANK_LOSS * best_rank:
        sentences.append(
            f"shrinking features: they use {now.rank:.0f} directions and used {best_rank:.0f}; lower --optim.lr or "
            "raise --method.koleo-weight"
        )
    if now.cls_patch_cosine - lowest_cosine > DRIFT_RISE:
        sentences.append(
            f"dense drift: patches become like CLS (mean cosine {lowest_cosine:.2f} -> {now.cls_patch_cosine:.2f}); "
            "raise --method.ibot-weight, or take an earlier one of checkpoints/ (Gram anchoring starts from such)"
        )
    return sentences
