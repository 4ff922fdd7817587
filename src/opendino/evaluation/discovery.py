"""Object discovery without labels: TokenCut's normalised cut of the patch graph, scored by CorLoc.

Source: Wang et al., arXiv 2202.11539; patches of the last layer and a swept threshold as in arXiv 2508.10104, D.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.evaluation.datasets.boxes import Boxed, Boxes
from opendino.evaluation.datasets.units import evenly
from opendino.evaluation.dense import native_input, patch_map, whole_input
from opendino.evaluation.examples import MOST, of_boxes
from opendino.evaluation.metrics.boxes import is_localised
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Subject, mean_score
from opendino.evaluation.reading import read_each

WEAK = 1e-5
"""Weight of an edge below the threshold: the graph stays connected."""
DENSE_TOKENS = 600
"""Up to so many patches all eigenvectors cost less than Lanczos's start."""
TAUS = tuple(round(0.05 * step, 2) for step in range(9))
"""Swept in arXiv 2508.10104, D.4."""


Box = tuple[float, float, float, float]
"""xyxy in pixels."""


@dataclass(frozen=True)
class Cut:
    """box: xyxy in pixels of the map's own grid times the patch; eigenvalue: second smallest; mask [h, w] bool."""

    box: tuple[int, int, int, int]
    eigenvalue: float
    mask: NDArray[np.bool_]


def token_cut(patches: Tensor, tau: float) -> Cut:
    """Split [h, w, D] patches in two and box the part that holds the strongest patch; boxes in patches, ends exclusive.

    A graph with one weight everywhere has no cut: the whole picture is returned, with eigenvalue 0.
    """
    from scipy.ndimage import label

    height, width = patches.shape[:2]
    units = F.normalize(patches.flatten(0, 1).double(), dim=1).numpy()
    graph = np.where(units @ units.T > tau, 1.0, WEAK)
    if (graph == graph[0, 0]).all():
        return Cut((0, 0, width, height), 0.0, np.ones((height, width), bool))
    value, vector = second_eigenvector(graph)
    seed = int(np.abs(vector).argmax())
    side = vector > vector.mean()
    foreground = (side == side[seed]).reshape(height, width)
    parts, _ = label(foreground)
    mask = parts == parts.flat[seed]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Cut((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), value, mask)


def second_eigenvector(graph: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Second smallest generalised eigenpair of (D - A, D) for a symmetric graph A [n, n], D its row sums.

    Solved as the second largest eigenpair of D^-1/2 A D^-1/2, whose eigenvalues are 1 - those; by Lanczos when large.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    root = 1 / np.sqrt(graph.sum(1))
    normed = graph * root[:, None] * root
    count = len(graph)
    if count <= DENSE_TOKENS:
        # All of them: asked for two alone, LAPACK finds none where many eigenvalues are equal, as above a high tau.
        values, vectors = (part[..., -2:] for part in eigh(normed))
    else:
        values, vectors = eigsh(normed, k=2, which="LA", v0=np.sqrt(np.arange(1, count + 1) / count))
    second = int(np.argsort(values)[0])
    return float(1 - values[second]), root * vectors[:, second]


def evaluate_discovery(subject: Subject, data: Boxes, job: Job) -> Outcome:
    """CorLoc at the stated threshold, at the best of `taus` for the other half of the pictures, and for all of them.

    Which threshold parts objects depends on how alike the patches of a model are at all, so one number for all models
    compares them unfairly; one chosen on the scored pictures, as the paper does, flatters. Hence the halves.
    """
    tau = float(job.settings["tau"])
    taus = sorted({*job.settings["taus"], tau})
    rows = int(job.settings["rows"])
    hits: list[list[float]] = []
    ids: list[str] = []
    kept: list[tuple[Boxed, NDArray[np.uint8], list[Box], list[NDArray[np.bool_]]]] = []
    wanted = {one.id for one in evenly(data.pictures, MOST)}
    skipped = list(data.skipped)
    for one, picture in read_each(data.pictures, Boxed.read, skipped, job, "pictures"):
        image = native_input(subject, picture) if rows == 0 else whole_input(subject, picture, rows)
        patches = patch_map(subject, image, int(job.settings["layer"]))
        height, width = picture.array.shape[:2]
        # At full resolution the grid covers the padded picture, else the picture itself.
        seen = image.shape[1:] if rows == 0 else (height, width)
        scale = seen[1] / patches.shape[1], seen[0] / patches.shape[0]
        cuts = [token_cut(patches, each) for each in taus]
        boxes = [_to_pixels(cut, scale, width, height) for cut in cuts]
        hits.append([100.0 * is_localised(box, one.boxes) for box in boxes])
        ids.append(one.id)
        if one.id in wanted:
            kept.append((one, picture.array, boxes, [_in_pixels(cut.mask, seen)[:height, :width] for cut in cuts]))
    table = np.array(hits)
    scores = [mean_score("corloc", table[:, taus.index(tau)], ids)]
    if len(taus) > 1:
        scores.append(chosen_on_all(table, taus, ids))
    if len(taus) > 1 and len(ids) > 1:
        scores.append(chosen_on_other_half(table, taus, ids))
    best = int(table.mean(0).argmax())
    examples = []
    for one, array, boxes, parts in kept:
        went = "found" if hits[ids.index(one.id)][best] else "missed"
        says = f"{went} at threshold {taus[best]}, the best of {len(taus)}"
        examples.append(of_boxes(one.id, array, one.boxes, boxes[best], parts[best], says))
    return Outcome(scores, skipped, examples=examples)


def _in_pixels(mask: NDArray[np.bool_], size: Sequence[int]) -> NDArray[np.bool_]:
    """[h, w] patches as [H, W] pixels."""
    rows, columns = (np.arange(pixels) * count // pixels for pixels, count in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def chosen_on_all(table: NDArray[np.float64], taus: list[float], ids: list[str]) -> Score:
    """The paper's number: hits [n, taus] at the threshold that is best on the scored pictures themselves."""
    best = int(table.mean(0).argmax())
    choice = Choice({"tau": taus[best]}, "test", [{"tau": tau} for tau in taus], table.mean(0).tolist())
    return mean_score("corloc_best_tau", table[:, best], ids, variant="paper", choice=choice)


def chosen_on_other_half(table: NDArray[np.float64], taus: list[float], ids: list[str]) -> Score:
    """Every second picture at the threshold that is best for the rest, and the other way round."""
    halves = [slice(0, None, 2), slice(1, None, 2)]
    best = [int(table[half].mean(0).argmax()) for half in reversed(halves)]
    hits = np.empty(len(table))
    for half, column in zip(halves, best, strict=True):
        hits[half] = table[half, column]
    choice = Choice({"tau": [taus[column] for column in best]}, "other half")
    return mean_score("corloc_held_out_tau", hits, ids, choice=choice)


def _to_pixels(cut: Cut, scale: tuple[float, float], width: int, height: int) -> Box:
    left, top, right, bottom = cut.box
    across, down = scale
    return left * across, top * down, min(right * across, width), min(bottom * down, height)
