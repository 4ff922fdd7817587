"""Which units of a data set are scored: an even part of them, and a hash that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from opendino.errors import DataError

T = TypeVar("T")


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the items, spread evenly over them."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, limit).round()]


def hash_ids(ids: Sequence[str]) -> str:
    """SHA-256 of names in order: which units were scored."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()


def require_one_set(root: Path) -> None:
    """Raise DataError for a folder of data sets, whose folders hold train and val themselves and are no classes."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []
    if sets := [path.name for path in folders if (path / "train").is_dir() and (path / "val").is_dir()]:
        raise DataError(root, f"holds data sets ({', '.join(sets[:3])}) and no classes", "give one of them")
