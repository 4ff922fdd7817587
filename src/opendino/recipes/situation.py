"""What a recipe is told: the pictures, the budget, the machine, and what it starts from."""

from __future__ import annotations

from dataclasses import dataclass


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
    start: the backbone to go on from, None to begin at random; lora: rank of its low-rank changes, 0 for all weights.
    """

    images: int
    short_side_px: int
    steps: int
    device: str
    model: str | None = None
    start: Start | None = None
    lora: int = 0
