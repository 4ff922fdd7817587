"""What a recipe is told: the pictures, the budget, the machine, and what comes before."""

from __future__ import annotations

from dataclasses import dataclass

from opendino.train.config import RunConfig


@dataclass(frozen=True)
class Situation:
    """images: pictures to learn from; short_side_px: their median short side; steps: 0 while not known yet (a budget in
    minutes, before the speed is measured); device: "cpu", "cuda" or "mps"; model: a family member asked for by name;
    before: of the run that a stage goes on from.
    """

    images: int
    short_side_px: int
    steps: int
    device: str
    model: str | None = None
    before: RunConfig | None = None
