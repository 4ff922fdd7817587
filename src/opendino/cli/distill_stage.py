"""What `opendino distill` is asked for; a stage takes from the job before it what the command leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from opendino.cli.distill_plan import NamedTeacher, StudentPlan, patch_sides
from opendino.cli.plan import Length
from opendino.data.sources import Source
from opendino.errors import UsageError
from opendino.recipes import DISTILL_STAGE_RECIPES
from opendino.train.config import RunConfig
from opendino.train.methods.distillation import DistillConfig
from opendino.train.run import RunDirectory
from opendino.train.start import Checkpoint, is_run, newest_checkpoint

DEFAULT_RECIPE = "distill_match"
"""It needs no heads and taught more in less time where both were measured (LOG.md)."""


@dataclass(frozen=True)
class JobBefore:
    """The students of a job, by name: the newest checkpoint of each, and its config."""

    path: Path
    starts: Mapping[str, Checkpoint]
    configs: Mapping[str, RunConfig]

    @property
    def first(self) -> RunConfig:
        """Teacher, heads and pictures are those of every student."""
        return next(iter(self.configs.values()))

    def students(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those that were named, or all. Raises UsageError for one that the job does not have."""
        if other := [name for name in names if name not in self.starts]:
            fix = f"its students: {', '.join(self.starts)}"
            raise UsageError(f"--student {other[0]}", f"is none of {self.path}", fix)
        return tuple(names or self.starts)

    def pictures(self) -> Path:
        """What the job learned from. Raises UsageError when it is gone."""
        if not Path(self.first.data.path).exists():
            cause = f"learned from {self.first.data.path}, which is not there any more"
            raise UsageError(f"--from {self.path}", cause, "name the pictures: opendino distill PICTURES --stage ...")
        return Path(self.first.data.path)


@dataclass(frozen=True)
class Asked:
    """What a command asks for, with what the job before says where the command is silent. heads: a run, or None."""

    pictures: Path
    teacher: Path | str | nn.Module
    students: tuple[str, ...]
    recipe: str
    heads: Path | str | None
    before: JobBefore | None

    @property
    def patches(self) -> tuple[int, ...]:
        """Patch sides of the students. Raises UsageError for unknown names and for one named twice."""
        return patch_sides(self.students)

    def plan(self, name: str, source: Source, length: Length, named: NamedTeacher, **more: Any) -> StudentPlan:
        """Of one student. more: device, save and fields."""
        before = self.before
        start, config = (None, None) if before is None else (before.starts[name], before.configs[name])
        more |= {"named": named, "patches": self.patches, "start": start, "before": config}
        return StudentPlan(self.recipe, name, self.pictures, source, length, **more)


def ask(
    pictures: Path | str | None,
    teacher: Path | str | nn.Module | None,
    students: Sequence[str],
    recipe: str,
    heads: Path | str | None,
    before: JobBefore | None,
) -> Asked:
    """Raises UsageError for what neither the command nor the job before says."""
    if before is not None:
        pictures = before.pictures() if pictures is None else pictures
        teacher, students = before.first.distill.teacher if teacher is None else teacher, before.students(students)
        recipe = "distill_highres" if recipe == DEFAULT_RECIPE else recipe
        heads = heads or before.first.distill.heads or None
    elif recipe in DISTILL_STAGE_RECIPES:
        raise UsageError(f"--recipe {recipe}", "goes on from a job", "add --stage highres --from JOB")
    command = "opendino distill"
    if pictures is None:
        example = "for example: opendino distill photos/ --teacher RUN --student vit_tiny"
        raise UsageError(command, "no pictures given", example)
    if teacher is None:
        raise UsageError(command, "no teacher given", "add --teacher with a run, a model folder or a name")
    if not students:
        raise UsageError(command, "no student given", "add --student NAME; opendino models lists them")
    asked = Asked(Path(pictures), teacher, tuple(students), recipe, heads, before)
    patch_sides(asked.students)
    return asked


def job_before(stage: str | None, start: Path | str | None) -> JobBefore | None:
    """What a stage goes on from, None without one. Raises UsageError where `start` holds no student."""
    if stage is None:
        if start is not None:
            raise UsageError(f"--from {start}", "is of a stage", "add --stage highres")
        return None
    if stage != "highres":
        raise UsageError(f"--stage {stage}", "distillation has one stage", "use --stage highres")
    if start is None:
        raise UsageError("--stage highres", "needs the job that it goes on from", "add --from JOB")
    where = Path(start)
    found = [where] if is_run(where) else sorted(path for path in where.glob("*") if is_run(path))
    starts, configs = dict[str, Checkpoint](), dict[str, RunConfig]()
    for path in found:
        checkpoint = newest_checkpoint(path)
        config = RunDirectory(checkpoint.run).config()
        if config is not None and config.distill.teacher and config.distill != DistillConfig():
            starts[config.model.name], configs[config.model.name] = checkpoint, config
    if not starts:
        raise UsageError(f"--from {start}", "holds no student of distill", "name the folder that distill wrote")
    return JobBefore(where, starts, configs)
