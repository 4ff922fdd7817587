"""Students of a frozen teacher on 10^3 to 10^6 pictures and one small machine, by its heads or by its features alone.

command:   opendino distill PICTURES --teacher MODEL --student vit_tiny [--recipe distill]
hardware:  2 CPU cores, or one GPU
hours:     as many as you give it
scores:    k-NN of vit_tiny after 19,200 views of 14,000 pictures in 100 classes, three seeds: alone 7.9 to 8.6,
           by heads 12.1 to 12.6, by features (the default) 15.9 to 16.4; teacher 20.7 (LOG.md)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from opendino.models.family import FAMILY
from opendino.recipes.situation import Situation, TeacherFacts
from opendino.recipes.small import small
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.methods.distillation import DistillConfig

OF_TEACHER = "as the teacher's heads were trained"
CONVNEXT_STRIDE = 32


def distill(situation: Situation) -> RunConfig:
    """The objective of pretraining against the teacher's prototypes."""
    base, teacher = _common(situation), situation.teacher or TeacherFacts()
    config = with_heads_of(dataclasses.replace(base, recipe="distill"), teacher)
    if teacher.heads is None:
        return config
    temperature = teacher.heads.teacher_temperature
    method = dataclasses.replace(config.method, teacher_temperature_start=temperature, teacher_temperature=temperature)
    names = ("method.teacher_temperature_start", "method.teacher_temperature")
    return dataclasses.replace(config, method=method, reasons=dict(config.reasons) | dict.fromkeys(names, OF_TEACHER))


def with_heads_of(config: RunConfig, teacher: TeacherFacts | None) -> RunConfig:
    """The config with as many prototypes as the teacher's heads have; as it is where the teacher is not known yet."""
    if teacher is None:
        return config
    reasons, method = dict(config.reasons), config.method
    if teacher.heads is not None:
        method = dataclasses.replace(
            method,
            prototypes=teacher.heads.prototypes,
            ibot_prototypes=teacher.heads.ibot_prototypes,
            target_spread=teacher.heads.target_spread,
        )
        names = ("method.prototypes", "method.ibot_prototypes", "method.target_spread")
        reasons |= dict.fromkeys(names, OF_TEACHER)
    method = dataclasses.replace(method, ibot_weight=1.0 if teacher.ibot else 0.0)
    reasons["method.ibot_weight"] = (
        "the teacher has a head for patches; the student sees all of them"
        if teacher.ibot
        else "the teacher has no head for patches"
    )
    return dataclasses.replace(config, method=method, reasons=reasons)


def distill_match(situation: Situation) -> RunConfig:
    """CLS and patches of the teacher themselves: needs no heads, learns from two global views."""
    base = _common(situation)
    crops = dataclasses.replace(base.data.crops, num_locals=0)
    reasons = {
        **{name: why for name, why in base.reasons.items() if not name.startswith("method.")},
        "method.momentum": base.reasons["method.momentum"],
        "distill.objective": "works with any backbone as teacher",
        "method.ibot_weight": "patches are matched, not guessed",
        "data.crops.num_locals": "a view is compared with the teacher's answer to the same view",
    }
    return dataclasses.replace(
        base,
        recipe="distill_match",
        method=dataclasses.replace(base.method, ibot_weight=0.0),
        distill=dataclasses.replace(base.distill, objective="match"),
        data=dataclasses.replace(base.data, crops=crops),
        reasons=reasons,
    )


def teacher_heads(situation: Situation) -> RunConfig:
    """Heads for a teacher that has none: self-distillation on its frozen backbone, on the crops of `distill`."""
    base, teacher = _common(situation), situation.teacher or TeacherFacts()
    transformer = teacher.name not in FAMILY or FAMILY[teacher.name].kind == "vit"
    global_px = base.distill.teacher_px or base.data.crops.global_px
    local_px = max(1, global_px // 2 // teacher.patch) * teacher.patch
    crops = dataclasses.replace(base.data.crops, global_px=global_px, local_px=local_px)
    kept = {name: why for name, why in base.reasons.items() if name.startswith(("data.", "method.", "optim."))}
    return dataclasses.replace(
        base,
        recipe="teacher_heads",
        model=ModelConfig(name=teacher.name),
        method=dataclasses.replace(base.method, koleo_weight=0.0, ibot_weight=1.0 if transformer else 0.0),
        distill=DistillConfig(),
        data=dataclasses.replace(base.data, crops=crops),
        reasons={
            **kept,
            "data.crops.global_px": "as the teacher will see crops",
            "method.koleo_weight": "the features stand still",
            "method.ibot_weight": "masked tokens teach a ViT" if transformer else "a convolution has no tokens to mask",
        },
    )


def shared_side(patches: Sequence[int]) -> int:
    """Crop sides that all students of a job can take are multiples of it. patches: their patch sides in pixels."""
    return math.lcm(*map(_side_of_crop, patches))


def _side_of_crop(patch: int) -> int:
    # A ConvNeXt sees crops at twice their side, as published, so that its map of stride 32 is as fine as one of 16.
    return patch // 2 if patch == CONVNEXT_STRIDE else patch


def _common(situation: Situation) -> RunConfig:
    """`small` with crops that follow from the pictures and from what all students and the teacher can take."""
    teacher = situation.teacher or TeacherFacts()
    base = small(dataclasses.replace(situation, model=situation.model or "vit_tiny"))
    multiple, finest = shared_side(teacher.patches), min(map(_side_of_crop, teacher.patches))
    largest = min(32 if situation.device == "cpu" else 64, situation.short_side_px)
    global_px = max(1, largest // multiple) * multiple
    local_px = max(1, global_px // 2 // multiple) * multiple
    # A grid as fine as the finest student's, if need be from enlarged crops; one finer than that is averaged.
    teacher_px = max(global_px // teacher.patch, global_px // finest if teacher.patch > finest else 1) * teacher.patch
    convnext = situation.model in FAMILY and FAMILY[situation.model].kind == "convnext"
    reasons = dict(base.reasons) | {
        "data.crops.global_px": f"pictures of {situation.short_side_px} px on {situation.device}; a multiple of every "
        "student's patch side",
        "data.crops.local_px": "half of the global crop",
        "data.mean": "as the teacher was trained",
        "data.std": "as the teacher was trained",
        "distill.teacher_px": "so that the teacher's map is as fine as the finest student's",
    }
    student_px = 2 * global_px if convnext else 0
    if convnext:
        reasons["distill.student_px"] = "crops at twice their side, as published: the map of a ConvNeXt has stride 32"
    return dataclasses.replace(
        base,
        distill=DistillConfig(teacher_px=0 if teacher_px == global_px else teacher_px, student_px=student_px),
        data=dataclasses.replace(
            base.data,
            mean=teacher.mean,
            std=teacher.std,
            crops=dataclasses.replace(base.data.crops, global_px=global_px, local_px=local_px),
        ),
        read_px=2 * (student_px or global_px),
        reasons=reasons,
    )
