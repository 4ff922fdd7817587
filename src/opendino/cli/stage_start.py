"""What a stage of `opendino pretrain` goes on from: the model or run, and the weights that anchor it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from opendino.errors import UsageError, WeightsError
from opendino.features.identity import model_hash
from opendino.models.family import FAMILY, nearest
from opendino.monitor.drift import judge_drift
from opendino.monitor.metrics import read_rows
from opendino.recipes.highres import before_model
from opendino.recipes.situation import Situation
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.run import RunDirectory
from opendino.train.start import Checkpoint, checkpoint_at, choose_anchor, is_run, newest_checkpoint, teacher_backbone
from opendino.weights import load

EMA = "ema"


@dataclass(frozen=True)
class Anchor:
    """The weights that the Gram teacher begins with. checkpoint or model: one of the two, none for the run's own
    average; words: which and why.
    """

    words: str
    checkpoint: Checkpoint | None = None
    model: Any = None

    @property
    def hash(self) -> str:
        if self.checkpoint is not None:
            return self.checkpoint.hash
        return EMA if self.model is None else model_hash(self.model)

    def tensors(self) -> Mapping[str, Tensor] | None:
        """The backbone's, None for the run's own average."""
        if self.checkpoint is not None:
            return teacher_backbone(self.checkpoint.tensors())
        return None if self.model is None else self.model.state_dict()


@dataclass(frozen=True)
class ModelStart:
    """A trained backbone to go on from, and what opens it again."""

    model: Any
    named: str

    @property
    def hash(self) -> str:
        return model_hash(self.model)

    def before(self, situation: Situation) -> RunConfig:
        """What stands for the run before. Raises UsageError for a model that no name of the family says."""
        name, config, transform = str(self.model.card["name"]), self.model.config, self.model.transform
        if name not in FAMILY:
            raise UsageError(
                f"--from {self.named}", f"is called {name}, no model of the family", nearest(name, list(FAMILY))
            )
        family = FAMILY[name].config
        changes = {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(ModelConfig)
            if getattr(config, field.name, None) != getattr(family, field.name, None)
        }
        return before_model(situation, ModelConfig(name, **changes), transform.size, transform.mean, transform.std)


def choose_weights(stage: str, start: Checkpoint, asked: str | None) -> Anchor:
    """The Gram teacher of a stage that goes on from a run. Raises UsageError when it is not there.

    asked: a step of the run, a run, a model, or "ema"; None: what the run measured, or, for high resolution, the start.
    """
    if asked is None and stage == "highres":
        return Anchor(f"step {start.step:,}, what the stage starts from (as published)", start)
    if asked is None:
        rows = read_rows(RunDirectory(start.run).metrics_file)
        checkpoint, words = choose_anchor(start.run, judge_drift([row for row in rows if row["step"] <= start.step]))
        return Anchor(f"{words}; chosen by the looks of {start.run}", checkpoint)
    if asked == EMA:
        return Anchor("the average of this run, as the command says")
    if asked.isdigit():
        return Anchor(f"step {int(asked):,}, as the command says", checkpoint_at(start.run, int(asked)))
    if is_run(Path(asked)):
        checkpoint = newest_checkpoint(Path(asked))
        return Anchor(f"step {checkpoint.step:,} of {checkpoint.run}, as the command says", checkpoint)
    try:
        return Anchor(f"{asked}, as the command says", model=load(asked))
    except WeightsError as error:
        fix = "give the number of a step of the run, a run, a model or ema"
        raise UsageError(f"--gram-teacher {asked}", f"cannot be opened ({error.cause})", fix) from None
