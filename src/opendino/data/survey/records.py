"""What a survey has seen, on disk: one SQLite row a picture, so that memory stays flat and a killed survey goes on."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from opendino.data.survey.measure import Measured
from opendino.errors import OpendinoError

FORMAT = 2
"""Raised with every change of what is measured: rows of another format are measured again."""
_FIELDS = [field.name for field in dataclasses.fields(Measured)]
_AS_JSON = ("mean", "square", "suspicions", "notes")


class Records:
    """Rows of a survey. One process writes; what `add` returned from survives a kill."""

    def __init__(self, path: Path, key: str) -> None:
        """Open or make the file. `key` says how pictures were read: with another one all is measured again.

        Raises:
            OpendinoError: the file is none of ours or cannot be written.
        """
        try:
            self._db = sqlite3.connect(path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA cache_size=-16000")
            self._db.execute("CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT)")
            self._db.execute(
                f"CREATE TABLE IF NOT EXISTS pictures ({', '.join(_FIELDS)}, PRIMARY KEY (id)) WITHOUT ROWID"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS by_digest ON pictures (digest)")
            about = json.dumps([FORMAT, key])
            if self._db.execute("SELECT value FROM about WHERE key='made'").fetchone() != (about,):
                with self._db:
                    self._db.execute("DELETE FROM pictures")
                    self._db.execute("REPLACE INTO about VALUES ('made', ?)", (about,))
        except sqlite3.Error as error:
            raise OpendinoError(path, f"cannot be used ({error})", "remove it or choose another --out") from None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def close(self) -> None:
        """Fold the journal into the file and close it."""
        self._db.close()

    def add(self, rows: Iterable[Measured]) -> None:
        """Keep rows, all or none of them; a row of the same id is replaced."""
        with self._db:
            self._db.executemany(
                f"REPLACE INTO pictures VALUES ({', '.join('?' * len(_FIELDS))})", [_pack(row) for row in rows]
            )

    def stamps(self, ids: list[str]) -> dict[str, tuple[int, int, int]]:
        """Size, time of change and label of those that are here."""
        marks = ", ".join("?" * len(ids))
        query = f"SELECT id, size, changed, label FROM pictures WHERE id IN ({marks})"
        return {id: (size, changed, label) for id, size, changed, label in self._db.execute(query, ids)}

    def keep_only(self, ids: Iterable[str]) -> None:
        """Drop the rows of pictures that are gone."""
        with self._db:
            self._db.execute("CREATE TEMP TABLE here (id TEXT PRIMARY KEY) WITHOUT ROWID")
            self._db.executemany("INSERT OR IGNORE INTO here VALUES (?)", ((id,) for id in ids))
            self._db.execute("DELETE FROM pictures WHERE id NOT IN (SELECT id FROM here)")
            self._db.execute("DROP TABLE here")

    def rows(self, where: str = "1", *values: Any, limit: int = -1) -> Iterator[Measured]:
        """Rows in the order of their ids."""
        query = f"SELECT * FROM pictures WHERE {where} ORDER BY id LIMIT ?"
        for row in self._db.execute(query, (*values, limit)):
            yield _unpack(row)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Answer of a query over the table `pictures`."""
        return self._db.execute(sql, values).fetchall()

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """`query`, row by row."""
        yield from self._db.execute(sql)


def _pack(row: Measured) -> tuple[Any, ...]:
    return tuple(json.dumps(getattr(row, name)) if name in _AS_JSON else getattr(row, name) for name in _FIELDS)


def _unpack(row: tuple[Any, ...]) -> Measured:
    values = dict(zip(_FIELDS, row, strict=True))
    for name in _AS_JSON:
        values[name] = tuple(json.loads(values[name]))
    values["grey"] = bool(values["grey"])
    return Measured(**values)
