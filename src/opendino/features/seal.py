"""Hashes of a store's row files: Lance reads flipped bits as numbers, so what it wrote is hashed here and compared.

STORE/sums.json holds size and SHA-256 of each file that carries rows. A file is added after it was written; one that a
killed run wrote is added by the next run. A file without an entry counts as whole: it is younger than the last entry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendino.errors import DataError
from opendino.files import read_json, sha256_file, write_json

ROWS, BASIS, SUMS = "rows.lance", "pca.safetensors", "sums.json"
_KINDS = (f"{ROWS}/data/*", f"{ROWS}/_deletions/*", f"{ROWS}/_versions/*.manifest", BASIS)


@dataclass(frozen=True)
class Damage:
    """A file of rows that is not what was written. rows: first and last place of the rows that it takes away."""

    file: str
    reason: str
    rows: tuple[int, int]


def seal(store: Path) -> None:
    """Hash what has no entry yet, forget what is gone. Call after each write, while holding the store's lock."""
    known = read_sums(store)
    files = {str(file.relative_to(store)): file for kind in _KINDS for file in sorted(store.glob(kind))}
    sums = {name: known.get(name) or [file.stat().st_size, sha256_file(file)] for name, file in files.items()}
    if sums != known:
        write_json(store / SUMS, {"files": sums, "sha256": _digest(sums)})


def read_sums(store: Path) -> dict[str, Any]:
    """Size and hash by file, {} where nothing was sealed. Raises DataError when the list itself is damaged."""
    if not (store / SUMS).is_file():
        return {}
    told = read_json(store / SUMS)
    if not isinstance(told, dict) or told.get("sha256") != _digest(told.get("files")):
        fix = "remove it and run the embed command again: it is made anew from the files as they are"
        raise DataError(store / SUMS, "differs from what was written", fix)
    return dict(told["files"])


def find_fault(store: Path, file: Path, sums: dict[str, Any]) -> str | None:
    """What is wrong with a file, in words, or None."""
    if not file.is_file():
        return "is missing"
    entry = sums.get(str(file.relative_to(store)))
    if entry is None:
        return None
    if file.stat().st_size != entry[0]:
        return f"has {file.stat().st_size} bytes, {entry[0]} were written"
    return None if sha256_file(file) == entry[1] else "differs from what was written"


def manifest_of(store: Path, version: int | None = None) -> Path | None:
    """The file of a version, or of the newest one; Lance counts their names down."""
    versions = store / ROWS / "_versions"
    if version is None:
        return min(versions.glob("*.manifest"), default=None)
    return versions / f"{2**64 - 1 - version:020}.manifest"


def find_damage(store: Path, rows: Any) -> dict[int, Damage]:
    """Compare every file of an open version: what is damaged, by number of the fragment."""
    sums, found, place = read_sums(store), {}, 0
    for fragment in rows.get_fragments():
        told = fragment.metadata
        names = [f"data/{one.path}" for one in told.files]
        if told.deletion_file is not None:
            names.append(told.deletion_file.path(fragment.fragment_id))
        for name in names:
            fault = find_fault(store, store / ROWS / name, sums)
            if fault:
                places = (place, place + told.num_rows - 1)
                found[fragment.fragment_id] = Damage(f"{ROWS}/{name}", fault, places)
                break
        place += told.num_rows
    return found


def _digest(sums: Any) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
