"""Decoding in a process of its own, which can be ended: for kinds whose decoders may take any time or crash.

Used where nothing else limits this process; workers that read for `check` and `pretrain` are limited by
`opendino.data.watch` and decode everything themselves. `serve` is what the other process runs.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from opendino.data.images.errors import Crashed, ImageError, TooSlow
from opendino.data.images.picture import Image, Reading
from opendino.data.images.tone import Values

PATIENCE_S = 10
"""Seconds of computing that one picture may take."""
_LENGTH_BYTES = 8
_CODE = f"from {__name__} import serve; serve()"
_here = threading.local()
_limited = False


def too_slow(name: str) -> TooSlow:
    """The error of a picture whose decoder was ended."""
    return TooSlow(name, f"its decoder was stopped after {PATIENCE_S} s", "save it again in another format")


def crashed(name: str) -> Crashed:
    """The error of a picture whose decoder ended its process."""
    return Crashed(name, "its decoder crashes or needs more memory than there is")


def is_limited() -> bool:
    """Whether this process ends by itself when it computes for too long."""
    return _limited


@contextmanager
def limited_time(patience_s: int = PATIENCE_S) -> Iterator[None]:
    """End this process (SIGXCPU) when it computes for so many whole seconds inside, or for up to one more.

    The system keeps the limit: it also ends a decoder that never returns to Python, and neither a busy machine nor slow
    storage uses it up.
    """
    global _limited
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + patience_s + 1, hard))
    _limited = True
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        _limited = False


def read_apart(data: bytes, name: str, reading: Reading) -> Image | Values:
    """`read_stored` by a process beside this one: each thread has one, which serves it as long as it lives.

    Raises ImageError: what `read_stored` raises, TooSlow after PATIENCE_S of computing, Crashed.
    """
    child: _Child | None = getattr(_here, "child", None)
    if child is None or child.parent != os.getpid():  # after a fork the pipes are the parent's
        child = _Child()
    _here.child = None  # what an interrupted question is answered with must meet no other
    answer = child.ask((data, name, reading))
    if answer is None:
        raise too_slow(name) if child.end() == -signal.SIGXCPU else crashed(name)
    _here.child = child
    if isinstance(answer, ImageError):
        raise answer
    return answer


class _Child:
    """The process beside: pickles of questions in, of answers out, each after its length."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        # The modules that this process uses, whatever lies in the working directory. A session of its own: Ctrl-C is
        # for the parent, whose end closes the pipe and so ends the child.
        own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", _CODE]
        self._process = subprocess.Popen(
            command,
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        weakref.finalize(self, self._process.stdin.close)  # a running process is kept, with its pipes, by its module

    def ask(self, question: Any) -> Image | Values | ImageError | None:
        """The answer, or None when the process has ended."""
        with suppress(BrokenPipeError, EOFError):
            _send(self._process.stdin, question)
            answer: Image | Values | ImageError = _receive(self._process.stdout)
            return answer
        return None

    def end(self) -> int:
        """The exit status."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        return self._process.wait()


def serve() -> None:
    """The child: answers until the pipe is closed."""
    from opendino.data.images.read import read_stored

    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        try:
            data, name, reading = _receive(source)
        except EOFError:
            return
        answer: Any
        with limited_time():
            try:
                answer = read_stored(data, name, reading)
            except ImageError as error:
                answer = error
        _send(target, answer)


def _send(pipe: Any, what: Any) -> None:
    content = pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(len(content).to_bytes(_LENGTH_BYTES, "little"))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: Any) -> Any:
    length = int.from_bytes(_exactly(pipe, _LENGTH_BYTES), "little")
    return pickle.loads(_exactly(pipe, length))


def _exactly(pipe: Any, count: int) -> bytes:
    content: bytes = pipe.read(count)
    if len(content) < count:
        raise EOFError
    return content
