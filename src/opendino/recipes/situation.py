"""What a recipe is told: the pictures, the budget, the machine, and a teacher, a start or the run that comes before."""

from __future__ import annotations

from dataclasses import dataclass

from opendino.train.config import RunConfig
from opendino.train.methods.self_distillation import SelfDistillationConfig


@dataclass(frozen=True)
class TeacherFacts:
    """A frozen teacher. patch: its side in pixels; heads: the settings that its heads were trained with, None without
    heads; ibot: whether one of them is for patches. patches: patch sides of all students of the job, which share crops.
    mean, std: of RGB in [0, 1], what it expects.
    """

    name: str = "vitl16"
    patch: int = 16
    heads: SelfDistillationConfig | None = None
    ibot: bool = False
    patches: tuple[int, ...] = (16,)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Start:
    """A trained backbone to go on from. kind: as in the family table; size: side in pixels at which it reads pictures;
    mean, std: of RGB in [0, 1], what it expects.
    """

    name: str = "vits16"
    kind: str = "vit"
    patch: int = 16
    num_layers: int = 12
    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Situation:
    """images: pictures to learn from; short_side_px: their median short side; steps: 0 while not known yet (a budget in
    minutes, before the speed is measured); device: "cpu", "cuda" or "mps"; model: a family member asked for by name;
    teacher: of a distillation; before: of the run that a stage goes on from; start: of an adaptation; lora: rank of its
    low-rank changes, 0 for all weights.
    """

    images: int
    short_side_px: int
    steps: int
    device: str
    model: str | None = None
    teacher: TeacherFacts | None = None
    before: RunConfig | None = None
    start: Start | None = None
    lora: int = 0
