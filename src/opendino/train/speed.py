"""How fast a run trains, whatever else it does in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

WINDOW = 50


class Speed:
    """Images per second over the last 50 steps; time inside `paused` blocks does not count."""

    def __init__(self, batch_size: int, step: int) -> None:
        self._batch_size = batch_size
        self._marks = deque([(time.monotonic(), step)], maxlen=WINDOW)

    def after(self, step: int) -> float:
        """Images per second, now that `step` steps are done."""
        self._marks.append((time.monotonic(), step))
        (first, before), (last, now) = self._marks[0], self._marks[-1]
        return (now - before) * self._batch_size / max(last - first, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent looking is not training time."""
        began = time.monotonic()
        yield
        pause = time.monotonic() - began
        self._marks = deque(((at + pause, step) for at, step in self._marks), maxlen=WINDOW)
