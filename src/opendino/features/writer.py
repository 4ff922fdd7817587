"""Rows to the store, several chunks in one version when they come fast, each chunk whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from opendino.features.encode import Made
from opendino.features.info import StoreInfo
from opendino.features.mend import compact, prune
from opendino.features.rows import find_lance, open_rows, read_skipped, schema_of, write_skipped
from opendino.features.seal import ROWS, seal
from opendino.files import fault_point

COMMIT_SECONDS, COMMIT_SHARE = 5.0, 0.01
"""Rows are written when the last write is this long ago and this share of the run so far: a kill loses no more."""
COMPACT_FRAGMENTS = 64
"""A store of more pieces than this is joined at the end of a run; rows keep their order."""


class Writer:
    """Appends chunks to the store, several in one version when they come fast."""

    def __init__(self, path: Path, info: StoreInfo) -> None:
        self._path, self._schema = path, schema_of(info)
        self._rows: list[dict[str, Any]] = []
        self._skipped = {entry["id"]: entry for entry in read_skipped(path)}
        self._begun = self._written = time.monotonic()

    @property
    def num_skipped(self) -> int:
        """Pictures without a row so far."""
        return len(self._skipped)

    def add(self, made: Made) -> None:
        """Take a chunk; it is on disk after the next write at the latest."""
        self._rows += made.rows
        for row in made.rows:
            self._skipped.pop(row["picture"], None)
        for failed in made.failed:
            self._skipped[failed.id] = {"id": failed.id, "reason": failed.reason, "stamp": failed.stamp}
        now = time.monotonic()
        if now - self._written > max(COMMIT_SECONDS, COMMIT_SHARE * (now - self._begun)):
            self._write()

    def finish(self, only_newest: bool) -> None:
        """Write what is left, and join the pieces of many writes, or prune what is no part of the newest version."""
        self._write()
        if only_newest:
            prune(self._path)
        elif len(open_rows(self._path).get_fragments()) > COMPACT_FRAGMENTS:
            compact(self._path)

    def _write(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = [pa.array([row.get(f.name) for row in self._rows], f.type) for f in self._schema]
            table = pa.Table.from_arrays(columns, schema=self._schema)
            fault_point("store.append")
            find_lance().write_dataset(table, str(self._path / ROWS), mode="append")
            fault_point("store.appended")
            seal(self._path)
        write_skipped(self._path, list(self._skipped.values()))
        self._rows, self._written = [], time.monotonic()
