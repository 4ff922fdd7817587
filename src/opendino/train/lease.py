"""Who trains in a run directory, told across machines: a file with host, process and a heartbeat.

The lock of `files.exclusive` decides on one machine and dies with its process. A shared file system need not pass it on
to other machines: there the lease decides. Ages are told by the clock of the file system, so that a wrong or jumping
clock of one machine changes nothing.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from opendino.errors import OpendinoError, UsageError

HEARTBEAT_S = 30.0
STALE_S = 600.0
"""A lease of another host that was not renewed for so long may be taken over when the user says so."""


class Lease:
    """A lease that is held: renewed by a thread until the block of `hold_lease` ends."""

    def __init__(self, path: Path, token: str) -> None:
        self.path, self._token = path, token

    def create(self) -> None:
        """Write the file. Raises UsageError when another trainer did so a moment before."""
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot_id(), "started": started}
        try:
            with open(self.path, "x") as file:
                json.dump({**said, "token": self._token}, file)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            cause = f"in use by {_in_words(_read(self.path) or {})}"
            raise UsageError(self.path.parent, cause, "wait for it, or choose another --out") from None

    def check(self) -> None:
        """Raise OpendinoError when another trainer has taken the directory over: nothing may be written any more."""
        holder = _read(self.path)
        if holder is None or holder.get("token") != self._token:
            cause = f"was taken over by {_in_words(holder or {})}"
            raise OpendinoError(self.path.parent, cause, "this trainer stops and writes nothing more")

    def renew(self) -> None:
        """Say that the holder lives. A missed renewal is no harm: the next one comes in half a minute."""
        with suppress(OSError, OpendinoError):
            self.check()
            os.utime(self.path)


@contextmanager
def hold_lease(path: Path, *, take_over: bool = False) -> Iterator[Lease]:
    """Hold the lease file of a directory. Call only while holding its lock.

    A lease that this machine left, before or since its last start, is of a dead process (the lock would be held) and is
    replaced. One of another host is refused while its heartbeat is young, and replaced when old only with `take_over`.

    Raises:
        UsageError: another host holds it; names host, process and the age of the heartbeat.
    """
    holder = _read(path)
    if holder is not None:
        here = holder.get("host") == socket.gethostname() or (_boot_id() and holder.get("boot") == _boot_id())
        if not here:
            _refuse_unless_stale(path, holder, take_over)
        # Of two that take over at once one renames, and one creates.
        with suppress(FileNotFoundError):
            os.rename(path, doomed := path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}"))
            doomed.unlink()
    lease = Lease(path, uuid.uuid4().hex)
    lease.create()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_S):
            lease.renew()

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join()
        with suppress(OSError, OpendinoError):
            lease.check()
            path.unlink()


def _refuse_unless_stale(path: Path, holder: dict[str, Any], take_over: bool) -> None:
    age = _age_s(path)
    if age < STALE_S:
        cause = f"in use by {_in_words(holder)}, which was heard of {age:.0f} s ago"
        raise UsageError(path.parent, cause, "wait for it, or choose another --out")
    if not take_over:
        cause = f"held by {_in_words(holder)}, which was not heard of for {age / 60:.0f} min"
        raise UsageError(path.parent, cause, "if it is dead, add --take-over")


def _age_s(path: Path) -> float:
    """Seconds since the last heartbeat, both ends told by the file system's clock."""
    probe = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """The holder; None without a lease. One that cannot be understood counts as one of an unknown host."""
    try:
        holder = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        holder = {}
    return holder if isinstance(holder, dict) else {}


def _in_words(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"


def _boot_id() -> str:
    """Differs between two starts of one machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
