"""Tiny teachers and students for tests of distillation: a ViT teacher, ViT and convolutional students."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import torch

from opendino.data.loader import Loader
from opendino.data.sources import open_source
from opendino.models.convnext import ConvNeXt, ConvNeXtConfig
from opendino.models.family import build_model
from opendino.models.heads import ProjectionHead
from opendino.train.config import RunConfig
from opendino.train.methods.distillation import Distillation, DistillConfig, Standard
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.run import open_run
from opendino.train.teacher import Lesson, Lessons, Sight, Teacher, TeacherHeads
from opendino.train.together import Training, train_together
from tests.train.runs import tiny_config

METHOD = SelfDistillationConfig(
    prototypes=12, hidden=24, bottleneck=8, ibot_prototypes=10, koleo_group=2, unit_prototypes=True, momentum=0.9
)
SIDES = {"vit": 8, "convnext": 32, "conv": 8}


def tiny_teacher(ibot=True, spread=0.2):
    """A ViT of 8 px patches, width 32, with heads."""
    torch.manual_seed(7)
    backbone = build_model("vit_tiny", dim=32, depth=1, heads=1, hidden=32, registers=1)
    heads = TeacherHeads(
        ProjectionHead(32, 16, 8, 12, batch_norm=True, unit_prototypes=True),
        ProjectionHead(32, 16, 8, 10, unit_prototypes=True) if ibot else None,
        spread,
    )
    return Teacher(backbone, heads)


def tiny_student(kind, seed=0, **vit):
    torch.manual_seed(seed)
    if kind == "convnext":
        return ConvNeXt(ConvNeXtConfig(depths=(1, 1, 1, 1), dims=(8, 8, 16, 24), layer_scale=0.1))
    if kind == "conv":
        return build_model("conv_mini", stem_width=8, width=8, dim=24, inner=8)
    return build_model("vit_tiny", **{"dim": 64, "depth": 1, "heads": 1, "hidden": 32, "registers": 1, **vit})


def student_config(pictures, steps=6, objective="heads", **changes) -> RunConfig:
    """Crops of 64 and 32 px: 8 x 8 patches for a ViT, 2 x 2 places for a ConvNeXt."""
    config = tiny_config(pictures, steps)
    crops = dataclasses.replace(
        config.data.crops, global_px=64, local_px=32, num_locals=0 if objective == "match" else 2
    )
    return dataclasses.replace(
        config,
        method=METHOD,
        distill=DistillConfig(objective=objective),
        data=dataclasses.replace(config.data, crops=crops),
        **changes,
    )


def lessons_of(config, teacher, kinds):
    """The batches of a job, and the loader below."""
    source = open_source(Path(config.data.path))
    lesson = Lesson(
        sights=tuple(Sight(config.distill.student_px or 64, SIDES[kind]) for kind in kinds),
        global_px=64,
        px=config.distill.teacher_px,
        patches=config.distill.objective == "match",
        masks=config.data.masks if config.distill.objective == "heads" else None,
        mask_seed=config.data.seed,
        temperature=config.method.temperature_schedule,
        total_steps=config.steps,
        precision=config.precision,
    )
    return Lessons(Loader(source, config.data, None, "cpu"), teacher, lesson)


def build_job(config, kinds, teacher=None, seed=0):
    """Methods and batches."""
    teacher = teacher or tiny_teacher()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        seen = teacher.backbone(torch.randn(8, 3, 64, 64, generator=generator))
    standard = Standard.of(seen.cls, seen.patches) if config.distill.objective == "match" else None
    methods = [
        Distillation(tiny_student(kind, seed), config.method, config.distill, config.steps, teacher, standard)
        for kind in kinds
    ]
    return methods, lessons_of(config, teacher, kinds)


def distil(config, kinds, out, teacher=None, watchers=None, on_step=None):
    """Train (or resume) a job in `out`; returns the methods."""
    methods, lessons = build_job(config, kinds, teacher)
    with contextlib.ExitStack() as stack:
        trainings = [
            Training(
                *(config, method, lessons, stack.enter_context(open_run(out / kind))),
                watchers=(watchers or {}).get(kind, ()),
                on_step=(on_step or {}).get(kind, lambda step, result, speed: None),
            )
            for kind, method in zip(kinds, methods, strict=True)
        ]
        train_together(trainings, out)
    return methods
