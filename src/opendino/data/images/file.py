"""The bytes of a picture file: only regular files, never a hang, storage errors tried again."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from opendino.data.images.errors import Denied, IOFault, NotAnImage, TooLarge, Vanished
from opendino.data.images.kinds import HEAD_BYTES, require_kind
from opendino.data.images.picture import MAX_FILE_BYTES
from opendino.files import point_near

# Errors of network storage that pass by themselves.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EINTR}
TRIES = 6
_Result = TypeVar("_Result")


def patiently(action: Callable[[], _Result]) -> _Result:
    """The result of an action on storage, tried five times more, in about 3 s, after errors that pass by themselves."""
    for attempt in range(TRIES - 1):
        try:
            return action()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            # Many processes that met one failure must not all come back at the same moment.
            time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1.5))
    return action()


def load_file(path: Path, name: str | None = None) -> bytes:
    """Read a picture file whole, after a look at its first bytes.

    Args:
        name: what errors call it. None: the path, which a person gave, so that it may be mistyped.
    Raises:
        Empty, NotAnImage, Unsupported, TooLarge: before more than its head is read. Denied, Vanished, IOFault.
    """
    if name is None:
        name = str(path)
        _require_file(path, name)
    with typed_storage_errors(name, "file"):
        return patiently(lambda: _load(path, name))


def _require_file(path: Path, name: str) -> None:
    with typed_storage_errors(name, "file"):
        if patiently(path.is_dir):
            raise NotAnImage(name, "is a folder, and one picture is needed", "give a file in it")
        if not patiently(lambda: os.path.lexists(path)):
            raise Vanished(name, "no such file", point_near(path))


@contextmanager
def typed_storage_errors(name: str, what: str) -> Iterator[None]:
    """OSError becomes Vanished, Denied or IOFault. `what` holds the picture: "file" or "tar"."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise Vanished(name, f"its {what} is no longer there") from None
    except PermissionError:
        raise Denied(name, f"no permission to read its {what}", "change its rights or leave it out") from None
    except OSError as error:
        cause = f"its {what} cannot be read ({error.strerror or error})"
        raise IOFault(name, cause, "check the storage and start again") from None


def _load(path: Path, name: str) -> bytes:
    with open_file(path, name) as file:
        head = file.read(HEAD_BYTES)
        require_kind(head, name)
        return head + read_rest(file, len(head), name)


def read_rest(file: BinaryIO, start: int, name: str) -> bytes:
    """What follows byte `start` of an open file. Raises TooLarge for a file of more than MAX_FILE_BYTES."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_FILE_BYTES:
        fix = "cut it into tiles, or read it by window (TIFF)"
        raise TooLarge(name, f"file of {size} bytes, at most {MAX_FILE_BYTES} are read at once", fix)
    file.seek(start)
    return file.read(MAX_FILE_BYTES)


@contextmanager
def open_file(path: Path, name: str) -> Iterator[BinaryIO]:
    """A regular file for reading. Raises NotAnImage for anything else, which is never waited for, and OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotAnImage(name, "not a regular file")
    # Between the two looks the file may have become a pipe: O_NONBLOCK keeps the opening from waiting for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotAnImage(name, "not a regular file")
        yield file
