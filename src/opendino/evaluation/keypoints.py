"""Keypoint correspondence: where in a second picture is the patch most like that under a keypoint of the first?

`recall` follows Probe3D, on which the paper's numbers stand: strict threshold, the patch's top left corner as answer,
recall per class, mean over classes. That corner is half a patch off; `pck_*` answer with the patch's middle and use
`<=`, as SPair-71k defines it (arXiv 1908.10543).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data import images
from opendino.data.beside import read_declared
from opendino.evaluation.datasets.keypoints import Keypoints
from opendino.evaluation.dense import patch_map
from opendino.evaluation.metrics.correspondence import PCK_ALPHA, keypoints_right, pck_by_pair, pck_per_point
from opendino.evaluation.protocol import Job, Outcome, Subject, mean_score, set_score

WHITE = 255


def match_points(source: Tensor, target: Tensor, points: NDArray[np.float64]) -> NDArray[np.int64]:
    """[n, 2] (column, row) of the target patch nearest by cosine to the source feature at each point.

    Args:
        source, target: [h, w, D] patches.
        points: [n, 2] (x, y) as shares of the source's width and height.
    """
    grid = torch.from_numpy(2 * points - 1).to(source.dtype)[None, None]
    sampled = F.grid_sample(source.permute(2, 0, 1)[None], grid, align_corners=False, padding_mode="border")[0, :, 0]
    similarity = F.normalize(sampled.T, dim=1) @ F.normalize(target.flatten(0, 1), dim=1).T
    best = similarity.numpy().argmax(axis=1)
    return np.stack([best % target.shape[1], best // target.shape[1]], axis=1)


def square_picture(picture: images.Image) -> images.Image:
    """Padded with white at right or bottom to a square."""
    height, width = picture.array.shape[:2]
    side = max(height, width)
    padded = np.pad(picture.array, ((0, side - height), (0, side - width), (0, 0)), constant_values=WHITE)
    return replace(picture, array=padded)


def evaluate_keypoints(subject: Subject, data: Keypoints, job: Job) -> Outcome:
    """Recall as the paper counts it, and PCK per pair and per point; drawn again are the pairs inside each class."""
    rows, layer = int(job.settings["rows"]), int(job.settings["layer"])
    transform = replace(subject.transform, mode="square", size=rows * subject.model.patch, patch=subject.model.patch)

    @lru_cache(maxsize=128)
    def look(path: Path) -> tuple[Tensor, int]:
        picture = square_picture(read_declared(path))
        return patch_map(subject, transform.apply(picture), layer), picture.array.shape[0]

    strict: list[NDArray[np.bool_]] = []
    right: list[NDArray[np.bool_]] = []
    for done, pair in enumerate(data.pairs, 1):
        (source, side), (target, target_side) = look(pair.source), look(pair.target)
        cell = target_side / target.shape[1]
        found = match_points(source, target, pair.source_points / side)
        strict.append(keypoints_right(found * cell, pair.target_points, pair.box_side, inclusive=False))
        right.append(keypoints_right((found + 0.5) * cell, pair.target_points, pair.box_side))
        job.progress("pairs", done, len(data.pairs))
    ids = [pair.id for pair in data.pairs]
    hits, counts = np.array([one.sum() for one in right]), np.array([len(one) for one in right])
    groups = sorted({pair.group for pair in data.pairs})
    of_class = np.array([[int(pair.group == group) for pair in data.pairs] for group in groups])
    sizes = of_class.sum(1).tolist()
    strict_hits = of_class * np.array([one.sum() for one in strict])
    points = of_class * counts

    def recall(times: NDArray[np.int64]) -> float:
        asked = points @ times
        return 100 * float(np.mean((strict_hits @ times)[asked > 0] / asked[asked > 0]))

    def of_points(times: NDArray[np.int64]) -> float:
        return 100 * pck_per_point(hits, counts, times)

    scores = [
        set_score("recall", recall, ids, unit="pair", sizes=sizes, variant="paper"),
        mean_score("pck_pair", 100 * pck_by_pair(hits, counts), ids, unit="pair"),
        set_score("pck_point", of_points, ids, unit="pair", sizes=sizes),
    ]
    by_class = 100 * strict_hits.sum(1) / points.sum(1)
    breakdown = {"recall_by_class": {name: float(value) for name, value in zip(groups, by_class, strict=True)}}
    return Outcome(scores, (), {"alpha": PCK_ALPHA}, breakdown)
