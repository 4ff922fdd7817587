"""What `opendino pretrain --stage` is about to do: which checkpoint it goes on from, and which one anchors it."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from opendino.cli.model import require_family
from opendino.cli.plan import Length, Plan
from opendino.cli.stage_start import EMA, Anchor, ModelStart, choose_weights
from opendino.errors import UsageError
from opendino.models.family import patch_side
from opendino.recipes import STAGE_RECIPES, Recipe, find_recipe
from opendino.recipes.situation import Situation
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig, StageConfig
from opendino.train.methods.distillation import DistillConfig
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.run import RunDirectory
from opendino.train.start import (
    Checkpoint,
    begin_from_model,
    begin_stage,
    is_run,
    newest_checkpoint,
)
from opendino.weights import load


@dataclass(frozen=True, kw_only=True)
class StagePlan(Plan):
    """The plan of a stage: its recipe starts from the config of the run before."""

    stage: str
    start: Checkpoint | ModelStart
    before: RunConfig | None
    """Of the run; None for a model."""
    anchor: Anchor

    def situation(self, steps: int) -> Situation:
        situation = super().situation(steps)
        if isinstance(self.start, Checkpoint):
            return dataclasses.replace(situation, before=self.before)
        return dataclasses.replace(situation, before=self.start.before(situation))

    def recipe_function(self) -> Recipe:
        return find_recipe(self.recipe, STAGE_RECIPES[self.stage])

    def filled(self, config: RunConfig) -> RunConfig:
        """With start and Gram teacher. Raises UsageError where the fields make another stage of it."""
        stage = StageConfig(
            self.stage,  # type: ignore[arg-type]
            start=str(self.start.path.resolve()) if isinstance(self.start, Checkpoint) else self.start.named,
            start_hash=self.start.hash,
            gram_teacher=self.anchor.words,
            gram_teacher_hash=self.anchor.hash,
        )
        before = self.situation(config.steps).before
        if before is None or config.model != before.model:
            raise UsageError("model", "differs from that of the start", "leave it out: a stage keeps the model")
        config.data.crops.check_patch(patch_side(config.model.name, config.model.patch))
        return dataclasses.replace(config, stage=stage)

    def told(self) -> str:
        return f"{super().told()} {self.start.hash} {self.anchor.hash}"

    def begin(self, run: RunDirectory, config: RunConfig, method: SelfDistillation, console: Console) -> None:
        """Write step 0 of a run that has no checkpoint yet, and say what it is made of."""
        if list_checkpoints(run.checkpoints):
            return
        if isinstance(self.start, ModelStart):
            begin_from_model(run, config, method, self.start.model)
            console.print(f"{self.stage} stage of {self.start.named}: student, average and Gram teacher, fresh heads")
            return
        # Published: Gram anchoring resumes the training state, high resolution starts from the average.
        student: Literal["student", "teacher"] = "student" if self.stage == "gram" else "teacher"
        begin_stage(run, config, method, self.start, student=student, anchor=self.anchor.tensors())
        took = "training goes on" if student == "student" else "its average is student and teacher"
        console.print(f"{self.stage} stage of {self.start.run}, from step {self.start.step:,}: {took}")
        console.print(f"Gram teacher: {self.anchor.words}")
        if config.data.crops.mix:
            console.print(f"sizes that take turns, global/local/Gram px:share: {config.data.crops.mix}")


def licence_of(plan: Plan) -> str | None:
    """Of the model that a stage goes on from; None for a run, whose weights are its owner's."""
    model = plan.start.model if isinstance(plan, StagePlan) and isinstance(plan.start, ModelStart) else None
    return None if model is None else str(model.card.get("licence", "not stated"))


def check_stage(
    recipe: str, stage: str | None, start: Path | str | None, gram_teacher: str | None, model: str | None
) -> None:
    """Raise UsageError for flags of `pretrain` that exclude each other."""
    given = {"--from": start, "--gram-teacher": gram_teacher}
    if stage is None:
        for flag, value in given.items():
            if value is not None:
                raise UsageError(f"{flag} {value}", "is of a stage", "add --stage gram or --stage highres")
        for kind, recipes in STAGE_RECIPES.items():
            if recipe in recipes:
                named = "" if recipe == kind else f" --recipe {recipe}"
                raise UsageError(f"--recipe {recipe}", "goes on from a run", f"use --stage {kind}{named} --from RUN")
        return
    if stage not in STAGE_RECIPES:
        near = difflib.get_close_matches(stage, STAGE_RECIPES, n=1)
        raise UsageError(f"--stage {stage}", "no such stage", f"did you mean {near[0]}?" if near else "gram or highres")
    if start is None:
        raise UsageError(f"--stage {stage}", "needs the run that it goes on from", "add --from RUN")
    if model is not None:
        raise UsageError(f"--model {model}", f"and --stage {stage}: the run decides the model", "leave --model out")


def plan_stage(plan: Plan, stage: str, start: Path | str, gram_teacher: str | None) -> StagePlan:
    """Make a stage of a plan, or refuse it in words before anything is written.

    Args:
        plan: what else the command says. start: a run directory or one of its checkpoints.
        gram_teacher: a step of the run, a model, or "ema"; None chooses by what the run measured.
    """
    where = Path(start)
    if not is_run(where):
        return _from_model(plan, stage, str(start), gram_teacher)
    checkpoint = newest_checkpoint(where)
    before = RunDirectory(checkpoint.run).config()
    if before is None:
        raise UsageError(checkpoint.run, "has no config.json", "name a whole run directory")
    if before.distill != DistillConfig():
        raise UsageError(checkpoint.run, "was made by distill, so it has another objective", "name a run of pretrain")
    more = _without_crops(before, stage) if gram_teacher == EMA else ()
    anchor = choose_weights(stage, checkpoint, gram_teacher)
    return _staged(plan, stage, more, start=checkpoint, before=before, anchor=anchor)


def _from_model(plan: Plan, stage: str, start: str, gram_teacher: str | None) -> StagePlan:
    """High resolution from a model. Raises UsageError for another stage, or when it needs more than a model says."""
    _check_model(stage, start, gram_teacher)
    if plan.length == Length() and plan.folder is not None:
        raise UsageError("--stage highres", "has no length after a model", "add --steps, --epochs or --minutes")
    model = load(start)
    require_family(model)
    opened = ModelStart(model, str(Path(start).resolve()) if Path(start).exists() else start)
    anchor = Anchor("what the stage starts from (as published)", model=opened.model)
    return _staged(plan, stage, (), start=opened, before=None, anchor=anchor)


def _check_model(stage: str, start: str, gram_teacher: str | None) -> None:
    """Raise UsageError for a stage that a model alone cannot begin."""
    if stage != "highres":
        cause = "is no run with checkpoints, and Gram anchoring goes on with heads and average, which no model holds"
        raise UsageError(f"--from {start}", cause, "name a run directory, as pretrain writes it")
    if gram_teacher is not None:
        cause = "and --from a model: the model is its Gram teacher"
        raise UsageError(f"--gram-teacher {gram_teacher}", cause, "leave it out, or go on from a run")


def learned_from(stage: str | None, start: Path | str | None) -> Path | None:
    """The pictures of the run that a stage goes on from, where the command names none; None for a model.

    Raises UsageError when the start is neither, or its pictures are gone.
    """
    if stage is None or start is None:
        return None
    if not is_run(Path(start)):
        _check_model(stage, str(start), None)
        load(start)  # says what is wrong with it
        fix = f"name some: opendino pretrain PICTURES --stage {stage} --from MODEL"
        raise UsageError(f"--from {start}", "is a model, and no pictures are given", fix)
    before = RunDirectory(newest_checkpoint(Path(start)).run).config()
    if before is not None and not Path(before.data.path).exists():
        cause = f"learned from {before.data.path}, which is not there any more"
        raise UsageError(f"--from {start}", cause, "name the pictures: opendino pretrain PICTURES --stage ...")
    return None if before is None else Path(before.data.path)


def _staged(plan: Plan, stage: str, more: tuple[str, ...], **parts: Any) -> StagePlan:
    """The same command as a stage, with more fields than were typed."""
    typed = {one.name: getattr(plan, one.name) for one in dataclasses.fields(Plan)}
    typed |= {"recipe": stage if plan.recipe == "small" else plan.recipe, "model": None, "fields": plan.fields + more}
    return StagePlan(**typed, stage=stage, **parts)


def _without_crops(before: RunConfig, stage: str) -> tuple[str, ...]:
    """Fields of a Gram teacher that is the run's own average: it needs no crops of its own, and is never refreshed."""
    fields = ("--method.gram.teacher", "average", "--method.gram.refresh-every", "0")
    return (*fields, "--data.crops.gram-px", "0") if stage == "gram" else fields
