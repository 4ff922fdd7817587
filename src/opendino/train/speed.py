"""How fast a run trains, whatever else it does in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

WINDOW = 50


class Speed:
    """Images per second over the last 50 steps; time inside `paused` blocks does not count."""

    def __init__(self) -> None:
        self._seen = 0
        self._marks = deque([(time.monotonic(), 0)], maxlen=WINDOW)

    def after(self, images: int) -> float:
        """Images per second, now that a step with so many images is done."""
        self._seen += images
        self._marks.append((time.monotonic(), self._seen))
        (first, before), (last, now) = self._marks[0], self._marks[-1]
        return (now - before) / max(last - first, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent looking is not training time."""
        began = time.monotonic()
        yield
        pause = time.monotonic() - began
        self._marks = deque(((at + pause, seen) for at, seen in self._marks), maxlen=WINDOW)
