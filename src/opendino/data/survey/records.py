"""What a survey has seen, on disk: one SQLite row a picture, so that memory stays flat and a killed survey goes on."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from opendino.data.survey.measure import Measured
from opendino.errors import OpendinoError

FORMAT = 3
"""Raised with every change of what is measured: rows of another format are measured again."""
_FIELDS = [field.name for field in dataclasses.fields(Measured)]
_AS_JSON = ("mean", "square", "bands", "suspicions", "notes")


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
            self._db.create_function("stem", 1, _stem, deterministic=True)
            self._db.create_function("folder", 1, _folder, deterministic=True)
            self._db.execute("CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT)")
            about = json.dumps([FORMAT, key])
            if self._db.execute("SELECT value FROM about WHERE key='made'").fetchone() != (about,):
                with self._db:
                    self._db.execute("DROP TABLE IF EXISTS pictures")
                    self._db.execute(f"CREATE TABLE pictures ({', '.join(_FIELDS)}, PRIMARY KEY (id)) WITHOUT ROWID")
                    self._db.execute("CREATE INDEX by_digest ON pictures (digest)")
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

    def mark_masks(self) -> None:
        """Give the reason `mask` to flat pictures that have the name and size of another picture, and to no others.

        In another folder at least half of the pictures must be such: classes, too, may number their pictures alike.
        """
        with self._db:
            self._db.execute("UPDATE pictures SET reason = '', cause = '' WHERE reason = 'mask'")
            if self._db.execute("SELECT 1 FROM pictures WHERE reason = '' AND flat LIMIT 1").fetchone() is None:
                return
            for statement in _MARK_MASKS:
                self._db.execute(statement)

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


MAX_PARTNERS = 50
"""A name that more pictures share says nothing about whose mask one of them is."""
_LABEL_WORDS = re.compile(
    r"[-_. ](masks?|labels?|seg|segm|segmentation|gt|ground_?truth|anno|annotations?|l|gtfine_\w+|gtcoarse_\w+"
    r"|leftimg8bit|image|img|rgb|sat)$"
)
_PLACE = "id, stem(id) AS stem, folder(id) AS folder, height, width FROM pictures WHERE reason = ''"
_MARK_MASKS = (
    f"CREATE TEMP TABLE flat AS SELECT {_PLACE} AND flat",
    f"CREATE TEMP TABLE fuller AS SELECT {_PLACE} AND NOT flat",
    "DELETE FROM fuller WHERE (stem, height, width) IN "
    f"(SELECT stem, height, width FROM fuller GROUP BY 1, 2, 3 HAVING count(*) > {MAX_PARTNERS})",
    "CREATE TEMP TABLE pair AS SELECT flat.id, flat.folder, fuller.folder AS beside, min(fuller.id) AS picture "
    "FROM flat JOIN fuller USING (stem, height, width) GROUP BY flat.id, beside",
    "CREATE TEMP TABLE whole AS SELECT folder, count(*) AS count FROM "
    "(SELECT folder FROM flat UNION ALL SELECT folder(id) FROM pictures WHERE reason = '' AND NOT flat) GROUP BY 1",
    "CREATE TEMP TABLE mask AS SELECT pair.id, min(pair.picture) AS picture FROM pair JOIN "
    "(SELECT folder, beside, count(*) AS count FROM pair GROUP BY 1, 2) AS both USING (folder, beside) JOIN whole "
    "USING (folder) WHERE folder = beside OR 2 * both.count >= whole.count GROUP BY pair.id",
    "UPDATE pictures SET reason = 'mask', cause = 'mask of ' || mask.picture FROM mask WHERE mask.id = pictures.id",
    *(f"DROP TABLE {name}" for name in ("flat", "fuller", "pair", "whole", "mask")),
)


def _folder(id: str) -> str:
    return id.rpartition("/")[0]


def _stem(id: str) -> str:
    """What a mask's name has in common with its picture's: no folder, ending, or word for what it is; lower case."""
    base = id.rpartition("/")[2].lower()
    name = base.rpartition(".")[0] or base
    return _LABEL_WORDS.sub("", name) or name


def _pack(row: Measured) -> tuple[Any, ...]:
    return tuple(json.dumps(getattr(row, name)) if name in _AS_JSON else getattr(row, name) for name in _FIELDS)


def _unpack(row: tuple[Any, ...]) -> Measured:
    values = dict(zip(_FIELDS, row, strict=True))
    for name in _AS_JSON:
        values[name] = tuple(json.loads(values[name]))
    values["bands"] = tuple(map(tuple, values["bands"]))
    for name in ("grey", "flat"):
        values[name] = bool(values[name])
    return Measured(**values)
