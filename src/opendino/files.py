"""The only place that makes files durable: atomic writes, whole-directory commits, hashes, and the lock of a run.

A file or directory with its final name is complete. `OPENDINO_FAULT="name:n=SIGKILL"` (or `=ENOSPC`) makes the n-th
passage of a named point fail; it exists for `tests/faults/` and does nothing unless set.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from opendino.errors import DataError, OpendinoError, UsageError

_passages: Counter[str] = Counter()

_held_locks: set[int] = set()


def _drop_inherited_locks() -> None:
    # A loader worker is a fork: with the descriptor it would inherit the lock and hold it after its trainer was killed.
    for descriptor in _held_locks:
        os.close(descriptor)
    _held_locks.clear()


os.register_at_fork(after_in_child=_drop_inherited_locks)


def fault_point(name: str) -> None:
    """Fail here if OPENDINO_FAULT names this point and passage; see the module docstring."""
    spec = os.environ.get("OPENDINO_FAULT")
    if not spec:
        return
    where, _, action = spec.partition("=")
    point, _, nth = where.partition(":")
    if point != name:
        return
    _passages[name] += 1
    if _passages[name] != int(nth or 1):
        return
    if action.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, action))
    else:
        number = getattr(errno, action)
        raise OSError(number, os.strerror(number))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, also after a crash."""
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            fault_point("file.write")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _fsync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON; NaN is refused since other readers refuse it."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises DataError naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, f"not JSON ({error})") from None


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sha256_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def commit_directory(final: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes `final` with a MANIFEST.json of sizes and hashes.

    Order: every file fsynced, manifest written and fsynced, rename, parent fsynced; so `final` exists only complete.
    On any error the temporary folder is removed and `final` stays as it was. An existing `final` is never overwritten.
    """
    if final.exists():
        raise OpendinoError(final, "exists already", "it is never overwritten; remove it first")
    temporary = final.with_name(f"{final.name}.tmp-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        fault_point("commit.before_fsync")
        entries = {}
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            _fsync(file)
            entries[file.relative_to(temporary).as_posix()] = {"size": file.stat().st_size, "sha256": sha256_file(file)}
        fault_point("commit.before_manifest")
        content = {"format": 1, **manifest, "files": entries}
        write_json(temporary / "MANIFEST.json", {**content, "sha256": _sha256_json(content)})
        fault_point("commit.before_rename")
        os.rename(temporary, final)
        fault_point("commit.after_rename")
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(final.parent)


def check_directory(folder: Path) -> str | None:
    """None when a committed folder is whole; else what is wrong with it, in words."""
    try:
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        entries, digest = manifest["files"], manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "MANIFEST.json is missing or cut"
    if digest != _sha256_json(manifest):
        return "MANIFEST.json differs from what was written (hash)"
    for name, entry in entries.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["size"]:
            return f"{name} has {file.stat().st_size} bytes, {entry['size']} were written"
        if sha256_file(file) != entry["sha256"]:
            return f"{name} differs from what was written (hash)"
    return None


def sweep_temporary(folder: Path) -> None:
    """Remove what a killed writer left behind in `folder`. Call only while holding the run's lock."""
    for leftover in folder.glob("*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file of a directory; released by the system when the process dies.

    Raises UsageError naming the holder when another process has it.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UsageError(path.parent, f"in use by {holder}", "wait for it, or choose another --out") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _held_locks.add(file.fileno())
        try:
            yield
        finally:
            _held_locks.discard(file.fileno())


def free_bytes(path: Path) -> int:
    """Free space of the file system that holds `path` (which need not exist yet)."""
    return shutil.disk_usage(_nearest(path)).free


def point_near(path: Path) -> str:
    """In words, for a path that does not exist: the one that was probably meant, else the nearest folder above it."""
    parent = _nearest(path)
    rest = path.relative_to(parent).parts
    try:
        meant = difflib.get_close_matches(rest[0], os.listdir(parent), n=1)
    except (OSError, IndexError):
        meant = []
    return (
        f"did you mean {parent.joinpath(meant[0], *rest[1:])}?"
        if meant
        else f"the nearest that exists is {parent.absolute()}"
    )


def _nearest(path: Path) -> Path:
    """The path itself or the first above it that exists."""
    return next((one for one in (path, *path.parents) if os.path.exists(one)), Path())
