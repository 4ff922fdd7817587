"""k-NN, linear probe, logistic regression and few-shot: protocols that see a picture as its CLS token alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.cache import features
from opendino.evaluation.datasets.classes import Classes
from opendino.evaluation.knn import TEMPERATURE, score_knn
from opendino.evaluation.linear import score_linear
from opendino.evaluation.protocol import Job, Outcome, Subject, mean_score


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
    """Top-1 for every k, on raw CLS as published, and standardised, which serves small models better."""
    both = sides(subject, data, job)
    ks = sorted({min(k, len(both.train)) for k in job.settings["k"]})
    scores = score_knn(
        both.train, both.train_labels, both.val, both.val_labels, ks=ks, readouts=("raw", "standardised")
    )
    return Outcome(
        [
            mean_score(
                f"top1_k{score.k}" + ("" if score.readout == "raw" else f"_{score.readout}"),
                100.0 * score.correct,
                both.ids,
                config={"k": score.k, "readout": score.readout},
            )
            for score in scores
        ],
        both.skipped,
        {"temperature": TEMPERATURE, "bank": len(both.train)},
    )


def evaluate_linear(subject: Subject, data: Classes, job: Job) -> Outcome:
    """Top-1 of the L2-penalised fit whose penalty was chosen on a held-out fifth of train."""
    both = sides(subject, data, job)
    score = score_linear(both.train, both.train_labels, both.val, both.val_labels, seed=job.seed)
    config = {
        "selected": {"penalty": score.penalty, "on": "held-out train"},
        "held_out": {str(penalty): percent for penalty, percent in score.held_out.items()},
    }
    return Outcome([mean_score("top1", 100.0 * score.correct, both.ids)], both.skipped, config)
