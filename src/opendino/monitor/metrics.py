"""The numbers of a run: one JSON object a line, appended, cut back on resume so that no step is told twice."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_unwritable: set[Path] = set()


def append_or_warn(path: Path, row: Mapping[str, Any]) -> None:
    """`append_line` for a log that must never end what it tells of: a failure is said once for each file."""
    try:
        append_line(path, row)
    except OSError as error:
        if path not in _unwritable:
            _unwritable.add(path)
            logging.getLogger("opendino").warning(
                "%s: cannot be written (%s); training goes on without it", path, error.strerror
            )


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line and hand it to the system: it survives the death of the process.

    A last line that a power failure cut is removed first, so that lines stay whole.
    """
    line = json.dumps(plain(row), allow_nan=False, ensure_ascii=False) + "\n"
    with open(path, "ab+") as file:
        size = file.tell()
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode("utf-8", errors="backslashreplace"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file that may still be written to; a cut last line is left out, a missing file is empty."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def plain(value: Any) -> Any:
    """JSON values only: one-element tensors and arrays become numbers, and what is not finite becomes null, since
    readers of JSON refuse NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class MetricsLog:
    """Writer and reader of metrics.jsonl. Rows are {"kind", "step", ...}.

    Kinds: step, health, knn, picture, drift (dense features), protocol, sizes (dense features by input size).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, step: int, **values: Any) -> None:
        """Write a row; values that are not finite become null."""
        append_or_warn(self.path, {"kind": kind, "step": step, **values})

    @property
    def offset(self) -> int:
        """Bytes written so far: what a checkpoint keeps."""
        return self.path.stat().st_size if self.path.exists() else 0

    def truncate(self, offset: int) -> None:
        """Cut back to `offset` bytes of an earlier moment; a file that is shorter stays as it is."""
        if offset < self.offset:
            with open(self.path, "r+b") as file:
                file.truncate(offset)

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return read_rows(self.path)
