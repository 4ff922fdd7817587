"""Ends a process whose decoder does not come to an end, and tells its parent at which picture that was."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from opendino.data.images import PATIENCE_S, limited_time


class Watch:
    """Made by a parent for one child process, which uses `at`; the parent looks when the child has died.

    The limit is that of `images.limited_time`.
    """

    def __init__(self, patience_s: int = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._place = multiprocessing.RawValue("q", -1)
        self._said, self._say = multiprocessing.Pipe(duplex=False)
        self._ready = False

    @property
    def place(self) -> int | None:
        """The picture that the child is at, or was at when it died; None between pictures."""
        return None if self._place.value < 0 else int(self._place.value)

    @property
    def too_slow(self) -> bool:
        """Whether the child ended because its picture took too long."""
        return self._said.poll()

    @contextmanager
    def at(self, index: int) -> Iterator[None]:
        """Around the reading of picture `index`, in the child."""
        if not self._ready:
            # The handler is C code, so it runs inside of any decoder; then the signal ends the process as it would.
            faulthandler.register(signal.SIGXCPU, file=self._say.fileno(), all_threads=False, chain=True)
            self._ready = True
        self._place.value = index
        try:
            with limited_time(self._patience_s):
                yield
        finally:
            self._place.value = -1
