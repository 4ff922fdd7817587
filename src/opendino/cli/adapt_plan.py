"""What `opendino adapt` is about to do: the plan of a run that goes on from a trained backbone."""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opendino.cli.plan import Plan, build_loader
from opendino.errors import UsageError
from opendino.features.identity import model_hash
from opendino.models.family import FAMILY
from opendino.parallel import compile_blocks
from opendino.recipes import ADAPT_RECIPES, Recipe, find_recipe
from opendino.recipes.situation import Situation, Start
from opendino.train.config import RunConfig
from opendino.train.loop import measure_seconds_per_step
from opendino.train.lora import check_lora
from opendino.train.methods.adaptation import Adaptation
from opendino.train.methods.distillation import DistillConfig


@dataclass(frozen=True)
class AdaptPlan(Plan):
    """start: the backbone to go on from, with its transform and card, None to list a recipe's values; keep: fingerprint
    of the pictures by which its retention is told; lora: rank, 0 for all weights.
    """

    start: Any = None
    keep: str = ""
    lora: int = 0

    def situation(self, steps: int) -> Situation:
        start = None if self.start is None else describe_start(self.start)
        return dataclasses.replace(super().situation(steps), start=start, lora=self.lora)

    def recipe_function(self) -> Recipe:
        return find_recipe(self.recipe, ADAPT_RECIPES)

    def filled(self, config: RunConfig) -> RunConfig:
        """With start and keep. Raises UsageError for fields that the start decides, or that are of other commands."""
        if config.distill != DistillConfig():
            raise UsageError("distill", "needs a teacher", "use opendino distill PICTURES --teacher MODEL")
        if config.model.changes:
            name = next(iter(config.model.changes))
            raise UsageError(f"model.{name}", "is that of the model to go on from", "leave it out")
        if self.start is None:
            return config
        config.data.crops.check_patch(self.start.patch)
        if self.lora:
            check_lora(self.start)
        adapt = dataclasses.replace(config.adapt, start=self._start_hash, keep=self.keep)
        return dataclasses.replace(config, adapt=adapt)

    def seconds_per_step(self, config: RunConfig) -> float:
        assert self.source is not None
        method = build_adaptation(config, self.start, self.device)
        return measure_seconds_per_step(config, method, build_loader(config, method, self.source, self.device))

    def default_out(self) -> Path:
        """As of the plan, with start and keep in the hash."""
        said = (*self.fields, f"--start {self._start_hash}", f"--keep {self.keep}", f"--lora {self.lora}")
        return Plan.default_out(dataclasses.replace(self, fields=said))

    @functools.cached_property
    def _start_hash(self) -> str:
        return model_hash(self.start)


def describe_start(model: Any) -> Start:
    """What a recipe needs to know of a loaded backbone."""
    name = str(model.card["name"])
    transform = model.transform
    kind = FAMILY[name].kind if name in FAMILY else "vit" if hasattr(model, "blocks") else "convolutions"
    return Start(name, kind, model.patch, model.num_layers, transform.size, transform.mean, transform.std)


def build_adaptation(config: RunConfig, start: Any, device: torch.device) -> Adaptation:
    """Fresh heads on a copy of the start."""
    torch.manual_seed(config.seed)
    method = Adaptation(copy.deepcopy(start).cpu(), config.method, config.adapt, config.steps).to(device)
    if config.compile:
        for part in (*method.student.values(), *method.teacher.values(), method.anchor):
            compile_blocks(part)
    return method
