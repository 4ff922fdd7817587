"""Geometric correspondence: how far, in space, the patch most like one of an object lies from the same point of it.

Follows Probe3D (arXiv 2404.08636) as arXiv 2508.10104, D.3 has it: objects cut out by their box, features brought to a
finer grid by bicubic interpolation, the matches most alike kept. Probe3D itself ranks matches by a ratio test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.navi import Navi, View, ViewPair
from opendino.evaluation.dense import patch_map
from opendino.evaluation.metrics.correspondence import NAVI_THRESHOLDS_M, recall_below
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Subject, mean_score
from opendino.evaluation.reading import read_each

STEP_PX = 4
"""Of the model's input between the points that are matched."""
KEPT = 1000
CHUNK = 1024
NORMS = {"final norm": True, "no norm": False}
ANGLES_DEG = (0, 30, 60, 90, 120)


@dataclass(frozen=True)
class Places:
    """Points of an object that a view shows: units [n, D] of each kind of feature by name, points [n, 3] in metres."""

    units: Mapping[str, Tensor]
    points: NDArray[np.float64]


def object_square(depth: NDArray[np.float64]) -> tuple[int, int, int]:
    """Top, left and side of the square about the object's box, moved into the picture and no larger than it."""
    rows, columns = np.flatnonzero(depth.any(1)), np.flatnonzero(depth.any(0))
    height, width = depth.shape
    tall, wide = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    side = min(max(tall, wide), height, width)
    top = min(max(int(rows[0]) - (side - tall) // 2, 0), height - side)
    left = min(max(int(columns[0]) - (side - wide) // 2, 0), width - side)
    return top, left, side


def look(subject: Subject, view: View, rows: int, layer: int) -> Places:
    """What the model sees of a view's object. Raises DataError."""
    picture, depth = view.read()
    top, left, side = object_square(depth)
    cut = np.ascontiguousarray(picture.array[top : top + side, left : left + side])
    patch = subject.model.patch
    transform = replace(subject.transform, mode="square", size=rows * patch, patch=patch)
    image = transform.apply(replace(picture, array=cut))
    count = rows * patch // STEP_PX
    steps = ((np.arange(count) + 0.5) / count * side).astype(np.int64)
    down, across = (grid.ravel() for grid in np.meshgrid(top + steps, left + steps, indexing="ij"))
    there = depth[down, across] > 0
    if not there.any():
        raise DataError(view.id, "its object is smaller than the points that are matched")
    units = {}
    for name, norm in NORMS.items():
        patches = patch_map(subject, image, layer, norm=norm)
        fine = F.interpolate(patches.permute(2, 0, 1)[None], (count, count), mode="bicubic")[0].flatten(1).T
        units[name] = F.normalize(fine[there], dim=1)
    return Places(units, view.points(depth, down[there], across[there]))


def match(source: Tensor, target: Tensor, kept: int = KEPT) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of unit vectors [n, D] and of [m, D] that belong together: the `kept` most alike, each row's nearest."""
    best, near = [], []
    for part in source.split(CHUNK):
        similarity = (part @ target.T).numpy()
        index = similarity.argmax(axis=1)
        near.append(index)
        best.append(np.take_along_axis(similarity, index[:, None], 1)[:, 0])
    order = np.argsort(-np.concatenate(best), kind="stable")[:kept]
    return order, np.concatenate(near)[order]


def evaluate_navi(subject: Subject, data: Navi, job: Job) -> Outcome:
    """Mean recall at 1, 2 and 5 cm, every pair weighing the same; drawn again are objects, then their pairs.

    "paper" is the better one of features with and without the final norm, "ours" those with it.
    """
    rows, layer = int(job.settings["rows"]), int(job.settings["layer"])
    found: dict[str, list[list[float]]] = {name: [] for name in NORMS}
    kept: list[ViewPair] = []
    skipped: list[Skipped] = []

    def both(pair: ViewPair) -> tuple[Places, Places]:
        return look(subject, pair.source, rows, layer), look(subject, pair.target, rows, layer)

    for pair, (source, target) in read_each(data.pairs, both, skipped, job, "pairs"):
        moved = pair.move(source.points)
        for name in NORMS:
            one, other = match(source.units[name], target.units[name])
            errors = np.linalg.norm(moved[one] - target.points[other], axis=1)
            found[name].append([100 * share for share in recall_below(errors, NAVI_THRESHOLDS_M)])
        kept.append(pair)
    recalls = {name: np.array(values) for name, values in found.items()}
    ids, objects = [pair.id for pair in kept], [pair.object for pair in kept]

    def score(metric: str, values: NDArray[np.float64], **other: object) -> Score:
        return mean_score(metric, values, ids, unit="pair", groups=objects, **other)

    means = {name: float(values.mean()) for name, values in recalls.items()}
    best = max(means, key=lambda name: means[name])
    choice = Choice({"features": best}, "test", [{"features": name} for name in means], list(means.values()))
    ours = recalls["final norm"]
    scores = [
        score("recall", recalls[best].mean(1), variant="paper", choice=choice),
        score("recall_normed", ours.mean(1)),
        *(score(f"recall_{100 * limit:g}cm", ours[:, column]) for column, limit in enumerate(NAVI_THRESHOLDS_M)),
    ]
    return Outcome(scores, skipped, {"kept": KEPT}, {"recall_2cm_by_degrees": _by_angle(ours, kept)})


def _by_angle(recalls: NDArray[np.float64], pairs: list[ViewPair]) -> dict[str, float]:
    """Mean recall at 2 cm of the pairs between two angles."""
    angles = np.array([pair.angle_deg for pair in pairs])
    by_angle = {}
    for low, high in pairwise(ANGLES_DEG):
        inside = (angles > low) & (angles <= high)
        if inside.any():
            by_angle[f"{low} to {high}"] = float(recalls[inside, 1].mean())
    return by_angle
