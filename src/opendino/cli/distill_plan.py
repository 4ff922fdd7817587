"""What `opendino distill` is about to do: the teacher, a config for each student, and what they train with."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from opendino.cli.plan import Plan, build_student
from opendino.cli.watchers import read_evenly
from opendino.data.loader import Loader
from opendino.data.sources import Source
from opendino.data.transform import Transform
from opendino.errors import UsageError
from opendino.features.identity import model_hash
from opendino.models.family import find_spec
from opendino.parallel import checkpoint_blocks, compile_blocks
from opendino.recipes import DISTILL_RECIPES, DISTILL_STAGE_RECIPES, Recipe, find_recipe
from opendino.recipes.situation import Situation, TeacherFacts
from opendino.train.config import RunConfig, StageConfig
from opendino.train.loop import train_step
from opendino.train.methods.distillation import Distillation, Standard
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.optim import build_optimizer
from opendino.train.start import Checkpoint
from opendino.train.teacher import Lesson, Lessons, Sight, Teacher, TeacherHeads

MEASURED_STEPS = 20
STANDARD_IMAGES = 512
"""Pictures over which the teacher's tokens are standardised."""


@dataclass(frozen=True)
class NamedTeacher:
    """backbone: as `opendino.load` gives it. heads with the settings that they were trained with, None without; their
    run. named: what opens the backbone again.
    """

    backbone: Any
    named: str
    heads: TeacherHeads | None = None
    heads_config: SelfDistillationConfig | None = None
    heads_run: str = ""

    @property
    def name(self) -> str:
        return str(self.backbone.card["name"])

    @functools.cached_property
    def hash(self) -> str:
        """Of all weights that a student learns from."""
        digest = hashlib.sha256(model_hash(self.backbone).encode())
        for head in () if self.heads is None else (self.heads.dino, self.heads.ibot):
            for name, value in () if head is None else sorted(head.state_dict().items()):
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def facts(self, patches: Sequence[int]) -> TeacherFacts:
        """For a recipe. patches: of the students of the job."""
        ibot = self.heads is not None and self.heads.ibot is not None
        transform = self.backbone.transform
        return TeacherFacts(
            *(self.name, self.backbone.patch, self.heads_config, ibot, tuple(patches)),
            mean=transform.mean,
            std=transform.std,
        )

    def teacher(self, device: torch.device) -> Teacher:
        """On a device."""
        for head in () if self.heads is None else (self.heads.dino, self.heads.ibot):
            if head is not None:
                head.to(device)
        return Teacher(self.backbone.to(device), self.heads)


@dataclass(frozen=True)
class Job:
    """source: pictures to learn from; val: labelled ones to score on, or None; out: directory of all students."""

    source: Source
    val: Source | None
    named: NamedTeacher
    device: torch.device
    out: Path


def patch_sides(students: Sequence[str]) -> tuple[int, ...]:
    """Of family members by name. Raises UsageError for an unknown one, with the nearest, and for one named twice."""
    for name in students:
        if students.count(name) > 1:
            raise UsageError(f"--student {name}", "named twice", "a job trains a student of each name")
    kinds = [find_spec(name) for name in students]
    return tuple(32 if spec.kind == "convnext" else getattr(spec.config, "patch", 8) for spec in kinds)


@dataclass(frozen=True)
class StudentPlan(Plan):
    """The plan of one student. named: its teacher; patches: patch sides of all students of the job; start, before:
    what it goes on from, and the config of that, in a stage.
    """

    named: NamedTeacher = None  # type: ignore[assignment]
    patches: tuple[int, ...] = ()
    start: Checkpoint | None = None
    before: RunConfig | None = None

    def situation(self, steps: int) -> Situation:
        return dataclasses.replace(super().situation(steps), teacher=self.named.facts(self.patches), before=self.before)

    def recipe_function(self) -> Recipe:
        return find_recipe(self.recipe, DISTILL_RECIPES if self.start is None else DISTILL_STAGE_RECIPES)

    def filled(self, config: RunConfig) -> RunConfig:
        """With the teacher. Raises UsageError where student, teacher and crops do not go together."""
        distill = dataclasses.replace(
            config.distill, teacher=self.named.named, teacher_hash=self.named.hash, heads=self.named.heads_run
        )
        config = dataclasses.replace(config, distill=distill)
        if self.start is not None:
            start = StageConfig("highres", start=str(self.start.path.resolve()), start_hash=self.start.hash)
            config = dataclasses.replace(config, stage=start)
        elif config.stage != StageConfig():
            fix = "use opendino distill --stage highres --from JOB"
            raise UsageError(f"recipe {config.recipe}", "goes on from a job", fix)
        if self.before is not None and config.model != self.before.model:
            raise UsageError("model", "differs from that of the start", "leave it out: a stage keeps the model")
        check_fit(config, self.named)
        return config

    def seconds_per_step(self, config: RunConfig) -> float:
        """Of this student alone; a job is measured as a whole."""
        assert self.source is not None
        return measure_job([config], self.source, self.named.teacher(self.device), self.device)


def check_fit(config: RunConfig, named: NamedTeacher) -> None:
    """Raise UsageError where objective, heads, prototypes and sides in pixels do not go together; one line each."""
    distill, method, crops = config.distill, config.method, config.data.crops
    if distill.objective == "match" and crops.num_locals:
        fix = "add --data.crops.num-locals 0"
        raise UsageError(
            "data.crops.num_locals", f"is {crops.num_locals}, but matching compares global crops alone", fix
        )
    if distill.objective == "heads" and named.heads_config is not None:
        pairs = [("prototypes", method.prototypes, named.heads_config.prototypes)]
        if method.ibot_weight > 0:
            if named.heads is not None and named.heads.ibot is None:
                raise UsageError("method.ibot_weight", "the teacher has no head for patches", "set it to 0")
            pairs.append(("ibot_prototypes", method.ibot_prototypes, named.heads_config.ibot_prototypes))
        for name, asked, there in pairs:
            if asked != there:
                fix = "leave it out"
                raise UsageError(f"method.{name}", f"is {asked}, but the teacher's head has {there}", fix)
    transform = named.backbone.transform
    if (config.data.mean, config.data.std) != (transform.mean, transform.std):
        raise UsageError("data.mean, data.std", "differ from the teacher's", "leave them out")
    patch = named.backbone.patch
    (side,) = patch_sides([config.model.name]) if config.model.patch is None else (config.model.patch,)
    for sizes in crops.sizes:
        if sizes.gram_px:
            raise UsageError("data.crops", "hold Gram crops, and distillation has no Gram teacher", "leave them out")
        teacher_px = round((distill.teacher_px or crops.global_px) * sizes.global_px / crops.global_px)
        if teacher_px % patch:
            near = max(1, round(teacher_px / patch)) * patch
            where = f" for crops of {sizes.global_px} px" if crops.mix else ""
            cause = f"the teacher's patch side is {patch}, and {teacher_px} px{where} are no multiple of it"
            fix = f"the nearest is {near} px" if crops.mix else f"the nearest is --distill.teacher-px {near}"
            raise UsageError("distill.teacher_px", cause, fix)
        for name, px in (("global_px", sizes.global_px), ("local_px", sizes.local_px)):
            seen = round(px * (distill.student_px or crops.global_px) / crops.global_px)
            if distill.student_px and seen % side:
                asked = distill.student_px
                cause = f"at student_px {asked} the student sees {px} px as {seen}, no multiple of its {side}"
                near = max(1, round(seen / side)) * side * crops.global_px // asked
                field = "mix" if crops.mix else name
                raise UsageError(f"data.crops.{field}", cause, f"the nearest is --data.crops.{name} {near}")
    if not distill.student_px:
        crops.check_patch(side)


def check_shared(configs: Sequence[RunConfig]) -> None:
    """Raise UsageError unless the students of a job can share crops and the teacher's answers."""

    def shared(config: RunConfig) -> dict[str, Any]:
        lesson = dataclasses.replace(config.distill, student_px=0, match="cosine", cls_weight=1.0, patch_weight=1.0)
        method = config.method
        return {
            "data": config.data,
            "precision": config.precision,
            "distill": lesson,
            "steps": config.steps,
            "method.target_spread": method.target_spread,
            "method.teacher_temperature": method.temperature_schedule,
            "method.ibot_weight above 0": method.ibot_weight > 0,
        }

    first = shared(configs[0])
    for config in configs[1:]:
        for name, value in shared(config).items():
            if value != first[name]:
                names = f"{configs[0].model.name} and {config.model.name}"
                raise UsageError(name, f"differs between {names}", "let the recipe give one for all, or distil apart")


def build_students(
    configs: Sequence[RunConfig], source: Source, teacher: Teacher, device: torch.device
) -> tuple[list[Distillation], Lessons]:
    """The methods of a job and the batches that they share."""
    standard = _standard(configs[0], source, teacher, device) if configs[0].distill.objective == "match" else None
    methods, sights = [], list[Sight]()
    for config in configs:
        student = build_student(config, source)
        px = config.distill.student_px or config.data.crops.global_px
        sights.append(Sight(px, int(student.patch)))  # type: ignore[arg-type]
        method = Distillation(student, config.method, config.distill, config.steps, teacher, standard).to(device)
        if config.checkpoint:
            checkpoint_blocks(method.student["backbone"])
        if config.compile:
            for part in (*method.student.values(), *method.average.values()):
                compile_blocks(part)
        methods.append(method)
    config = configs[0]
    lesson = Lesson(
        sights=tuple(sights),
        global_px=config.data.crops.global_px,
        patches=config.distill.objective == "match",
        masks=config.data.masks if config.method.ibot_weight > 0 and config.distill.objective == "heads" else None,
        mask_seed=config.data.seed,
        temperature=config.method.temperature_schedule,
        total_steps=config.steps,
        px=config.distill.teacher_px,
        chunk=config.distill.teacher_batch,
        precision=config.precision,
    )
    return methods, Lessons(Loader(source, config.data, None, device, stage=config.stage.number), teacher, lesson)


def _standard(config: RunConfig, source: Source, teacher: Teacher, device: torch.device) -> Standard:
    """Measured on pictures at the side at which the teacher will see crops of them."""
    px = config.distill.teacher_px or config.data.crops.global_px
    transform = Transform(
        size=px, mode="square", mean=config.data.mean, std=config.data.std, patch=teacher.backbone.patch
    )
    with torch.no_grad():
        found = [
            teacher.backbone(part.to(device)) for part in read_evenly(source, transform, STANDARD_IMAGES).split(64)
        ]
    return Standard.of(torch.cat([one.cls for one in found]), torch.cat([one.patches for one in found]))


def measure_job(configs: Sequence[RunConfig], source: Source, teacher: Teacher, device: torch.device) -> float:
    """Median seconds of a step of all students, on twenty steps of methods that are then thrown away."""
    methods, lessons = build_students(configs, source, teacher, device)
    jobs = [
        (config, method, build_optimizer(method.trained(), config.optim))
        for config, method in zip(configs, methods, strict=True)
    ]
    seconds, before = [], time.monotonic()
    for step, batch in enumerate(lessons.batches(0, MEASURED_STEPS)):
        for config, method, optimizer in jobs:
            train_step(config, method, optimizer, batch, step)
        now = time.monotonic()
        seconds.append(now - before)
        before = now
    return median(seconds[1:])
