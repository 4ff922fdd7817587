"""A tiny run and the stages that go on from it, as the command starts them."""

from __future__ import annotations

from pathlib import Path

from opendino.recipes import STAGE_RECIPES
from opendino.recipes.situation import Situation
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig
from opendino.train.loop import train
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.run import open_run
from opendino.train.start import begin_stage, checkpoint_at, newest_checkpoint, teacher_backbone
from tests.train.runs import build


def stage_config(name: str, before: RunConfig, steps: int, picture_px: int = 72) -> RunConfig:
    return STAGE_RECIPES[name][name](Situation(10, picture_px, steps, "cpu", before=before))


def run_stage(config: RunConfig, out: Path, run: Path, anchor_step: int, **kwargs) -> SelfDistillation:
    """Begin the stage at the newest checkpoint of `run`, or go on; returns the method with its final weights."""
    method, loader = build(config)
    with open_run(out) as opened:
        if not list_checkpoints(opened.checkpoints):
            student = "student" if config.stage.name == "gram" else "teacher"
            anchor = teacher_backbone(checkpoint_at(run, anchor_step).tensors())
            begin_stage(opened, config, method, newest_checkpoint(run), student=student, anchor=anchor)
        train(config, method, loader, opened, **kwargs)
    return method
