"""The whole description of a run: nested, frozen, saved as JSON, read back strictly."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cattrs

from opendino.data.config import DataConfig
from opendino.errors import UsageError
from opendino.files import read_json
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.optim import OptimConfig
from opendino.train.schedules import Length


@dataclass(frozen=True)
class ModelConfig:
    """A family member and what is changed about it; None keeps the family's value."""

    name: str = "vit_tiny"
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    hidden: int | None = None
    patch: int | None = None
    registers: int | None = None
    mask_k_bias: bool | None = None
    norm_eps: float | None = None
    layer_scale: float | None = None
    drop_path: float | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from the family."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "name" and v is not None}


@dataclass(frozen=True)
class WatchConfig:
    """How often people and probes look. Lengths: steps (int) or a fraction of the run (float)."""

    log_every: int = 10
    health_every: Length = 0.02
    knn_every: Length = 0.1
    picture_every: Length = 0.1
    picture_px: int = 224
    """Side at which PCA pictures are drawn: larger than what is trained and read, so that maps have many patches."""
    picture_dir: str = ""
    """Photographs to draw; empty: six of the training pictures."""
    knn_bank: int = 10_000
    """At most so many pictures in the k-NN bank; a fixed stratified subset beyond."""
    knn_queries: int = 2_000


@dataclass(frozen=True)
class SaveConfig:
    """When the run is saved. Whichever of steps and minutes comes first; 0 switches one off."""

    minutes: float = 10.0
    steps: int = 0
    keep: int = 2
    """Newest checkpoints kept, beside the milestones."""
    milestones: int = 10
    """Checkpoints spread over the run that are never pruned: a later Gram stage takes its teacher from early ones."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Built by a recipe, changed by flags, then never again."""

    recipe: str = "custom"
    steps: int = 0
    """Optimizer updates. 0: follows from `minutes` once the speed is measured."""
    minutes: float | None = None
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    method: SelfDistillationConfig = field(default_factory=SelfDistillationConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    read_px: int = 224
    """Side at which pictures are read once trained: by the probes, and by whoever loads the model."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    pictures: str = ""
    """Fingerprint of the pictures (names and sizes), filled by the command: a resume on other pictures is refused."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a derived value is what it is, by field name."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UsageError("steps", f"must be at least 1, got {self.steps}")


FREE_FIELDS = ("data.workers", "data.cache_mb", "watch.", "save.", "reasons", "data.path")
"""May differ between a run and its resume: they change what people see, not what is learned. (The pictures themselves
are compared by their fingerprint, so the folder may have moved.)"""

SCHEDULED_FIELDS = ("steps", "minutes", "pictures", "optim.", "method.momentum")
"""May change when it is asked for (`--allow`): the weights and moments at hand go on under them."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain JSON values."""
    return dataclasses.asdict(config)


def load_config(path: Path) -> RunConfig:
    """Read a saved config. Unknown keys, missing types and wrong values are refused by name."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook_func(lambda kind: kind == Length, _length)
    value = read_json(path)
    try:
        return converter.structure(value, RunConfig)
    except cattrs.BaseValidationError as error:
        raise UsageError(path, "; ".join(cattrs.transform_error(error)), _nearest(error)) from None


def _length(value: Any, _: type) -> Length:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a length is a number, got {value!r}")
    return value


def _nearest(error: BaseException) -> str:
    """The known key nearest to the first unknown one."""
    known = sorted({name.rsplit(".", 1)[-1] for name, _ in flatten(to_dict(RunConfig()))})
    stack: list[BaseException] = [error]
    while stack:
        current = stack.pop()
        if isinstance(current, cattrs.ForbiddenExtraKeysError):
            for key in current.extra_fields:
                if near := difflib.get_close_matches(key, known, n=1):
                    return f"did you mean {near[0]}?"
        stack.extend(getattr(current, "exceptions", ()))
    return ""


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of all leaves: {"optim": {"lr": 1}} -> ("optim.lr", 1)."""
    for key, item in value.items():
        if isinstance(item, dict) and key != "reasons":
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


@dataclass(frozen=True)
class Differences:
    """Between a run and what a command asks for, as `optim.lr: 0.001 -> 0.002`; free fields are left out."""

    scheduled: tuple[str, ...]
    identity: tuple[str, ...]


def differences(old: RunConfig, new: RunConfig) -> Differences:
    """Fields that decide what is learned and differ."""
    before, after = dict(flatten(to_dict(old))), dict(flatten(to_dict(new)))
    scheduled, identity = list[str](), list[str]()
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key) or key.startswith(FREE_FIELDS):
            continue
        words = f"{key}: {before.get(key)} -> {after.get(key)}"
        if key == "pictures":
            words = "other pictures: files or the skip list changed"
        # Muon and AdamW keep other moments.
        kept = key.startswith(SCHEDULED_FIELDS) and key != "optim.muon_lr"
        (scheduled if kept else identity).append(words)
    return Differences(tuple(scheduled), tuple(identity))
