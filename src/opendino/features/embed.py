"""Folder to store: plan what is new, run it in chunks that never change, write each chunk whole.

A chunk is a fixed stretch of the source's listing. What a picture's batch holds depends on its chunk alone, and a
chunk is written whole or not at all: so a run that was killed and started again, or spread over processes, makes the
same rows, bit for bit and in the same order, as an unbroken run in one process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opendino.data.beside import stated_fields
from opendino.data.listing import Skipped
from opendino.data.sources import Source
from opendino.errors import DataError, OpendinoError, UsageError
from opendino.features.codec import PatchCodec, fit_basis, measure_loss
from opendino.features.encode import Encoder, hash_content, read_stamp, readable_sample
from opendino.features.info import StoreInfo, read_info, write_info
from opendino.features.mend import mend
from opendino.features.precision import LEAST_COSINE, in_dtype, is_faster, measure_drift
from opendino.features.rows import (
    LOCK,
    create_store,
    open_rows,
    quoted,
    read_codec,
    read_skipped,
    require_own,
    write_skipped,
)
from opendino.features.seal import seal
from opendino.features.writer import Writer
from opendino.files import exclusive, fault_point
from opendino.parallel.gather import Ranks

CHUNK = 64
TILED_CHUNK = 4
"""Pictures in a chunk; the whole pixels of tiled ones wait in memory, except of large TIFFs."""
SAMPLE = 16
_IDS_AT_ONCE = 500
_TIMED_PICTURES = 4


@dataclass(frozen=True)
class Changes:
    """How a folder differs from its store. kept: unchanged pictures, those known to be unreadable included."""

    kept: int
    added: int
    changed: int
    removed: int


@dataclass(frozen=True)
class Embedded:
    """What an embedding run did. read: pictures opened; rows: in the store now; skipped: all that have no row.

    mended: files of the store that were found damaged; their pictures are among the added ones.
    """

    changes: Changes
    read: int
    rows: int
    skipped: tuple[Skipped, ...]
    version: int
    info: StoreInfo
    mended: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    info: StoreInfo
    codec: PatchCodec
    chunks: list[list[int]]
    changes: Changes
    mended: tuple[str, ...]


def embed_source(
    source: Source,
    model: nn.Module,
    info: StoreInfo,
    path: Path,
    *,
    device: Any,
    ranks: Ranks,
    workers: int = 2,
    automatic: bool = False,
    verify: bool = False,
    only_newest: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> Embedded:
    """Bring a store up to date with a source; only what is new or changed is decoded.

    Args:
        model: fp32 backbone on `device`.
        info: what to make; drift and loss are measured here. A store that exists must hold the same.
        ranks: of a torchrun launch; rank 0 alone touches the store, the result of the others is rank 0's.
        automatic: the number type was not asked for: an existing store's is taken, one that drifts gives way to fp32.
        verify: compare an existing store's files with their hashes first; what is damaged is made anew.
        only_newest: remove earlier versions and deleted rows from the disk at the end.
        progress: called with pictures done, pictures to do, and pictures skipped, on rank 0.
    Raises:
        UsageError: the store holds features of another model, transform, form or folder, or is in use; the path is a
            file or a folder of other files.
        DataError: the store is damaged. OpendinoError: it cannot be written; the same call goes on.
    """
    if ranks.rank > 0:
        return _run(source, model, ranks.share(None), path, device, ranks, workers, only_newest, None)
    try:
        require_own(path)
        path.mkdir(parents=True, exist_ok=True)
        with exclusive(path / LOCK):
            plan = ranks.share(_plan(source, model, info, path, device, automatic, verify))
            return _run(source, model, plan, path, device, ranks, workers, only_newest, progress)
    except OSError as error:  # pictures have errors of their own: this is the store's disk
        cause = f"cannot be written ({error.strerror or str(error).partition(', /')[0][:200]})"
        raise OpendinoError(path, cause, "make room or mend the disk; the same command goes on") from None


def _plan(
    source: Source, model: nn.Module, info: StoreInfo, path: Path, device: Any, automatic: bool, verify: bool
) -> _Plan:
    """Begin the store or open it, take out what is stale, and say what is to be made."""
    kept = read_info(path)
    mended: list[str] = []
    if kept is None:
        info, codec = _measure(source, model, info, device, automatic)
        create_store(path, info, codec.basis)
    else:
        _require_same(kept, info, path, automatic)
        if verify:
            mended = mend(path, kept)
        info, codec = dataclasses.replace(kept, source=info.source, model=info.model), read_codec(path, kept.patches)
    rows = open_rows(path)
    table = rows.to_table(columns=["id", "stamp", "source_hash"], filter="tile = ''")
    names, *facts = (table[column].to_pylist() for column in ("id", "stamp", "source_hash"))
    skipped = read_skipped(path)
    known = dict(zip(names, zip(*facts, strict=True), strict=True))
    found = _compare(source, known, {entry["id"]: entry["stamp"] for entry in skipped})
    if kept is not None and kept.source != info.source and names and len(found.removed) == len(names):
        cause = f"holds pictures of {kept.source}, none of which is in {info.source}"
        raise UsageError(path, cause, "choose another --out")
    # Rows that go are deleted before their successors come: a kill in between leaves work to do, never a double.
    gone = [*found.removed, *found.changed]
    if mended:  # tiles of a picture whose own row was lost
        gone += [source.id(index) for index in found.pending]
    for start in range(0, len(gone), _IDS_AT_ONCE):
        fault_point("store.delete")
        rows.delete(f"picture IN ({', '.join(map(quoted, gone[start : start + _IDS_AT_ONCE]))})")
    seal(path)  # also what a killed run wrote
    if kept is not None and info != kept:  # the folder or the model was moved
        write_info(path, info)
    write_skipped(path, [entry for entry in skipped if entry["id"] in found.present])
    chunks: dict[int, list[int]] = {}
    for index in found.pending:
        chunks.setdefault(index // (TILED_CHUNK if info.tile else CHUNK), []).append(index)
    unchanged = len(source) - len(found.pending)
    added = len(found.pending) - len(found.changed)
    changes = Changes(unchanged, added, len(found.changed), len(found.removed))
    return _Plan(info, codec, list(chunks.values()), changes, tuple(mended))


@dataclass(frozen=True)
class _Found:
    """Names of all pictures; numbers of those to embed, in order; names of rows that are stale or have no picture."""

    present: set[str]
    pending: list[int]
    changed: list[str]
    removed: list[str]


def _compare(source: Source, known: dict[str, tuple[str, str]], bad: dict[str, str]) -> _Found:
    """A source beside its store. known: stamp and hash of each row's picture; bad: stamps of the unreadable ones."""
    present, pending, changed = set(), [], []
    for index in range(len(source)):
        name = source.id(index)
        present.add(name)
        if name in known:
            if _is_unchanged(source, index, *known[name]):
                continue
            changed.append(name)
        elif bad.get(name) == read_stamp(source, index):
            continue
        pending.append(index)
    return _Found(present, pending, changed, [name for name in known if name not in present])


def _is_unchanged(source: Source, index: int, stamp: str, source_hash: str) -> bool:
    if read_stamp(source, index) == stamp:
        return True
    try:
        return hash_content(source, index) == source_hash
    except DataError:
        return False


def _require_same(kept: StoreInfo, info: StoreInfo, path: Path, automatic: bool) -> None:
    asked = dataclasses.replace(info, dtype=kept.dtype) if automatic else info
    differences = [
        *([("model", kept.model_words, asked.model_words)] if kept.model_hash != asked.model_hash else []),
        *(_transforms(kept, asked) if kept.transform_hash != asked.transform_hash else []),
        ("number type", kept.dtype, asked.dtype),
        ("patches", kept.patches, asked.patches),
        ("tiles", kept.tile, asked.tile),
    ]
    for what, old, new in differences:
        if old != new:
            cause = f"holds features of {what} {old}, asked is {what} {new}"
            raise UsageError(path, cause, "choose another --out")


def _transforms(kept: StoreInfo, asked: StoreInfo) -> list[tuple[str, Any, Any]]:
    """What becomes of a picture before the model sees it, field by field: name, of the store, as asked."""
    old, new = ({**vars(one.transform), **stated_fields(one.reading)} for one in (kept, asked))
    return [(name, old.get(name), new.get(name)) for name in {**old, **new}]


def _measure(
    source: Source, model: nn.Module, info: StoreInfo, device: Any, automatic: bool
) -> tuple[StoreInfo, PatchCodec]:
    """Drift of the number type, loss of the patches' form and agreement of tiles, on a few pictures of the source."""
    if info.tile is not None:
        info = dataclasses.replace(info, agreement=Encoder(model, info, PatchCodec("none"), device).agreement(source))
    if info.dtype == "fp32" and info.patches == "none":
        return info, PatchCodec("none")
    sample = readable_sample(source, info.transform, SAMPLE)
    if not sample:
        raise DataError(info.source, f"none of {min(2 * SAMPLE, len(source))} pictures tried could be read")
    smaller = in_dtype(model, info.dtype)
    if automatic and info.dtype != "fp32" and torch.device(device).type == "cpu":
        pixels = sample[0].pixels.expand(_TIMED_PICTURES, -1, -1, -1)
        if not is_faster(model, smaller, info.dtype, pixels):
            info = dataclasses.replace(info, dtype="fp32")
    if info.dtype != "fp32":
        drift = measure_drift(model, smaller, info.dtype, sample, device)
        if automatic and min(drift.cls, drift.mean) < LEAST_COSINE:
            info = dataclasses.replace(info, dtype="fp32")
        info = dataclasses.replace(info, drift=drift)
    if info.patches == "none":
        return info, PatchCodec("none")
    encoder = Encoder(model, info, PatchCodec("none"), device)
    maps = [encoder.patches_of(one)[one.valid] for one in sample]
    # Half of the pictures fit the basis, the other half say what it costs.
    half = maps[::2] if len(maps) > 1 else maps
    codec = PatchCodec(info.patches, fit_basis(torch.cat(half)) if info.patches == "pca" else None)
    loss = measure_loss(codec, maps[1::2] or maps)
    return dataclasses.replace(info, loss=loss), codec


def _run(
    source: Source,
    model: nn.Module,
    plan: _Plan,
    path: Path,
    device: Any,
    ranks: Ranks,
    workers: int,
    only_newest: bool,
    progress: Callable[[int, int, int], None] | None,
) -> Embedded:
    encoder = Encoder(model, plan.info, plan.codec, device)
    total = sum(map(len, plan.chunks))
    writer = Writer(path, plan.info) if ranks.rank == 0 else None
    mine = plan.chunks[ranks.rank :: ranks.world]
    done = 0
    with ThreadPoolExecutor(max(1, workers)) as threads:
        ahead = encoder.load(source, mine[0], threads) if mine else []
        # Every rank takes part in every round, the last one perhaps with empty hands.
        for turn in range(-(-len(plan.chunks) // ranks.world)):
            reading, ahead = ahead, encoder.load(source, mine[turn + 1], threads) if turn + 1 < len(mine) else []
            for made in ranks.gather(encoder.encode(reading)):
                assert writer is not None
                writer.add(made)
                done += made.pictures
            if progress is not None:
                progress(done, total, writer.num_skipped if writer else 0)
    if writer is not None:
        writer.finish(only_newest)
    rows = open_rows(path) if ranks.rank == 0 else None
    skipped = tuple(Skipped(one["id"], one["reason"]) for one in read_skipped(path)) if ranks.rank == 0 else ()
    return Embedded(
        plan.changes,
        total,
        rows.count_rows() if rows is not None else 0,
        (*source.skipped, *skipped),
        int(rows.version) if rows is not None else 0,
        plan.info,
        plan.mended,
    )
