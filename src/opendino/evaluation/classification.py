"""k-NN, the linear probe and the paper's grid of linear heads: protocols that see a picture as its CLS token alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.cache import features
from opendino.evaluation.datasets.classes import Classes
from opendino.evaluation.knn import TEMPERATURE, score_knn
from opendino.evaluation.linear import held_out_mask, score_linear
from opendino.evaluation.protocol import Choice, Job, Outcome, Subject, mean_score
from opendino.models.linear_heads import LinearHeads
from opendino.train.methods.head_fitting import Recipe, Setting, fit_heads

RATES = (*(base * 10.0**power for power in range(-4, 0) for base in (1, 2, 5)), 1.0, 2.0, 5.0)
GRID = tuple(Setting(lr, decay) for lr in RATES for decay in (0.0, 1e-5))
"""The paper's 30 heads (arXiv 2508.10104, D.7)."""
GRID_HELD_OUT = 0.1


@dataclass(frozen=True)
class Sides:
    """CLS [n, D] and labels [n] int64 of both parts in the numbers of train; names of the val pictures."""

    train: Tensor
    train_labels: Tensor
    val: Tensor
    val_labels: Tensor
    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def sides(subject: Subject, data: Classes, job: Job) -> Sides:
    """Extract both parts; pictures without a class are left out and counted among the skipped."""
    train, val = features(subject, data.train, job, "train"), features(subject, data.val, job, "val")
    skipped = [*train.skipped, *val.skipped]
    kept = []
    for bank in (train, val):
        labelled = bank.labels >= 0
        skipped += [
            Skipped(name, "no class") for name, good in zip(bank.ids, labelled.tolist(), strict=True) if not good
        ]
        if not labelled.any():
            raise DataError(data.name, "holds no picture with a class on one side")
        kept.append(labelled)
    ids = tuple(name for name, good in zip(val.ids, kept[1].tolist(), strict=True) if good)
    labels = data.val_numbers[val.labels[kept[1]]]
    return Sides(train.cls[kept[0]], train.labels[kept[0]], val.cls[kept[1]], labels, ids, tuple(skipped))


def evaluate_knn(subject: Subject, data: Classes, job: Job) -> Outcome:
    """Top-1 and top-5 for every k, on raw CLS as published, and standardised, which serves small models better.

    Top-5 needs more than five classes; with fewer it would be 100.
    """
    both = sides(subject, data, job)
    ks = sorted({min(k, len(both.train)) for k in job.settings["k"]})
    found = score_knn(both.train, both.train_labels, both.val, both.val_labels, ks=ks, readouts=("raw", "standardised"))
    scores = []
    for score in found:
        named = f"k{score.k}" + ("" if score.readout == "raw" else f"_{score.readout}")
        config = {"k": score.k, "readout": score.readout}
        scores.append(mean_score(f"top1_{named}", 100.0 * score.correct, both.ids, config=config))
        if data.num_classes > 5:
            scores.append(mean_score(f"top5_{named}", 100.0 * score.among_five, both.ids, config=config))
    return Outcome(scores, both.skipped, {"temperature": TEMPERATURE, "bank": len(both.train)})


def evaluate_linear(subject: Subject, data: Classes, job: Job) -> Outcome:
    """Top-1 of the L2-penalised fit whose penalty was chosen on a held-out fifth of train."""
    both = sides(subject, data, job)
    score = score_linear(both.train, both.train_labels, both.val, both.val_labels, seed=job.seed)
    points = [{"penalty": penalty} for penalty in score.held_out]
    choice = Choice({"penalty": score.penalty}, "held-out train", points, list(score.held_out.values()))
    return Outcome([mean_score("top1", 100.0 * score.correct, both.ids, choice=choice)], both.skipped)


def evaluate_linear_grid(subject: Subject, data: Classes, job: Job) -> Outcome:
    """Top-1 of the paper's grid of SGD heads, all trained in one pass over features that were extracted once.

    The paper trains on random crops and picks the head on the scored pictures. Here crops are not augmented; the number
    of the head picked on a held-out tenth of train is "ours", that of the one picked as the paper does is "paper".
    """
    both = sides(subject, data, job)
    held = held_out_mask(both.train_labels.numpy(), job.seed, GRID_HELD_OUT)
    kept_x, kept_y = both.train[~held], both.train_labels[~held]
    batch = min(int(job.settings["batch"]), len(kept_x))
    steps = max(1, round(float(job.settings["epochs"]) * len(kept_x) / batch))
    heads = LinearHeads(both.train.shape[1], data.num_classes, len(GRID), seed=job.seed)
    fit_heads(
        heads,
        kept_x,
        kept_y,
        F.cross_entropy,
        GRID,
        Recipe(steps, batch, "sgd"),
        seed=job.seed,
        progress=lambda done, total: job.progress("30 heads", done, total),
    )
    with torch.no_grad():
        right = (heads(both.val).numpy().argmax(2) == both.val_labels.numpy()).astype(np.float64) * 100
        chooser = heads(both.train[held]).numpy().argmax(2) == both.train_labels[held].numpy()
    tried = 100 * chooser.mean(1) if held.any() else np.zeros(len(GRID))

    points = [asdict(one) for one in GRID]
    ours, paper = int(tried.argmax()), int(right.mean(1).argmax())
    held_choice = Choice(points[ours], "held-out train", points, tried.tolist())
    test_choice = Choice(points[paper], "test", points, right.mean(1).tolist())
    return Outcome(
        [
            mean_score("top1", right[ours], both.ids, choice=held_choice),
            mean_score("top1_best_on_val", right[paper], both.ids, variant="paper", choice=test_choice),
        ],
        both.skipped,
        {"steps": steps, "batch": batch, "augmented": False},
    )
