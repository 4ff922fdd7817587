"""Taking out of a store what is damaged or deleted, and joining the pieces of many writes."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from opendino.errors import DataError
from opendino.features.info import StoreInfo
from opendino.features.rows import create_rows, find_lance, open_rows
from opendino.features.seal import ROWS, find_damage, find_fault, manifest_of, read_sums, seal
from opendino.files import fault_point


def mend(path: Path, info: StoreInfo) -> list[str]:
    """Take damaged files out of the newest version, so that their pictures are embedded anew; says which.

    A damaged list of files takes its version away: the one before becomes the newest.
    """
    said, sums = [], read_sums(path)
    while (manifest := manifest_of(path)) and (fault := find_fault(path, manifest, sums)):
        said.append(f"{manifest.relative_to(path)} {fault}")
        manifest.unlink()
        (manifest.parent / "latest_version_hint.json").unlink(missing_ok=True)
    if manifest is None:
        shutil.rmtree(path / ROWS, ignore_errors=True)
        create_rows(path, info)
        return said
    rows = open_rows(path)
    damaged = find_damage(path, rows)
    if damaged:
        lance = find_lance()
        operation = lance.LanceOperation.Delete([], list(damaged), "damaged")
        lance.LanceDataset.commit(str(path / ROWS), operation, read_version=rows.version)
    said += [f"{one.file} {one.reason}" for one in damaged.values()]
    seal(path)
    return said


def compact(path: Path, *, all_deleted: bool = False) -> None:
    """Join small pieces; rows keep their order, earlier versions theirs.

    Args:
        all_deleted: also write pieces anew that hold but one deleted row.
    Raises:
        DataError: a piece is damaged; joining would hide that.
    """
    rows = open_rows(path)
    for one in find_damage(path, rows).values():
        cause = f"{one.reason}, {one.rows[1] - one.rows[0] + 1} rows are lost"
        raise DataError(path / one.file, cause, "the same embed command with --verify makes them anew")
    fault_point("store.compact")
    rows.optimize.compact_files(**({"materialize_deletions_threshold": 0.0} if all_deleted else {}))
    seal(path)


def prune(path: Path) -> None:
    """Leave nothing on the disk but the newest version: deleted rows and earlier versions are gone for good."""
    compact(path, all_deleted=True)
    # Unverified: files of writes that were killed; the lock says that no write is under way.
    open_rows(path).cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
    seal(path)
