"""What `opendino pretrain` is about to do: from the words of a command to a config, a method and a loader."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from opendino.cli.fields import parse_fields
from opendino.cli.watchers import read_evenly
from opendino.data.beside import stated_fields
from opendino.data.loader import Loader
from opendino.data.sources import Source
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.models.family import build_model, find_spec, patch_side
from opendino.models.kmeans_stem import KMeansStem
from opendino.parallel import checkpoint_blocks, compile_blocks
from opendino.recipes import Recipe, find_recipe
from opendino.recipes.situation import Situation
from opendino.train.config import RunConfig, StageConfig, flatten, to_dict
from opendino.train.loop import measure_seconds_per_step
from opendino.train.methods.adaptation import AdaptConfig
from opendino.train.methods.distillation import DistillConfig
from opendino.train.methods.self_distillation import SelfDistillation

STEM_IMAGES = 2_000
"""Pictures whose patches start a k-means first layer."""
ASSUMED_IMAGES, ASSUMED_PX = 10_000, 224
"""What `--fields` without a folder takes the pictures to be."""
FEWEST_STEPS = 20
WORKING_SHARE = 0.92
"""Of a budget in minutes; the rest is for probes, pictures and saves."""


@dataclass(frozen=True)
class Length:
    """How long to train: one of the three, or none for the recipe's own."""

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            raise UsageError(" and ".join(f"--{name}" for name in given), "are different lengths", "give one of them")
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise UsageError(f"--{name} {value:g}", "must be a number above 0")


def choose_length(recipe: str, steps: int | None, epochs: float | None, minutes: float | None) -> Length:
    """What the command says; half an hour of `small`, which has no length of its own, when it says nothing."""
    length = Length(steps, epochs, minutes)
    return Length(minutes=30.0) if length == Length() and recipe in ("small", "adapt") else length


@dataclass(frozen=True)
class Plan:
    """From what the command says to a config, as often as a step count becomes known.

    Without folder and source it plans for pictures as they might be, so that a recipe's values can be listed.
    """

    recipe: str
    model: str | None
    folder: Path | None
    source: Source | None
    length: Length
    device: torch.device
    save: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of pictures."""
        return ASSUMED_IMAGES if self.source is None else len(self.source)

    @functools.cached_property
    def short_side(self) -> int:
        """Median short side of the pictures in pixels."""
        return ASSUMED_PX if self.source is None else _short_side(self.source)

    def config(self, measured_steps: int = 0) -> RunConfig:
        """The recipe for this situation with the command's fields laid over it; steps 0 while they are unknown."""
        # Parsing the fields takes a third of a second, and every command asks for its config twice.
        if measured_steps not in self._made:
            self._made[measured_steps] = self._make(measured_steps)
        return self._made[measured_steps]

    @functools.cached_property
    def _made(self) -> dict[int, RunConfig]:
        return {}

    def _make(self, measured_steps: int) -> RunConfig:
        situation = self.situation(self.length.steps or measured_steps)
        config = self._overlaid(situation)
        if self.length.epochs is not None:
            steps = max(1, math.ceil(self.length.epochs * self.images / config.data.batch_size))
            config = self._overlaid(dataclasses.replace(situation, steps=steps))
        config = dataclasses.replace(
            config, minutes=self.length.minutes, save=dataclasses.replace(config.save, **self.save)
        )
        config = self.filled(config)
        if self.length.minutes is not None and not measured_steps:
            config = dataclasses.replace(config, steps=0)  # whatever length the recipe has of its own
        if self.folder is None or self.source is None:
            return config
        data = dataclasses.replace(config.data, path=str(self.folder.resolve()))
        # A stage takes these folders over from its run, wherever it is started; what is not there keeps its words.
        named = {name: getattr(config.watch, name) for name in ("picture_dir", "masks")}
        found: dict[str, Any] = {
            name: str(Path(text).resolve()) for name, text in named.items() if text and Path(text).exists()
        }
        watch = dataclasses.replace(config.watch, **found)
        reading = json.dumps(stated_fields(self.source.reading), sort_keys=True)
        return dataclasses.replace(config, data=data, watch=watch, pictures=self.source.fingerprint, reading=reading)

    def situation(self, steps: int) -> Situation:
        """What the recipe is told."""
        return Situation(
            images=self.images,
            short_side_px=self.short_side,
            steps=steps,
            device=self.device.type,
            model=self.model,
        )

    def recipe_function(self) -> Recipe:
        """The recipe by its name."""
        return find_recipe(self.recipe)

    def filled(self, config: RunConfig) -> RunConfig:
        """The config with what the command itself knows. Raises UsageError for fields of other commands."""
        if config.adapt != AdaptConfig():
            raise UsageError("adapt", "needs a model to go on from", "use opendino adapt PICTURES --model MODEL")
        if config.distill != DistillConfig():
            fix = "use opendino distill PICTURES --teacher MODEL --student NAME"
            raise UsageError("distill", "needs a teacher", fix)
        if config.stage != StageConfig():
            fix = "use opendino pretrain --stage gram --from RUN"
            raise UsageError("stage", "needs a run to go on from", fix)
        # A mistyped name, or crops of no whole patches, are said before anything is measured or written.
        find_spec(config.model.name)
        config.data.crops.check_patch(patch_side(config.model.name, config.model.patch))
        return config

    def seconds_per_step(self, config: RunConfig) -> float:
        """On twenty steps of a method that is then thrown away."""
        assert self.source is not None
        method = build_method(config, self.source, self.device)
        return measure_seconds_per_step(config, method, build_loader(config, method, self.source, self.device))

    def measured(self, console: Console) -> RunConfig:
        """Train twenty steps on a method that is then thrown away; the speed turns minutes into steps, once for all."""
        assert self.source is not None
        if self.length.minutes is None:
            raise UsageError(f"recipe {self.recipe}", "has no length of its own", "add --steps, --epochs or --minutes")
        console.print("measuring the speed on 20 steps")
        config = dataclasses.replace(self.config(), steps=1000)
        seconds = self.seconds_per_step(config)
        affordable = round(self.length.minutes * 60 * WORKING_SHARE / seconds)
        steps = max(FEWEST_STEPS, affordable)
        batch = config.data.batch_size
        words = f"{batch / seconds:,.0f} images/s: {self.length.minutes:g} minutes are {affordable:,} steps of {batch}"
        console.print(words if steps == affordable else f"{words}; {steps} are done, the fewest worth a run")
        return self.config(steps)

    def told(self) -> str:
        """All that the command says, whatever the order of its flags."""
        assert self.folder is not None
        return f"{self.folder.resolve()} {self.model} {self.length} {sorted(' '.join(self.fields).split('--'))}"

    def default_out(self) -> Path:
        """runs/PICTURES-RECIPE-HASH, the hash of what else the command says: the same command finds its run."""
        assert self.folder is not None
        name = self.folder.resolve().name.removesuffix(".tar") or "pictures"
        return Path("runs") / f"{name}-{Path(self.recipe).stem}-{hashlib.sha256(self.told().encode()).hexdigest()[:6]}"

    def _overlaid(self, situation: Situation) -> RunConfig:
        config = self.recipe_function()(situation)
        if not self.fields:
            return config
        changed = parse_fields(config, self.fields)
        before, after = dict(flatten(to_dict(config))), dict(flatten(to_dict(changed)))
        asked = {key: "set by the command" for key in after if after[key] != before[key] and key != "reasons"}
        return dataclasses.replace(changed, reasons={**config.reasons, **asked})


def _short_side(source: Source) -> int:
    """Median short side in pixels of up to 32 pictures."""
    sides: list[int] = []
    bad: list[DataError] = []
    for index in range(0, len(source), max(1, len(source) // 32)):
        try:
            sides.append(min(source.read(index).array.shape[:2]))
        except DataError as error:
            bad.append(error)
        if len(sides) == 32:
            break
    if not sides:
        cause = f"none of the {len(bad)} that were tried can be read, the first is {bad[0].thing} ({bad[0].cause})"
        raise DataError("pictures", cause, bad[0].fix or "open some of them with a viewer")
    return sorted(sides)[len(sides) // 2]


def build_student(config: RunConfig, source: Source) -> nn.Module:
    """A fresh backbone, a function of the seed and (a k-means first layer) of the pictures."""
    torch.manual_seed(config.seed)
    model = build_model(config.model.name, **config.model.changes)
    patch: Any = model.patch
    stem = getattr(model, "stem", None)
    if isinstance(stem, KMeansStem):
        size = max(config.data.crops.global_px, _short_side(source) // patch * patch)
        transform = Transform(size=size, mean=config.data.mean, std=config.data.std, patch=patch)
        stem.fit(read_evenly(source, transform, STEM_IMAGES), config.seed)
    return model


def build_method(config: RunConfig, source: Source, device: torch.device) -> SelfDistillation:
    model = build_student(config, source)
    config.data.crops.check_patch(model.patch)  # type: ignore[arg-type]
    method = SelfDistillation(model, config.method, config.steps).to(device)
    if config.checkpoint:
        checkpoint_blocks(method.student["backbone"])
    if config.compile:
        parts = [*method.student.values(), *method.teacher.values()]
        if method.gram_teacher is not None and config.method.gram.teacher == "frozen":
            parts.append(method.gram_teacher.backbone)
        for part in parts:
            compile_blocks(part)
    return method


def build_loader(config: RunConfig, method: SelfDistillation, source: Source, device: torch.device) -> Loader:
    patch: Any = method.export().patch
    masked = config.method.ibot_weight > 0
    return Loader(source, config.data, patch if masked else None, device, stage=config.stage.number)
