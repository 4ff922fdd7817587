"""The feature store as it is read: rows of pictures in Lance (embedded, versioned), opened at one version.

STORE/store.json   model, licence, card, transform, number type, drift, form of the patches
STORE/rows.lance   one row a picture (and a tile); any Lance, Arrow, pandas or DuckDB reader opens it
STORE/skipped.json pictures without a row, and why
STORE/pca.safetensors  for patches kept as PCA
STORE/sums.json    hashes of the files of rows; see `seal`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.sources import Skipped
from opendino.errors import DataError, UsageError
from opendino.features.info import StoreInfo, read_info
from opendino.features.rows import open_rows, quoted, read_codec, read_skipped, readable
from opendino.features.seal import Damage, find_damage
from opendino.files import point_near

VECTORS = ("cls", "mean")
_BLOCK_ROWS = 8192
_COMPARED_IDS = 10_000


@dataclass(frozen=True)
class Row:
    """Features of one picture or tile.

    id: of the row; picture: id of the picture; tile: "row,column", "" for the whole picture.
    box: y, x, height, width in pixels of the upright picture. width, height: of the picture in pixels.
    cls, mean: [D] float32; mean: of the patches that are no padding.
    patches: [h, w, D] float32 as they were kept; None when not asked for, and in tiles, whose merged map stands in the
    picture's row. valid: how many rows and columns of the grid are no padding.
    """

    id: str
    picture: str
    tile: str
    box: tuple[int, int, int, int]
    width: int
    height: int
    label: str | None
    source_hash: str
    cls: NDArray[np.float32]
    mean: NDArray[np.float32]
    valid: tuple[int, int]
    patches: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Version:
    """A state of the store that stays readable: its number, when it was made, how many rows it has."""

    number: int
    time: datetime
    rows: int


class Store:
    """A store opened at one version: what is written later changes nothing here. Made by `open_store`.

    damaged: files of rows that are left out, where verifying was asked for.
    """

    def __init__(self, path: Path, info: StoreInfo, rows: Any, damaged: Mapping[int, Damage]) -> None:
        self.path, self.info, self._rows = path, info, rows
        self.damaged = tuple(damaged.values())
        whole = [one for one in rows.get_fragments() if one.fragment_id not in damaged]
        self._fragments = whole if damaged else None

    @property
    def version(self) -> int:
        """Number of the version that is open."""
        return int(self._rows.version)

    def versions(self) -> list[Version]:
        """All versions up to the newest, oldest first."""
        return [
            Version(int(one["version"]), one["timestamp"], int(one["metadata"].get("total_rows", 0)))
            for one in self._rows.versions()
        ]

    def __len__(self) -> int:
        if self._fragments is None:
            return int(self._rows.count_rows())
        return sum(one.count_rows() for one in self._fragments)

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> Any:
        """Rows as a `pyarrow.Table` (`.to_pandas()`, `pyarrow.parquet.write_table(...)`), all columns or some.

        Args:
            where: a condition in SQL, such as "width > 1000 AND tile = ''".
        Raises:
            UsageError: no such column, with the nearest one; a condition that is none.
        """
        for name in columns or ():
            self._require_column(name, self._rows.schema.names)
        with readable(self.path, where):
            return self._scan(None if columns is None else list(columns), filter=where).to_table()

    def ids(self) -> list[str]:
        """Ids in the order of the rows."""
        return list(self.table(["id"])["id"].to_pylist())

    def matrix(self, column: str = "cls") -> NDArray[np.float32]:
        """[n, D] float32 of `cls` or `mean`, in the order of the rows."""
        blocks = [block for _, block in self.blocks(column)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.info.dim), np.float32)

    def blocks(self, column: str = "cls", rows: int = _BLOCK_ROWS) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Ids and [k, D] vectors in the order of the rows, at most `rows` at once, so that memory stays bounded."""
        self._require_column(column, VECTORS)
        with readable(self.path):
            for batch in self._scan(["id", column], batch_size=rows, scan_in_order=True).to_batches():
                vectors = batch.column(column).flatten().to_numpy(zero_copy_only=False)
                yield batch.column("id").to_pylist(), vectors.reshape(batch.num_rows, self.info.dim)

    def _require_column(self, name: str, known: Sequence[str]) -> None:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise UsageError(f"column {name}", f"none of that name in {self.path}", fix)

    def _scan(self, columns: list[str] | None, **options: Any) -> Any:
        return self._rows.scanner(columns=columns, fragments=self._fragments, **options)

    def row(self, id: str) -> Row:
        """The row of this id, patches decoded. Raises UsageError when there is none."""
        found = self.table(where=f"id = {quoted(id)}").to_pylist()
        if not found:
            raise UsageError(f"id {id}", f"not in {self.path}", self._point_near(id))
        one = found[0]
        patches = None
        if one.get("patches") is not None:
            kind, grid = self.info.patches, (one["grid_h"], one["grid_w"])
            values = np.array(one["patches"], np.float16 if kind == "fp16" else np.int8)
            scales = np.array(one.get("patch_scales") or [], np.float32)
            patches = read_codec(self.path, kind).decode(values, scales, grid[0] * grid[1]).unflatten(0, grid)
        return Row(
            **{name: one[name] for name in ("id", "picture", "tile", "width", "height", "label", "source_hash")},
            box=(one["box_y"], one["box_x"], one["box_height"], one["box_width"]),
            cls=np.array(one["cls"], np.float32),
            mean=np.array(one["mean"], np.float32),
            valid=(one["valid_h"], one["valid_w"]),
            patches=patches,
        )

    def _point_near(self, id: str) -> str:
        """In words, for an id that is not there: the one that was probably meant, in a store that is not too long."""
        near = difflib.get_close_matches(id, self.ids(), n=1) if len(self) <= _COMPARED_IDS else []
        return f"did you mean {near[0]}?" if near else "ids are paths relative to the folder that was embedded"

    def skipped(self) -> list[Skipped]:
        """Pictures that have no row, and why."""
        return [Skipped(one["id"], one["reason"]) for one in read_skipped(self.path)]

    def require(self, model_hash: str, transform_hash: str) -> None:
        """Refuse vectors of another model or transform: distances between them mean nothing. Raises UsageError."""
        for what, ours, theirs in (
            ("model", self.info.model_hash, model_hash),
            ("transform", self.info.transform_hash, transform_hash),
        ):
            if ours != theirs:
                ours = self.info.model_words if what == "model" else ours
                cause = f"holds features of {what} {ours}, not of {what} {theirs}"
                raise UsageError(self.path, cause, "embed again into another store")


def open_store(path: Path | str, version: int | None = None, *, verify: bool = False) -> Store:
    """Open what `opendino embed` wrote; nothing is written, so a read-only disk will do.

    Args:
        version: an earlier one; the newest when not given.
        verify: read every file of rows and compare it with its hash; what differs is left out and stands in
            `Store.damaged`. The version's list of files is always compared.
    Raises:
        DataError: no store, a damaged one, or one of a newer format. UsageError: no such version.
    """
    path = Path(path)
    info = read_info(path)
    if info is None:
        if not path.exists():
            raise DataError(path, "no such folder", point_near(path))
        raise DataError(path, "is no feature store", "make one with: opendino embed PICTURES --model MODEL --out STORE")
    rows = open_rows(path, version)
    return Store(path, info, rows, find_damage(path, rows) if verify else {})
