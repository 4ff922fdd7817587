"""The bytes of a picture file: only regular files, never a hang, storage errors tried again."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

from opendino.data.images.errors import Denied, IOFault, NotAnImage, TooLarge, Vanished
from opendino.data.images.kinds import HEAD_BYTES, require_kind
from opendino.data.images.picture import MAX_FILE_BYTES

# Errors of network storage that pass by themselves.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EINTR}
_TRIES = 5


def load_file(path: Path, name: str) -> bytes:
    """Read a picture file whole, after a look at its first bytes.

    Raises:
        Empty, NotAnImage, Unsupported, TooLarge: before more than its head is read. Denied, Vanished, IOFault.
    """
    for attempt in range(_TRIES):
        try:
            return _load(path, name)
        except (FileNotFoundError, NotADirectoryError):
            raise Vanished(name, "no such file") from None
        except PermissionError:
            raise Denied(name, "no permission to read it", "change its rights or leave it out") from None
        except OSError as error:
            if error.errno not in _PASSING or attempt == _TRIES - 1:
                cause = error.strerror or str(error)
                raise IOFault(name, f"cannot be read ({cause})", "check the storage and start again") from None
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _load(path: Path, name: str) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotAnImage(name, "not a regular file")
    # Between the two looks the file may have become a pipe: O_NONBLOCK keeps the opening from waiting for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAnImage(name, "not a regular file")
        head = file.read(HEAD_BYTES)
        require_kind(head, name)
        if status.st_size > MAX_FILE_BYTES:
            raise TooLarge(name, f"file of {status.st_size} bytes, at most {MAX_FILE_BYTES} are read at once")
        return head + file.read(MAX_FILE_BYTES)
