"""Jumps of loss or gradient norm, told from noise by the spread of the steps before."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

WINDOW, LIMIT, IN_A_ROW = 256, 8.0, 3
"""z above 8 for 3 steps: a median and its deviation over 256 steps do not move by one wild batch."""
ENOUGH = 32


class Spikes:
    """Robust z = (x - median) / (1.4826 MAD) over the last steps of one quantity."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: deque[float] = deque(maxlen=WINDOW)
        self._high = 0

    def push(self, value: float) -> str | None:
        """Take a step's value; words once, at the third high step in a row. Values that are not finite are left out."""
        if not math.isfinite(value):
            return None
        high = False
        if len(self._values) >= ENOUGH:
            middle = median(self._values)
            spread = 1.4826 * median(abs(one - middle) for one in self._values)
            high = value - middle > LIMIT * max(spread, 1e-6 * abs(middle))
        self._high = self._high + 1 if high else 0
        before = median(self._values) if self._values else value
        self._values.append(value)
        if self._high != IN_A_ROW:
            return None
        return (
            f"{self.name} jumped to {value:.3g} from about {before:.3g}: if it does not come back, remove the "
            "checkpoints since and run again with --allow and a lower --optim.lr"
        )
