"""The files of a store beside store.json: rows in Lance, the basis of PCA patches, the list of skipped pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from opendino.errors import DataError, OpendinoError, UsageError
from opendino.features.codec import Basis, PatchCodec, PatchKind
from opendino.features.info import INFO, StoreInfo, write_info
from opendino.features.seal import BASIS, ROWS, SUMS, find_fault, manifest_of, read_sums, seal
from opendino.files import read_json, write_atomic, write_json

SKIPPED, LOCK = "skipped.json", "store.lock"
_OWN = {INFO, ROWS, BASIS, SUMS, SKIPPED, LOCK}


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
    with readable(path):
        return find_lance().dataset(str(path / ROWS), version=version)


@contextmanager
def readable(path: Path, where: str | None = None) -> Iterator[None]:
    """What Lance raises, in one line; damage that it stumbles over makes it panic, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if where is not None and isinstance(error, ValueError):
            words = str(error).removeprefix("Invalid user input: ").partition(", /")[0].rstrip(".")
            raise UsageError(f"where {where}", words, "conditions are SQL, such as: width > 1000") from None
        if not isinstance(error, (OSError, ValueError)) and type(error).__name__ != "PanicException":
            raise
        cause = f"rows cannot be read ({str(error).partition(', /')[0][:120]})"
        raise DataError(path, cause, "open_store(..., verify=True) finds what is damaged") from None


def require_own(path: Path) -> None:
    """Refuse a place for a store that holds something else. Raises UsageError.

    Without store.json it may hold what a begin that was killed has left, and hidden files of systems, but nothing more.
    """
    fix = "choose another --out"
    if path.exists() and not path.is_dir():
        raise UsageError(path, "is a file, and a store is a folder", fix)
    if not path.exists() or (path / INFO).is_file():
        return
    held = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    # Rows alone may be another program's: ours are never without the lock file, which is made before them.
    strangers = sorted(held - (_OWN if LOCK in held else {LOCK}))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise UsageError(path, f"is no feature store and holds other files ({strangers[0]}{more})", fix)


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
