"""How published learning rates follow the batch."""

from __future__ import annotations


def root_scaled(lr: float, batch: int) -> float:
    """The rate that a published one stands for at so many pictures: times 4 sqrt(batch / 1024)."""
    return float(lr * 4 * (batch / 1024) ** 0.5)
