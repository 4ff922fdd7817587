"""What a source of pictures is, how one is opened from a path, and how it is split."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tarfile import is_tarfile
from typing import BinaryIO, Protocol

import numpy as np

from opendino.data.beside import SKIP_NAME, declared_reading, path_beside, read_skip_list
from opendino.data.folder import FolderScan, FolderSource
from opendino.data.images import Image, Reading, patiently
from opendino.data.listing import Skipped, decode_id, encode_id, has_picture_ending
from opendino.data.tar import open_tars
from opendino.errors import DataError, UsageError
from opendino.files import point_near

__all__ = [
    "Skipped",
    "Source",
    "decode_id",
    "encode_id",
    "hold_out",
    "open_source",
    "split_stratified",
    "subset",
    "why_unscored",
]

HELD_OUT = 0.2


class Source(Protocol):
    """Pictures by number. Opening one reads no pixels; it can be pickled into worker processes.

    Attributes:
        classes: names in byte order, () when the pictures are not sorted into classes.
        parts: first folders that are named as parts of a data set (train, val; images, masks), so no classes; else ().
        skipped: what the scan left out, at most 1,000 names of each reason.
        skip_counts: how many were left out, by reason, exact.
        fingerprint: hash of all ids and sizes, and of the reading where it is not the default.
        reading: how pictures are read.
    """

    classes: tuple[str, ...]
    parts: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    skip_counts: dict[str, int]
    fingerprint: str
    reading: Reading

    def __len__(self) -> int: ...

    def id(self, index: int) -> str:
        """Name of picture `index` relative to the source; `decode_id` gives its raw bytes back."""
        ...

    def label(self, index: int) -> int | None:
        """Index into `classes`, or None."""
        ...

    def read(self, index: int) -> Image:
        """Decode picture `index`; raises an ImageError naming its id."""
        ...

    def load(self, index: int) -> bytes:
        """Bytes of picture `index`; raises an ImageError naming its id."""
        ...

    @contextmanager
    def open(self, index: int) -> Iterator[BinaryIO]:
        """Picture `index` as a file to read anywhere in; where it is stored as one it may be too large to `load`."""
        yield BytesIO(self.load(index))

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of last change in ns, as they are now; another stamp means another picture."""
        ...


def open_source(
    path: Path,
    *,
    follow: bool = False,
    skip: Path | bool = True,
    reading: Reading | None = None,
    at_least: int | None = None,
) -> Source:
    """Find the pictures in a folder, in a `.tar` file, or in a folder of `.tar` files.

    Pictures are found by content as well as by name, and sorted by the raw bytes of their names. They have classes
    when at least two first-level folders hold pictures and less than 1 % lie outside of such folders.

    Args:
        path: folder or tar file.
        follow: also enter links to folders.
        skip: a skip list; True takes the one beside the pictures where there is one, False none. What it names is in
            `skip_counts`, and the fingerprint is that of the pictures that are left.
        reading: how pictures are read; None takes the file beside the pictures where there is one. See `beside`.
        at_least: pixels of the short side that the use needs, laid over the reading; large JPEGs decode faster then.
            No part of the fingerprint.
    Raises:
        DataError: no such path, no pictures, or no readable tar; says what was found instead.
    """
    try:
        source = _find_pictures(Path(path), follow, skip, reading, at_least)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the storage and start again") from None
    if len(source) == 0:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(source.skip_counts.items()))
        cause = f"no pictures found ({counts or 'it is empty'})"
        raise DataError(path, cause, "give a folder of pictures (JPEG, PNG, WebP, TIFF, ...) or a .tar of them")
    return source


def _find_pictures(
    path: Path, follow: bool, skip: Path | bool, reading: Reading | None, at_least: int | None
) -> Source:
    if not patiently(path.exists):
        raise DataError(path, "no such file or folder", point_near(path))
    reading = reading if reading is not None else declared_reading(path)
    if at_least is not None:
        reading = replace(reading, at_least=at_least)
    if not patiently(path.is_dir):
        if patiently(path.is_file) and has_picture_ending(os.fsencode(path.name)):
            raise DataError(path, "is one picture", "give a folder of pictures or a .tar of them")
        if patiently(path.is_file) and not path.name.endswith(".tar") and not is_tarfile(path):
            raise DataError(path, "is neither a folder nor a tar", "give a folder of pictures or a .tar of them")
        return open_tars([(b"", path)], None, _leave_out(path, skip), reading)
    root = os.fsencode(path)
    scan = FolderScan(root, follow)
    if scan.shards and not scan.names:
        shards = sorted(scan.shards)
        paths = [Path(os.fsdecode(os.path.join(root, name))) for name in shards]
        members = [(name + b"/", shard) for name, shard in zip(shards, paths, strict=True)]
        return open_tars(members, scan.skips, _leave_out(path, skip), reading)
    for name in scan.shards:
        scan.skips.add(name, "tar beside pictures")
    return FolderSource(root, scan.listing(_leave_out(path, skip)), reading)


def _leave_out(path: Path, skip: Path | bool) -> dict[bytes, str]:
    if isinstance(skip, bool):
        beside = path_beside(path, SKIP_NAME)
        return read_skip_list(beside) if skip and patiently(beside.exists) else {}
    return read_skip_list(skip)


class _Subset:
    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self._source = source
        self._indices = indices
        self.classes, self.parts = source.classes, source.parts
        self.reading = source.reading
        self.skipped = source.skipped
        self.skip_counts = source.skip_counts
        digest = hashlib.sha256(source.fingerprint.encode())
        digest.update(indices.tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._indices)

    def id(self, index: int) -> str:
        return self._source.id(self._at(index))

    def label(self, index: int) -> int | None:
        return self._source.label(self._at(index))

    def read(self, index: int) -> Image:
        return self._source.read(self._at(index))

    def load(self, index: int) -> bytes:
        return self._source.load(self._at(index))

    @contextmanager
    def open(self, index: int) -> Iterator[BinaryIO]:
        with self._source.open(self._at(index)) as file:
            yield file

    def stamp(self, index: int) -> tuple[int, int]:
        return self._source.stamp(self._at(index))

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self._indices):
            raise IndexError(f"picture {index} of {len(self._indices)}")
        return int(self._indices[index])


def subset(source: Source, indices: Sequence[int] | np.ndarray) -> Source:
    """A part of a source, in the order of `indices`; classes and their numbers stay those of the whole.

    Raises:
        UsageError: an index outside the source.
    """
    chosen = np.asarray(indices, np.int64).reshape(-1)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(source)):
        raise UsageError("subset", f"indices must be from 0 to {len(source) - 1}, got {chosen.min()} to {chosen.max()}")
    return _Subset(source, chosen)


def why_unscored(source: Source) -> str:
    """Why k-NN among the pictures of a source can ask nothing; "" when it can: two classes, one with two pictures."""
    if source.parts:
        return f"{' and '.join(source.parts)} are parts of a data set"
    if len(source.classes) < 2:
        return "fewer than two class subfolders"
    counts = Counter(source.label(index) for index in range(len(source)))
    del counts[None]
    return "" if max(counts.values()) > 1 else "no class folder with two pictures"


def hold_out(source: Source) -> tuple[Source, Source]:
    """Bank and queries: the same fifth of each class is held out by every command, so that their scores are one."""
    bank, queries = split_stratified(source, HELD_OUT, seed=0)
    return subset(source, bank), subset(source, queries)


def split_stratified(source: Source, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split a source in two, each class by the same share; pictures without a class are one group more.

    Args:
        source: at least one picture.
        fraction: share of the second part, above 0 and below 1. A group of two or more gives at least one picture to
            each part; a single picture goes to the first. Where every class is a single picture, all are one group.
        seed: the split is a function of it and of the order of the source.
    Returns:
        Indices (train, val), int64, ascending, together every picture once.
    Raises:
        UsageError: fraction outside its range.
    """
    if not 0 < fraction < 1:
        raise UsageError("fraction", f"must be above 0 and below 1, got {fraction}")
    labels = np.array([-1 if (label := source.label(index)) is None else label for index in range(len(source))])
    if (np.unique(labels, return_counts=True)[1] == 1).all():
        labels[:] = -1
    train, val = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, int(label) + 1])))
        shuffled = generator.permutation(members)
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        val.append(shuffled[:count])
        train.append(shuffled[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))
