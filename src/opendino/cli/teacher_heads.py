"""A teacher with its heads: those of its run, those of another run, or fresh ones trained on its frozen backbone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from opendino.cli.claim import claim
from opendino.cli.distill_plan import NamedTeacher
from opendino.cli.plan import Plan, build_loader
from opendino.data.sources import Source
from opendino.errors import UsageError
from opendino.features.identity import model_hash
from opendino.models.frozen import Frozen
from opendino.monitor.head_quality import HeadQuality, measure_heads
from opendino.monitor.metrics import MetricsLog
from opendino.recipes import Recipe
from opendino.recipes.distill import teacher_heads
from opendino.recipes.situation import Situation
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig
from opendino.train.loop import measure_seconds_per_step, train
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.run import RunDirectory, open_run
from opendino.train.teacher import spread_logits
from opendino.train.teacher_heads import check_belongs, read_heads

QUALITY_BATCHES = 8
"""Fresh batches on which heads are judged."""


def with_heads(named: NamedTeacher, run: Path) -> NamedTeacher | None:
    """The teacher with the heads of a run, None when it has none. Raises UsageError when they are another model's."""
    saved = read_heads(run)
    if saved is None:
        return None
    check_belongs(saved, named.backbone, run)
    trained_on = saved.config.distill.teacher_hash
    if saved.config.recipe == "teacher_heads" and trained_on != model_hash(named.backbone):
        raise UsageError(f"heads of {run}", "were trained on another teacher", "leave --heads out to train its own")
    return dataclasses.replace(named, heads=saved.heads, heads_config=saved.config.method, heads_run=str(run.resolve()))


@dataclass(frozen=True)
class HeadsPlan(Plan):
    """The plan of a run that trains heads. named: the teacher; patches: of the students; students: the config of one of
    them, whose data and numbers of prototypes it takes.
    """

    named: NamedTeacher = None  # type: ignore[assignment]
    patches: tuple[int, ...] = ()
    students: RunConfig = RunConfig()  # noqa: RUF009

    def situation(self, steps: int) -> Situation:
        return dataclasses.replace(super().situation(steps), teacher=self.named.facts(self.patches))

    def recipe_function(self) -> Recipe:
        return teacher_heads

    def filled(self, config: RunConfig) -> RunConfig:
        theirs = self.students
        method = dataclasses.replace(
            config.method, prototypes=theirs.method.prototypes, ibot_prototypes=theirs.method.ibot_prototypes
        )
        hash = model_hash(self.named.backbone)
        return dataclasses.replace(
            config,
            precision=theirs.precision,
            method=method,
            distill=dataclasses.replace(config.distill, teacher=self.named.named, teacher_hash=hash),
            data=dataclasses.replace(theirs.data, crops=config.data.crops),
        )

    def build(self, config: RunConfig) -> SelfDistillation:
        """Fresh heads on the frozen backbone."""
        torch.manual_seed(config.seed)
        return SelfDistillation(Frozen(self.named.backbone.to(self.device)), config.method, config.steps).to(
            self.device
        )

    def seconds_per_step(self, config: RunConfig) -> float:
        assert self.source is not None
        method = self.build(config)
        return measure_seconds_per_step(config, method, build_loader(config, method, self.source, self.device))


def fit_teacher_heads(plan: HeadsPlan, out: Path, console: Console, *, take_over: bool) -> NamedTeacher:
    """Train heads in `out`, or go on, or find them done; says their quality. Returns the teacher with them."""
    source: Source = plan.source  # type: ignore[assignment]
    kept = read_heads(out)
    if kept is not None and kept.step == kept.config.steps and (found := with_heads(plan.named, out)) is not None:
        # Whatever pictures came since: they are heads of this teacher.
        console.print(f"the teacher's heads are those of {out} ({kept.step} steps)")
        _say_quality(out, console)
        return found
    with open_run(out, take_over=take_over) as run:
        saved = run.config()
        config = plan.config(saved.steps if saved is not None and saved.minutes == plan.length.minutes else 0)
        if config.steps == 0:
            config = plan.measured(console)
        config = claim(run, config, source, allow=False, data_changed=None, say=console.print)
        reached = max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)
        if reached < config.steps:
            console.print(f"{plan.named.name} has no heads: training them on its frozen backbone, {config.steps} steps")
            method = plan.build(config)
            loader = build_loader(config, method, source, plan.device)
            with Progress(console=console, disable=console.quiet) as progress:
                task = progress.add_task("heads", total=config.steps, completed=reached)
                train(
                    config,
                    method,
                    loader,
                    run,
                    on_step=lambda step, result, speed: progress.update(task, completed=step),
                )
            log = MetricsLog(run.metrics_file)
            for name, quality in head_quality(method, loader, config).items():
                log.append("heads", config.steps, head=name, **vars(quality), words=str(quality))
    _say_quality(out, console)
    found = with_heads(plan.named, out)
    assert found is not None
    console.print(f"kept for reuse: --heads {out}")
    return found


def _say_quality(run: Path, console: Console) -> None:
    for row in MetricsLog(RunDirectory(run).metrics_file).rows():
        if row["kind"] == "heads":
            console.print(f"teacher's {row['head']} head: {row['words']}")


@torch.no_grad()
def head_quality(method: SelfDistillation, loader: Any, config: RunConfig) -> dict[str, HeadQuality]:
    """Of the averaged heads, on batches that come after the last step: pictures for DINO, and patches of the same place
    in one view, seen with and without a mask, for iBOT.
    """
    backbone, heads = method.teacher["backbone"], method.teacher
    views: list[tuple[Any, Any]] = []
    patches: list[tuple[Any, Any]] = []
    for crops in loader.batches(config.steps, config.steps + QUALITY_BATCHES):
        features = backbone(crops.global_crops)
        logits = heads["dino_head"](features.cls).float()
        views.append(tuple(_targets(logits, config).chunk(2)))  # type: ignore[arg-type]
        if config.method.ibot_weight > 0 and crops.masks is not None and crops.masks.any():
            hidden = backbone(crops.global_crops, mask=crops.masks)
            seen, guessed = (
                heads["ibot_head"](one.patches[crops.masks]).float() / config.method.teacher_temperature
                for one in (features, hidden)
            )
            patches.append((seen.softmax(1), guessed.softmax(1)))
    found = {"DINO": measure_heads(*(torch.cat(side) for side in zip(*views, strict=True)))}
    if patches:
        found["iBOT"] = measure_heads(*(torch.cat(side) for side in zip(*patches, strict=True)))
    return found


def _targets(logits: torch.Tensor, config: RunConfig) -> torch.Tensor:
    return (spread_logits(logits, config.method.target_spread) / config.method.teacher_temperature).softmax(dim=1)
