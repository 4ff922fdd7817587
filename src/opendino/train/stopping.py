"""Stopping on request: the first signal asks, the second one insists; USR2 asks for a checkpoint alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """`asked` names the signal that came, "" while none did; `save`: a checkpoint is wanted, the run goes on."""

    def __init__(self) -> None:
        self.asked = ""
        self.save = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR2:
            self.save = True
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen for Ctrl-C, TERM, USR1 (schedulers send it before the end) and USR2 during the block."""
    request = StopRequest()
    previous = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
