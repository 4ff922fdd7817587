"""What a recipe is told: the pictures, the budget, the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """images: pictures to learn from; short_side_px: their median short side; steps: 0 while not known yet (a budget in
    minutes, before the speed is measured); device: "cpu", "cuda" or "mps"; model: a family member asked for by name.
    """

    images: int
    short_side_px: int
    steps: int
    device: str
    model: str | None = None
