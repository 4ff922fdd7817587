"""NAVI's objects seen in many places, with depth and pose: pairs of views of the set `wild_set`, as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.data import images
from opendino.data.beside import read_declared
from opendino.errors import DataError
from opendino.evaluation.datasets.depths import read_depth_16
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.metrics.geometry import rotation_angle, rotation_of_quaternion
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "NAVI v1: OBJECT/wild_set/{images/000.jpg, depth/000.png, annotations.json}, each object with two views or more"
)
EXPECTED = f"expected: {LAYOUT}"
SCENE = "wild_set"
EVERY = 4
"""Of all views in order of objects and names, as Probe3D has it."""
MAX_ANGLE_DEG = 120.0
MILLIMETRES_AT_1 = 655_350.0
"""Depth of the stored value 1: maps hold 65,535 times ten over the depth in millimetres, 0 where nothing is."""


@dataclass(frozen=True)
class View:
    """A picture of an object.

    rotation [3, 3], translation [3] (metres): from the object's frame to the camera's, x right, y down, z forward.
    focal: over the height of the upright picture.
    """

    id: str
    image: Path
    depth: Path
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    focal: float

    def read(self) -> tuple[images.Image, NDArray[np.float64]]:
        """Picture and depth [H, W] in metres, 0 off the object. Raises DataError."""
        picture, stored = read_declared(self.image), read_depth_16(self.depth)
        if picture.array.shape[:2] != stored.shape:
            raise DataError(self.id, "picture and depth differ in size", "give both as published")
        depth = np.divide(MILLIMETRES_AT_1 / 1000, stored, out=np.zeros_like(stored), where=stored > 0)
        if not depth.any():
            raise DataError(self.id, "its depth holds no object")
        return picture, depth

    def points(
        self, depth: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """[n, 3] metres in the camera's frame of the middles of n pixels; the axis meets the picture's middle."""
        height, width = depth.shape
        focal = self.focal * height
        ray = np.stack([(columns + 0.5 - width / 2) / focal, (rows + 0.5 - height / 2) / focal, np.ones(len(rows))], 1)
        return depth[rows, columns, None] * ray


@dataclass(frozen=True)
class ViewPair:
    """Two views of one object at most 120 degrees apart; angle_deg: between their cameras' rotations."""

    id: str
    object: str
    source: View
    target: View
    angle_deg: float

    def move(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, 3] points of the source's camera frame in the target's."""
        rotation = self.target.rotation @ self.source.rotation.T
        return points @ rotation.T + self.target.translation - rotation @ self.source.translation


@dataclass(frozen=True)
class Navi:
    """Pairs in order of objects."""

    name: str
    split_hash: str
    pairs: Sequence[ViewPair]
    split = SCENE

    def words(self) -> str:
        """Pairs and objects."""
        return f"{len(self.pairs):,} pairs of views of {len({pair.object for pair in self.pairs})} objects"


def open_navi(job: Job) -> Navi:
    """Every fourth view with one partner, drawn by `job.seed`; the paper's draw is not published. Raises DataError."""
    root = next((job.data / name for name in ("navi_v1", "navi") if (job.data / name).is_dir()), job.data)
    views = {
        folder.parent.name: found
        for folder in sorted(root.glob(f"*/{SCENE}"))
        if (folder / "annotations.json").is_file() and (found := _views(folder))
    }
    listed = [(name, number) for name, found in views.items() for number in range(len(found))]
    generator = np.random.default_rng(job.seed)
    pairs = [
        pair for name, number in listed[::EVERY] if (pair := _pair(name, views[name], number, generator)) is not None
    ]
    if not pairs:
        raise DataError(job.data, "holds no pair of views of an object", EXPECTED)
    kept = evenly(pairs, job.limit)
    files = [path for pair in kept for view in (pair.source, pair.target) for path in (view.image, view.depth)]
    if absent := [path for path in files if not path.is_file()]:
        raise DataError(absent[0], f"is missing, and {len(absent) - 1} more files", EXPECTED)
    return Navi("navi", hash_ids([pair.id for pair in kept]), kept)


def _pair(name: str, views: Sequence[View], number: int, generator: np.random.Generator) -> ViewPair | None:
    """A view with one of those that are turned, but not by more than the limit; None when it has no such view."""
    source = views[number]
    angles = np.array([rotation_angle(source.rotation, other.rotation) for other in views])
    near = np.flatnonzero((angles > 1e-3) & (angles <= MAX_ANGLE_DEG))
    if not len(near):
        return None
    partner = int(generator.choice(near))
    target = views[partner]
    return ViewPair(f"{source.id}-{target.image.stem}", name, source, target, float(angles[partner]))


def _views(folder: Path) -> list[View]:
    file = folder / "annotations.json"
    try:
        rows = sorted(read_json(file), key=lambda row: str(row["filename"]))
        return [_view(folder, row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(file, f"is no annotation of NAVI ({type(error).__name__}: {error})", EXPECTED) from None


def _view(folder: Path, row: dict[str, Any]) -> View:
    name, camera = Path(str(row["filename"])), row["camera"]
    return View(
        id=f"{folder.parent.name}/{name.stem}",
        image=folder / "images" / name.name,
        depth=folder / "depth" / f"{name.stem}.png",
        rotation=rotation_of_quaternion(camera["q"]),
        translation=np.array(camera["t"], np.float64).reshape(3) / 1000,
        focal=float(camera["focal_length"]) / float(row["image_size"][0]),
    )
