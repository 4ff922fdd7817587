"""Linear and k-NN segmentation of frozen patches: which class does every pixel belong to, read from one layer?

`seg-linear` here is "ours": the paper's head (batch norm, one linear map) and its grid, fitted on patches of whole,
unaugmented pictures that were extracted once; the paper trains it on random crops for 40,000 steps (arXiv 2508.10104,
D.1). A patch's target is the share of each class among its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data import images
from opendino.data.beside import read_declared
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.masks import IGNORE, Masks, Pair
from opendino.evaluation.datasets.units import evenly
from opendino.evaluation.dense import argmax, patch_map, to_native, whole_input
from opendino.evaluation.examples import MOST, Example, of_classes
from opendino.evaluation.metrics.segmentation import (
    Counts,
    class_counts,
    class_iou,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Subject, set_score
from opendino.evaluation.reading import read_each
from opendino.models.linear_heads import LinearHeads
from opendino.pages.overlay import class_colour
from opendino.train.methods.head_fitting import Recipe, Setting, fit_heads

RATES, DECAYS = (1e-4, 3e-4, 1e-3), (1e-4, 1e-3)
GRID = tuple(Setting(lr, decay) for lr in RATES for decay in DECAYS)
HELD_OUT_EVERY = 5
"""Every fifth training picture chooses the setting. A run of neighbours would be fairer; names do not say which are."""
KNN_TEMPERATURE = 0.02


@dataclass(frozen=True)
class Seen:
    """A picture's patches [h, w, D], the class shares of their pixels [h, w, C] and the mask [H, W] to score."""

    id: str
    patches: Tensor
    shares: Tensor
    mask: NDArray[np.uint8]


def class_shares(mask: NDArray[np.uint8], height: int, width: int, num_classes: int) -> Tensor:
    """[height, width, C]: share of each class among all pixels of a patch; rows of 255 alone are 0.

    A patch border inside a pixel gives that pixel to both sides by area.
    """
    known = torch.from_numpy(mask.astype(np.int64))
    one_hot = F.one_hot(torch.where(known == IGNORE, num_classes, known), num_classes + 1)[..., :num_classes]
    by_rows = torch.einsum("hH,HWc->hWc", _overlap(mask.shape[0], height), one_hot.float())
    return torch.einsum("wW,hWc->hwc", _overlap(mask.shape[1], width), by_rows)


def _overlap(pixels: int, cells: int) -> Tensor:
    """[cells, pixels]: share of each cell that each pixel covers; rows add up to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    left, right = edges[:-1, None], edges[1:, None]
    pixel = torch.arange(pixels, dtype=torch.float64)[None]
    covered = (torch.minimum(right, pixel + 1) - torch.maximum(left, pixel)).clamp_min(0)
    return (covered / (right - left)).float()


def look(subject: Subject, data: Masks, pairs: list[Pair], job: Job, what: str) -> tuple[list[Seen], list[Skipped]]:
    """Patches of whole pictures; a file that cannot be read is skipped by name."""
    seen: list[Seen] = []
    skipped: list[Skipped] = []
    rows, layer = int(job.settings["rows"]), int(job.settings["layer"])

    def read(pair: Pair) -> tuple[images.Image, NDArray[np.uint8]]:
        picture, mask = read_declared(pair.image), data.read(pair)
        if mask.shape != picture.array.shape[:2]:
            sizes = " and ".join(f"{one[1]}x{one[0]}" for one in (picture.array.shape, mask.shape))
            raise DataError(pair.mask, f"picture and mask differ in size ({sizes})")
        return picture, mask

    for pair, (picture, mask) in read_each(pairs, read, skipped, job, f"{what} pictures"):
        patches = patch_map(subject, whole_input(subject, picture, rows), layer)
        height, width = patches.shape[:2]
        seen.append(Seen(pair.id, patches, class_shares(mask, height, width, data.num_classes), mask))
    return seen, skipped


def shares_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy with every pixel of the patches: [b, C], [b, C] -> scalar, a mean over known pixels."""
    return -(shares * logits.log_softmax(dim=-1)).sum() / shares.sum().clamp_min(1e-9)


@dataclass(frozen=True)
class PatchClasses:
    """A head that was chosen among those of the grid by its mIoU."""

    heads: LinearHeads
    head: int
    num_classes: int
    choice: Choice

    def predict(self, one: Seen) -> NDArray[np.int64]:
        """[H, W] class of every pixel, at the mask's own size."""
        return _predict(self.heads, self.head, one)

    def count(self, one: Seen) -> Counts:
        """Confusion of a picture's pixels at the mask's own size."""
        return class_counts(one.mask, self.predict(one), self.num_classes)


def fit_patch_classes(
    kept: list[Seen], held: list[Seen], num_classes: int, job: Job, *, steps: int, batch: int, held_name: str
) -> PatchClasses:
    """Fit the grid of heads on patches of `kept` and choose the one with the best mIoU on `held`."""
    features, shares = _rows(kept)
    heads = LinearHeads(features.shape[1], num_classes, len(GRID), batch_norm=True, dropout=0.1, seed=job.seed)
    recipe = Recipe(steps, batch, "adamw", warmup_steps=max(1, steps // 25))
    fit_heads(
        heads,
        features,
        shares,
        shares_loss,
        GRID,
        recipe,
        seed=job.seed,
        progress=lambda done, total: job.progress("head", done, total),
    )
    tried = []
    for head in range(len(GRID)):
        counts = [class_counts(one.mask, _predict(heads, head, one), num_classes) for one in held]
        tried.append(100 * float(mean_iou(np.sum(counts, axis=0))) if counts else 0.0)
    chosen = int(np.argmax(tried))
    points = [asdict(one) for one in GRID]
    return PatchClasses(heads, chosen, num_classes, Choice(points[chosen], held_name, points, tried))


def evaluate_linear_segmentation(subject: Subject, data: Masks, job: Job) -> Outcome:
    """mIoU of the head whose setting was best on every fifth training picture, fitted on the others."""
    train, bad_train = look(subject, data, list(data.train), job, "train")
    val, bad_val = look(subject, data, list(data.val), job, "val")
    held = train[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    kept = [one for index, one in enumerate(train) if index % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    steps, batch = int(job.settings["steps"]), int(job.settings["batch"])
    fitted = fit_patch_classes(kept, held, data.num_classes, job, steps=steps, batch=batch, held_name="held-out train")
    counts = np.stack([fitted.count(one) for one in val])
    drawn = _examples(data, val, counts, [fitted.predict(one) for one in evenly(val, MOST)])
    return _outcome(counts, val, data, [*bad_train, *bad_val], drawn, fitted.choice)


def evaluate_knn_segmentation(subject: Subject, data: Masks, job: Job) -> Outcome:
    """mIoU of patches that take the mean class shares of their nearest training patches; nothing is fitted."""
    neighbours, val, skipped = look_for_neighbours(subject, data, job)
    counts = neighbours.count(val, data.num_classes, job)
    drawn = _examples(data, val, counts, [neighbours.predict(one) for one in evenly(val, MOST)])
    return _outcome(counts, val, data, skipped, drawn)


@dataclass(frozen=True)
class PatchNeighbours:
    """A bank of training patches [n, D] of length 1 with the class shares of their pixels [n, C], and how many vote."""

    bank: Tensor
    shares: Tensor
    k: int

    def predict(self, one: Seen) -> NDArray[np.int64]:
        """[H, W] class of every pixel, at the mask's own size."""
        votes = knn_shares(self.bank, self.shares, one.patches.flatten(0, 1), self.k)
        maps = votes.unflatten(0, one.patches.shape[:2]).permute(2, 0, 1)
        return argmax(to_native(maps, *one.mask.shape))

    def count(self, seen: list[Seen], num_classes: int, job: Job) -> Counts:
        """[n, 3, C] of n pictures."""
        counts = []
        for one in seen:
            counts.append(class_counts(one.mask, self.predict(one), num_classes))
            job.progress("neighbours", len(counts), len(seen))
        return np.stack(counts)


def look_for_neighbours(subject: Subject, data: Masks, job: Job) -> tuple[PatchNeighbours, list[Seen], list[Skipped]]:
    """The bank of the training pictures, the val pictures, and files that could not be read."""
    train, bad_train = look(subject, data, list(data.train), job, "train")
    val, bad_val = look(subject, data, list(data.val), job, "val")
    features, shares = _rows(train)
    limit = int(job.settings["bank"])
    if len(features) > limit:
        kept = torch.randperm(len(features), generator=torch.Generator().manual_seed(job.seed))[:limit]
        features, shares = features[kept], shares[kept]
    shares = shares / shares.sum(dim=1, keepdim=True)
    bank = PatchNeighbours(F.normalize(features, dim=1), shares, int(job.settings["k"]))
    return bank, val, [*bad_train, *bad_val]


def knn_shares(bank: Tensor, shares: Tensor, queries: Tensor, k: int) -> Tensor:
    """[q, C]: class shares [n, C] of the k nearest of the bank's unit vectors, averaged by softmax(cos / 0.02)."""
    votes = []
    for part in F.normalize(queries, dim=1).split(1024):
        similarity, index = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        weights = (similarity / KNN_TEMPERATURE).softmax(dim=1)
        votes.append(torch.einsum("qk,qkc->qc", weights, shares[index]))
    return torch.cat(votes)


def _rows(seen: list[Seen]) -> tuple[Tensor, Tensor]:
    """Patches [n, D] with a known pixel and their class shares [n, C]."""
    features = torch.cat([one.patches.flatten(0, 1) for one in seen])
    shares = torch.cat([one.shares.flatten(0, 1) for one in seen])
    known = shares.sum(dim=1) > 0
    if not known.any():
        raise DataError("train masks", "hold no scored class", "check --set ignore")
    return features[known], shares[known]


def _predict(heads: LinearHeads, head: int, one: Seen) -> NDArray[np.int64]:
    with torch.no_grad():
        logits = heads.one(one.patches.flatten(0, 1), head)
    maps = logits.unflatten(0, one.patches.shape[:2]).permute(2, 0, 1)
    return argmax(to_native(maps, *one.mask.shape))


def _examples(data: Masks, val: list[Seen], counts: Counts, found: list[NDArray[np.int64]]) -> list[Example]:
    """What was predicted for those pictures that are drawn."""
    pairs = {pair.id: pair for pair in data.val}
    right = {one.id: float(pixel_accuracy(own)) for one, own in zip(val, counts, strict=True)}
    return [
        of_classes(
            one.id,
            read_declared(pairs[one.id].image).array,
            one.mask,
            predicted,
            f"{right[one.id]:.0%} of pixels right",
        )
        for one, predicted in zip(evenly(val, MOST), found, strict=True)
    ]


def _outcome(
    counts: Counts,
    val: list[Seen],
    data: Masks,
    skipped: list[Skipped],
    examples: list[Example],
    choice: Choice | None = None,
) -> Outcome:
    ids = [one.id for one in val]

    def score(metric: str, statistic: Callable[[Counts], NDArray[np.float64]]) -> Score:
        return set_score(
            metric, lambda times: 100 * float(statistic(np.tensordot(times, counts, 1))), ids, choice=choice
        )

    each = class_iou(counts.sum(0)).tolist()
    per_class = {name: 100 * value for name, value in zip(data.class_names, each, strict=True)}
    known = {name: value for name, value in per_class.items() if np.isfinite(value)}
    scores = [score("miou", mean_iou), score("macc", mean_accuracy), score("aacc", pixel_accuracy)]
    legend = [(name, class_colour(number)) for number, name in enumerate(data.class_names)]
    return Outcome(scores, skipped, {}, {"iou_by_class": known}, examples=examples, legend=legend)
