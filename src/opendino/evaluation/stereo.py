"""Stereo correspondence (not of the paper): is the patch most like one of the left eye where the right eye sees it?

Real pictures, exact truth, no training. The whole other picture is searched; `row_error` alone knows that the two
pictures are rectified and searches the same row, as stereo does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.stereo import Scene, Stereo
from opendino.evaluation.dense import patch_map, whole_input
from opendino.evaluation.protocol import Job, Outcome, Statistic, Subject, set_score
from opendino.evaluation.reading import read_each

RADII = (1, 2)
"""Patches that an answer may lie off."""


@dataclass(frozen=True)
class Errors:
    """Of the left patches whose middle is seen by both eyes.

    row [n]: the patch's row; anywhere [n]: distance of the best patch of the right picture, in patches; along [n]:
    distance of the best one in the same row, in pixels.
    """

    row: NDArray[np.int64]
    anywhere: NDArray[np.float64]
    along: NDArray[np.float64]


def match_errors(left: Tensor, right: Tensor, disparity: NDArray[np.float64], seen: NDArray[np.bool_]) -> Errors:
    """How far the most alike patches lie from the truth.

    Args:
        left, right: [h, w, D] patches of the whole pictures. disparity, seen: [H, W] of the left picture.
    """
    height, width = left.shape[:2]
    rows, columns = (part.ravel() for part in np.indices((height, width)))
    cell = np.array([disparity.shape[1] / width, disparity.shape[0] / height])
    x, y = (columns + 0.5) * cell[0], (rows + 0.5) * cell[1]
    kept = seen[y.astype(int), x.astype(int)]
    rows, columns, x, y = (part[kept] for part in (rows, columns, x, y))
    target = x - disparity[y.astype(int), x.astype(int)]
    units, others = (F.normalize(one, dim=-1) for one in (left, right))
    similarity = (units[rows, columns] @ others.flatten(0, 1).T).numpy().reshape(len(rows), height, width)
    best = similarity.reshape(len(rows), -1).argmax(1)
    found_x, found_y = (best % width + 0.5) * cell[0], (best // width + 0.5) * cell[1]
    in_row = (similarity[np.arange(len(rows)), rows].argmax(1) + 0.5) * cell[0]
    return Errors(rows, np.hypot((found_x - target) / cell[0], (found_y - y) / cell[1]), np.abs(in_row - target))


def evaluate_stereo(subject: Subject, data: Stereo, job: Job) -> Outcome:
    """Share of patches found within one and two patches of the truth, and the mean error in pixels along the row.

    Drawn again are rows of patches, since neighbours in a row share their fate; scenes are too few.
    """
    rows, layer = int(job.settings["rows"]), int(job.settings["layer"])
    units: list[tuple[str, Errors]] = []
    skipped: list[Skipped] = []
    for scene, (left, right, disparity, seen) in read_each(data.scenes, Scene.read, skipped, job, "scenes"):
        one, other = (patch_map(subject, whole_input(subject, picture, rows), layer) for picture in (left, right))
        errors = match_errors(one, other, disparity, seen)
        for row in np.unique(errors.row).tolist():
            mine = errors.row == row
            part = Errors(errors.row[mine], errors.anywhere[mine], errors.along[mine])
            units.append((f"{scene.id}/{row}", part))
    if not units:
        raise DataError(data.name, "no patch is seen by both eyes")
    ids = [name for name, _ in units]
    counts = np.array([len(one.row) for _, one in units])

    scores = []
    for radius in RADII:
        hits = np.array([(one.anywhere <= radius).sum() for _, one in units])
        scores.append(set_score(f"recall_{radius}", _ratio(hits, counts, 100), ids, unit="patch row"))
    pixels = np.array([one.along.sum() for _, one in units])
    scores.append(
        set_score("row_error", _ratio(pixels, counts), ids, unit="patch row", measure="px", high_is_good=False)
    )
    return Outcome(scores, skipped, {"patches": int(counts.sum())})


def _ratio(sums: NDArray[Any], counts: NDArray[np.int64], factor: float = 1.0) -> Statistic:
    return lambda times: factor * float(times @ sums / (times @ counts))
