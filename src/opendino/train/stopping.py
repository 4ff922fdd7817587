"""Stopping on request: the first signal asks and gives some time, the second one insists; USR2 asks to save."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from opendino.errors import StoppedError

_SIGNALS = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class _StopNow(KeyboardInterrupt):
    """The second signal came, or the time to stop in is over."""


class StopRequest:
    """`asked` names the signal that came, "" while none did; `saves` counts the checkpoints asked for meanwhile."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.asked = ""
        self.saves = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR2:
            self.saves += 1
            return
        if self.asked:
            raise _StopNow
        self.asked = signal.Signals(number).name
        if self.grace_s <= 0:
            raise _StopNow
        # No print: a handler may interrupt one. The line feed leaves the progress bar alone.
        os.write(2, b"\nstopping after this step and saving; once more stops at once, without saving\n")
        signal.setitimer(signal.ITIMER_REAL, self.grace_s)


@contextmanager
def stop_request(run: Path, grace_s: float) -> Iterator[StopRequest]:
    """Listen for Ctrl-C, TERM, USR1 (schedulers send it before the end) and USR2 during the block.

    The block has `grace_s` seconds from the first signal on to save and to raise StoppedError; after them, and at a
    second signal, StoppedError is raised here, wherever the block is. Outside the main thread no signal is heard.
    A block inside another one (heads that are fitted to score a run) shares its request, so both end.
    """
    outer = signal.getsignal(signal.SIGTERM)
    if isinstance(outer, StopRequest):
        yield outer
        return
    request = StopRequest(grace_s)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield request
    except _StopNow:
        cause = f"stopped by {request.asked} without saving"
        raise StoppedError(run, cause, "the same command goes on from the last checkpoint") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
