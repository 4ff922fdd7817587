"""The feature store: rows of pictures in Lance (embedded, versioned), and a small file that says whose they are.

STORE/store.json   model, licence, card, transform, number type, drift, form of the patches
STORE/rows.lance   one row a picture (and a tile); any Lance, Arrow, pandas or DuckDB reader opens it
STORE/skipped.json pictures without a row, and why
STORE/pca.safetensors  for patches kept as PCA
STORE/sums.json    hashes of the files of rows; see `seal`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from opendino.data.beside import parse_reading
from opendino.data.images import Reading
from opendino.data.sources import Skipped
from opendino.data.transform import Transform
from opendino.errors import DataError, OpendinoError, UsageError
from opendino.features.codec import Basis, PatchCodec, PatchKind, PatchLoss
from opendino.features.identity import transform_hash
from opendino.features.lattice import Agreement
from opendino.features.precision import Drift
from opendino.features.seal import BASIS, ROWS, SUMS, Damage, find_damage, find_fault, manifest_of, read_sums, seal
from opendino.files import read_json, write_atomic, write_json

FORMAT = 1
INFO, SKIPPED = "store.json", "skipped.json"
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class StoreInfo:
    """Whose features a store holds and how they were made.

    model: what was opened, a path or a name; card: its name, licence, source and what else travelled with it.
    source: the folder of the pictures; reading: how its files are read. dtype: number type of the forward pass. tile:
    side and step of tiles in pixels, or None. drift: against fp32, None for fp32. loss: of the kept patches, None for
    none. agreement: of merged tiles with whole pictures, None without tiles.
    """

    model: str
    model_hash: str
    dim: int
    patch: int
    licence: str
    card: dict[str, Any]
    transform: Transform
    source: str
    dtype: str
    reading: Reading = field(default_factory=Reading)
    patches: PatchKind = "none"
    tile: tuple[int, int] | None = None
    drift: Drift | None = None
    loss: PatchLoss | None = None
    agreement: Agreement | None = None

    @property
    def transform_hash(self) -> str:
        """See `identity.transform_hash`."""
        return transform_hash(self.transform, self.reading)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the transform in the form of preprocessor_config.json."""
        fields = {**asdict(self), "transform": self.transform.to_dict(), "transform_hash": self.transform_hash}
        return {"format": FORMAT, **fields}

    @classmethod
    def from_json(cls, fields: dict[str, Any], path: Path) -> StoreInfo:
        """The inverse of `to_json`. Raises DataError for a newer format or a missing field."""
        if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
            raise DataError(path, "is not the file of a feature store")
        if fields["format"] > FORMAT:
            fix = "update opendino"
            raise DataError(path, f"format {fields['format']} is newer than this opendino's {FORMAT}", fix)
        readers: dict[str, Callable[[Any], Any]] = {
            "transform": Transform.from_dict,
            "reading": parse_reading,
            "tile": tuple,
            "drift": lambda told: Drift(**told),
            "loss": lambda told: PatchLoss(**told),
            "agreement": lambda told: Agreement(**told),
        }
        try:
            # A store of an earlier opendino lacks what came later; such fields have defaults.
            values = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
            for name, parse in readers.items():
                if values.get(name) is not None:
                    values[name] = parse(values[name])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(path, f"is damaged ({error})", "make the store anew") from None


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


def schema_of(info: StoreInfo) -> Any:
    """The Arrow schema of the rows; model, licence, card and transform stand in its metadata."""
    import pyarrow as pa

    vector = pa.list_(pa.float32(), info.dim)
    columns = [
        *((name, pa.string()) for name in ("id", "picture", "tile", "label", "stamp", "source_hash")),
        *((name, pa.string()) for name in ("model_hash", "transform_hash")),
        *((name, pa.int32()) for name in ("width", "height", "box_y", "box_x", "box_height", "box_width")),
        *((name, pa.int32()) for name in ("grid_h", "grid_w", "valid_h", "valid_w")),
        ("cls", vector),
        ("mean", vector),
    ]
    if info.patches != "none":
        columns.append(("patches", pa.large_list(getattr(pa, PatchCodec(info.patches).value_type)())))
    if info.patches == "int8":
        columns.append(("patch_scales", pa.large_list(pa.float32())))
    told = info.to_json()
    metadata = {
        "opendino.model": str(info.card.get("name", info.model)),
        "opendino.licence": info.licence,
        "opendino.card": json.dumps(info.card, default=str),
        "opendino.transform": json.dumps(told["transform"]),
        **{f"opendino.{name}": str(told[name]) for name in ("model_hash", "transform_hash", "dtype", "patches")},
    }
    return pa.schema(columns, metadata=metadata)


def find_lance() -> Any:
    """The `lance` module, or one line that says how to get it."""
    try:
        import lance
    except ImportError:
        raise OpendinoError("feature store", "needs pylance", "pip install 'opendino[store]'") from None
    return lance


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
        """
        with _readable(self.path, where):
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
        if column not in ("cls", "mean"):
            raise UsageError(f"column {column}", "no such vector", "vectors: cls, mean")
        with _readable(self.path):
            for batch in self._scan(["id", column], batch_size=rows, scan_in_order=True).to_batches():
                vectors = batch.column(column).flatten().to_numpy(zero_copy_only=False)
                yield batch.column("id").to_pylist(), vectors.reshape(batch.num_rows, self.info.dim)

    def _scan(self, columns: list[str] | None, **options: Any) -> Any:
        return self._rows.scanner(columns=columns, fragments=self._fragments, **options)

    def row(self, id: str) -> Row:
        """The row of this id, patches decoded. Raises UsageError when there is none."""
        found = self.table(where=f"id = {quoted(id)}").to_pylist()
        if not found:
            raise UsageError(
                f"id {id}", f"not in {self.path}", "ids are paths relative to the folder that was embedded"
            )
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
                cause = f"holds features of {what} {ours} ({self.info.model}), not of {what} {theirs}"
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
        raise DataError(path, "is no feature store", "make one with: opendino embed PICTURES --model MODEL --out STORE")
    rows = open_rows(path, version)
    return Store(path, info, rows, find_damage(path, rows) if verify else {})


def open_rows(path: Path, version: int | None = None) -> Any:
    """Lance's view of a version, or of the newest. Raises as `open_store`."""
    manifest = manifest_of(path, version)
    if manifest is None or not manifest.is_file():
        if version is not None and (path / ROWS).exists():
            raise UsageError(f"version {version}", f"not in {path}", "`open_store(...).versions()` lists them")
        raise DataError(path, "holds no rows", "the same embed command with --verify makes them anew")
    fault = find_fault(path, manifest, read_sums(path))
    if fault:
        raise DataError(manifest, fault, "the same embed command with --verify goes on from the version before")
    with _readable(path):
        return find_lance().dataset(str(path / ROWS), version=version)


@contextmanager
def _readable(path: Path, where: str | None = None) -> Iterator[None]:
    """What Lance raises, in one line; damage that it stumbles over makes it panic, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if where is not None and isinstance(error, ValueError):
            words = str(error).removeprefix("Invalid user input: ").partition(", /")[0]
            raise UsageError(f"where {where}", words, "conditions are SQL, such as: width > 1000") from None
        if not isinstance(error, (OSError, ValueError)) and type(error).__name__ != "PanicException":
            raise
        cause = f"rows cannot be read ({str(error).partition(', /')[0][:120]})"
        raise DataError(path, cause, "open_store(..., verify=True) finds what is damaged") from None


def read_info(path: Path) -> StoreInfo | None:
    """What store.json says, or None when there is none."""
    if not (path / INFO).is_file():
        return None
    return StoreInfo.from_json(read_json(path / INFO), path / INFO)


def write_info(path: Path, info: StoreInfo) -> None:
    """Replace store.json."""
    write_json(path / INFO, info.to_json())


def create_store(path: Path, info: StoreInfo, basis: Basis | None) -> None:
    """Write an empty store. The info goes last: a folder without it is no store and is begun anew."""
    if basis is not None:
        write_atomic(path / BASIS, save({k: v.contiguous() for k, v in vars(basis).items()}))
    shutil.rmtree(path / ROWS, ignore_errors=True)  # of a begin that was killed
    create_rows(path, info)
    write_skipped(path, [])
    write_info(path, info)


def create_rows(path: Path, info: StoreInfo) -> None:
    """Write the first, empty version of the rows."""
    schema = schema_of(info)
    find_lance().write_dataset(schema.empty_table(), str(path / ROWS), schema=schema, mode="create")
    (path / SUMS).unlink(missing_ok=True)
    seal(path)


def read_codec(path: Path, kind: PatchKind) -> PatchCodec:
    """The codec of a store's patches. Raises DataError when its basis is damaged."""
    if kind != "pca":
        return PatchCodec(kind)
    fault = find_fault(path, path / BASIS, read_sums(path))
    if fault:
        raise DataError(path / BASIS, fault, "patches cannot be decoded without it: make the store anew")
    return PatchCodec(kind, Basis(**load_file(path / BASIS)))


def read_skipped(path: Path) -> list[dict[str, str]]:
    """Entries of skipped.json: id, reason, and the stamp of the file when it was tried."""
    return list(read_json(path / SKIPPED)) if (path / SKIPPED).is_file() else []


def write_skipped(path: Path, entries: Sequence[dict[str, str]]) -> None:
    """Replace skipped.json."""
    write_json(path / SKIPPED, sorted(entries, key=lambda entry: entry["id"]))


def quoted(text: str) -> str:
    """A text as a literal in Lance's SQL."""
    return "'" + text.replace("'", "''") + "'"


def as_tensor(vectors: NDArray[np.float32]) -> Tensor:
    """A copy that torch may own: Arrow's buffers are read-only."""
    return torch.from_numpy(np.array(vectors, np.float32))
