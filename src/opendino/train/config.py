"""The whole description of a run: nested, frozen, saved as JSON, read back strictly."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import cattrs

from opendino.data.config import DataConfig
from opendino.errors import UsageError
from opendino.files import read_json
from opendino.train.methods.adaptation import AdaptConfig
from opendino.train.methods.distillation import DistillConfig
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.optim import OptimConfig
from opendino.train.schedules import Length


@dataclass(frozen=True)
class ModelConfig:
    """A family member and what is changed about it; None keeps the family's value."""

    name: str = "vit_tiny"
    """Family member; `opendino models` lists them."""
    dim: int | None = None
    """Width of tokens."""
    depth: int | None = None
    """Number of blocks."""
    heads: int | None = None
    """Attention heads."""
    hidden: int | None = None
    """Width inside the feed-forward layers."""
    patch: int | None = None
    """Side of a patch in pixels."""
    registers: int | None = None
    """Register tokens."""
    mask_k_bias: bool | None = None
    """No bias on attention keys."""
    norm_eps: float | None = None
    """Added to the variance in norms."""
    layer_scale: float | None = None
    """Initial gain of each residual branch."""
    drop_path: float | None = None
    """Share of the batch that a residual branch leaves out in training."""

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from the family."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "name" and v is not None}


@dataclass(frozen=True)
class WatchConfig:
    """How often people and probes look. Lengths: steps (int) or a fraction of the run (float)."""

    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    health_every: Length = 0.02
    """Between health lines and reports."""
    knn_every: Length = 0.1
    """Between k-NN scores."""
    picture_every: Length = 0.1
    """Between PCA pictures."""
    picture_px: int = 224
    """Side at which PCA pictures are drawn: larger than what is trained and read, so that maps have many patches."""
    picture_dir: str = ""
    """Photographs to draw; empty: six of the training pictures."""
    knn_bank: int = 10_000
    """At most so many pictures in the k-NN bank; a fixed stratified subset beyond."""
    knn_queries: int = 2_000
    """At most so many k-NN queries."""
    drift_every: Length = 0.1
    """Between looks at dense features, as often as milestones are saved."""
    masks: str = ""
    """Pictures with masks, {train,val}/{images,masks}/ or a published set: k-NN segmentation then tells whether dense
    features degrade; without, signs alone do."""
    masks_ignore: int = 255
    """Value in masks that is no class."""
    masks_limit: int = 0
    """At most so many pictures with masks a part; 0 takes all."""
    protocols: str = ""
    """Scored while training, as PROTOCOL=DATA with commas between; `opendino evaluate --list` shows them."""
    protocols_every: Length = 0.25
    """Between scores of the protocols."""
    protocols_limit: int = 200
    """At most so many pictures a part and protocol; 0 takes all."""

    def __post_init__(self) -> None:
        for name in ("log_every", "health_every", "knn_every", "picture_every", "drift_every", "protocols_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"watch.{name}", f"must be above 0, got {getattr(self, name)}", "1.0: only at the end")
        if self.masks_limit < 0:
            raise UsageError("watch.masks_limit", f"must be 0 or more, got {self.masks_limit}")
        for name in ("picture_px", "knn_bank", "knn_queries"):
            if getattr(self, name) < 1:
                raise UsageError(f"watch.{name}", f"must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class SaveConfig:
    """When the run is saved. Whichever of steps and minutes comes first; 0 switches one off."""

    minutes: float = 10.0
    """Between checkpoints."""
    steps: int = 0
    """Between checkpoints."""
    keep: int = 2
    """Newest checkpoints kept, beside the milestones."""
    grace_s: float = 60.0
    """Seconds from a signal to the end: what cannot be saved by then is left, and the last checkpoint stays."""
    milestones: int = 10
    """Checkpoints spread over the run that are never pruned: a later Gram stage takes its teacher from early ones."""

    def __post_init__(self) -> None:
        for name in ("minutes", "steps", "keep", "grace_s", "milestones"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"save.{name}", f"must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class StageConfig:
    """Which stage of training a run is and what it goes on from; filled by `opendino pretrain --stage`."""

    name: Literal["pretrain", "gram", "highres"] = "pretrain"
    """gram: Gram anchoring; highres: mixed, larger sizes."""
    start: str = ""
    """The checkpoint or model that it goes on from."""
    start_hash: str = ""
    """Of its weights."""
    gram_teacher: str = ""
    """Which weights the Gram teacher began with, and why those."""
    gram_teacher_hash: str = ""
    """Of those weights; ema: the average of this run."""

    @property
    def number(self) -> int:
        """From 0: each stage draws other crops of the same pictures."""
        return ("pretrain", "gram", "highres").index(self.name)


class LoopConfig(Protocol):
    """What the loop reads of a config; `RunConfig` is one, heads on features have a smaller one."""

    @property
    def steps(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def precision(self) -> Literal["fp32", "bf16"]: ...
    @property
    def data_ahead_steps(self) -> int: ...
    @property
    def optim(self) -> OptimConfig: ...
    @property
    def save(self) -> SaveConfig: ...
    @property
    def watch(self) -> WatchConfig: ...


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Built by a recipe, changed by flags, then never again."""

    recipe: str = "custom"
    """Where the values come from."""
    steps: int = 0
    """Optimizer updates. 0: follows from `minutes` once the speed is measured."""
    minutes: float | None = None
    """Budget; turned into steps once, by the speed that was measured."""
    seed: int = 0
    """Of weights, drop path and RoPE augmentation; pictures and crops have data.seed."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of activations; weights, moments and averages are fp32 in both."""
    compile: bool = False
    """torch.compile of each block."""
    checkpoint: bool = False
    """The student's blocks compute their activations anew in the backward pass: less memory, a third more compute."""
    model: ModelConfig = field(default_factory=ModelConfig)
    method: SelfDistillationConfig = field(default_factory=SelfDistillationConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    """Of `opendino adapt` alone."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Of `opendino distill` alone."""
    stage: StageConfig = field(default_factory=StageConfig)
    """Of `opendino pretrain --stage` alone."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    read_px: int = 224
    """Side at which pictures are read once trained: by the probes, and by whoever loads the model."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    pictures: str = ""
    """Fingerprint of the pictures (names and sizes), filled by the command: a resume on other pictures is refused."""
    reading: str = ""
    """How they are read (bands, range) as JSON, filled by the command: a resume that reads otherwise is refused."""
    data_ahead_steps: int = 0
    """Steps of data passed over when changed pictures began a new epoch, filled by the command."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a derived value is what it is, by field name."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UsageError("steps", f"must be at least 1, got {self.steps}")
        if self.seed < 0:
            raise UsageError("seed", f"must be 0 or more, got {self.seed}")
        self.method.check_batch(self.data.batch_size)
        if self.read_px < 1:
            raise UsageError("read_px", f"must be at least 1, got {self.read_px}")
        self.method.gram.check(self.data.crops, masked=self.method.ibot_weight > 0)


FREE_FIELDS = (
    *("data.workers", "data.cache_mb", "data.path", "watch.", "save.", "reasons", "checkpoint"),
    "distill.teacher_batch",
)
"""May differ between a run and its resume: they change what people see, not what is learned. (The pictures themselves
are compared by their fingerprint, so the folder may have moved.)"""

ALLOWED_FIELDS = (
    *("steps", "minutes", "optim.", "method.momentum"),
    *("precision", "compile", "method.micro_batch"),
)
"""May change when it is asked for (`--allow`): the weights and moments at hand go on under them. Those of the second
line change rounding alone, for a machine with more or less memory."""

FILLED_FIELDS = (
    *("pictures", "reading", "data_ahead_steps", "distill.teacher", "distill.heads"),
    *("stage.start", "stage.gram_teacher"),
)
"""Filled and compared by the command itself (`--data-changed`; teachers and starts are compared by their hash)."""


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

    allowed: tuple[str, ...]
    identity: tuple[str, ...]


def differences(old: RunConfig, new: RunConfig) -> Differences:
    """Fields that decide what is learned and differ."""
    before, after = dict(flatten(to_dict(old))), dict(flatten(to_dict(new)))
    allowed, identity = list[str](), list[str]()
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key) or key.startswith(FREE_FIELDS) or key in FILLED_FIELDS:
            continue
        words = f"{key}: {before.get(key)} -> {after.get(key)}"
        # Muon and AdamW keep other moments.
        kept = key.startswith(ALLOWED_FIELDS) and key != "optim.muon_lr"
        (allowed if kept else identity).append(words)
    return Differences(tuple(allowed), tuple(identity))
