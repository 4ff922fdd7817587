"""Pairs of pictures with the same keypoints: SPair-71k, and the frames of any keypoints.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opendino.errors import DataError
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "SPair-71k/{JPEGImages/CLASS/*.jpg, PairAnnotation/test/*.json}; "
    "or keypoints.csv (image,NAME_x,NAME_y,...; empty: not visible) beside the images"
)


@dataclass(frozen=True)
class KeypointPair:
    """source_points, target_points: [n, 2] (x, y) in pixels of the two files, the same point in each row; box_side: the
    longer side of the target object's box; group: its class.
    """

    id: str
    group: str
    source: Path
    target: Path
    source_points: NDArray[np.float64]
    target_points: NDArray[np.float64]
    box_side: float


@dataclass(frozen=True)
class Keypoints:
    """Pairs with at least one common keypoint, in order of classes; split: which of the set's."""

    name: str
    split_hash: str
    pairs: Sequence[KeypointPair]
    split: str

    @property
    def class_names(self) -> Sequence[str]:
        """Of the pairs."""
        return list(dict.fromkeys(pair.group for pair in self.pairs))

    def words(self) -> str:
        """Pairs, points and classes."""
        points = sum(len(pair.source_points) for pair in self.pairs)
        return f"{len(self.pairs):,} pairs, {points:,} points, {len({pair.group for pair in self.pairs})} classes"


def open_keypoints(job: Job) -> Keypoints:
    """Recognise the layout. Raises DataError."""
    for root in (job.data / "SPair-71k", job.data):
        if (root / "PairAnnotation" / "test").is_dir():
            return _build("spair71k", "test", _spair(root), job)
    if (job.data / "keypoints.csv").is_file():
        return _build(job.data.resolve().name, "all", _table(job.data / "keypoints.csv"), job)
    raise DataError(job.data, "is no keypoint set that is known", f"expected: {LAYOUT}")


def _spair(root: Path) -> list[KeypointPair]:
    pairs = []
    for file in sorted((root / "PairAnnotation" / "test").glob("*.json")):
        raw = read_json(file)
        try:
            folder = root / "JPEGImages" / str(raw["category"])
            x0, y0, x1, y1 = map(float, raw["trg_bndbox"])
            start, end = (np.array(raw[key], np.float64).reshape(-1, 2) for key in ("src_kps", "trg_kps"))
            source, target = (folder / Path(raw[key]).name for key in ("src_imname", "trg_imname"))
            side = max(x1 - x0, y1 - y0)
            pairs.append(KeypointPair(file.stem, str(raw["category"]), source, target, start, end, side))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(file, f"is no pair annotation of SPair-71k ({error})") from None
    return pairs


def _table(file: Path) -> list[KeypointPair]:
    """Successive rows are pairs; the box is that of the target's visible points."""
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or "image" not in rows[0]:
        raise DataError(file, "must have the columns image,NAME_x,NAME_y,...")
    names = [key.removesuffix("_x") for key in rows[0] if key and key.endswith("_x")]

    def points(row: dict[str, str]) -> NDArray[np.float64]:
        try:
            return np.array([[float(row[f"{name}_{axis}"] or "nan") for axis in "xy"] for name in names])
        except (KeyError, ValueError) as error:
            raise DataError(file, f"row of {row['image']}: {error} is no number or column") from None

    pairs = []
    for before, after in pairwise(rows):
        start, end = points(before), points(after)
        seen = np.isfinite(start).all(1) & np.isfinite(end).all(1)
        if seen.sum() >= 2:
            side = float(np.ptp(end[np.isfinite(end).all(1)], axis=0).max())
            files = _beside(file, before["image"]), _beside(file, after["image"])
            pairs.append(KeypointPair(f"{files[0].stem}-{files[1].stem}", "all", *files, start[seen], end[seen], side))
    return pairs


def _beside(table: Path, name: str) -> Path:
    for path in (table.parent / name, table.parent / "images" / name):
        if path.resolve().is_relative_to(table.parent.resolve()) and path.is_file():
            return path
    raise DataError(table, f"names {name}, which is not there")


def _build(name: str, split: str, pairs: Sequence[KeypointPair], job: Job) -> Keypoints:
    known = sorted((pair for pair in pairs if len(pair.source_points)), key=lambda pair: (pair.group, pair.id))
    kept = evenly(known, job.limit)
    if not kept:
        raise DataError(job.data, "holds no pair with common keypoints", f"expected: {LAYOUT}")
    if absent := [path for pair in kept for path in (pair.source, pair.target) if not path.is_file()]:
        raise DataError(absent[0], f"is missing, and {len(absent) - 1} more pictures", f"expected: {LAYOUT}")
    return Keypoints(name, hash_ids([pair.id for pair in kept]), kept, split)
