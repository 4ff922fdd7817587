"""A classifier fitted on ImageNet, applied unchanged to its variants, to ObjectNet and to ImageNet-C."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from opendino.data.sources import Skipped, Source
from opendino.errors import DataError
from opendino.evaluation.cache import features
from opendino.evaluation.datasets.objectnet import BORDER_PX, ObjectNet
from opendino.evaluation.datasets.variants import SEVERITIES, Corrupted, Variants
from opendino.evaluation.linear import LinearChoice, fit_best_linear
from opendino.evaluation.metrics.robustness import ALEXNET_ERROR, mapped_correct, mean_corruption_error, real_correct
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Subject, mean_score, set_score
from opendino.features.extract import Bank


def evaluate_ood(subject: Subject, data: Variants, job: Job) -> Outcome:
    """Top-1 of every set that is there. Pictures of ReaL without labels are not scored."""
    fit = _fit(subject, data.train, job)
    scores: list[Score] = []
    skipped: list[Skipped] = []
    for name, variant in data.sets.items():
        bank = features(subject, variant.pictures, job, name)
        skipped += bank.skipped
        allowed = {variant.pictures.id(index): labels for index, labels in enumerate(variant.allowed)}
        logits = fit.model.logits(bank.cls).numpy()
        columns = None if variant.columns is None else list(variant.columns)
        if columns is not None:
            outside = np.ones(logits.shape[1], bool)
            outside[columns] = False
            logits[:, outside] = -np.inf
        scored = [picture for picture in bank.ids if allowed[picture]]
        right = 100.0 * real_correct(logits.argmax(1), [allowed[picture] for picture in bank.ids])
        if not scored:
            raise DataError(name, "holds no picture with a class")
        scores.append(mean_score(f"top1_{name}", right, scored, config={"columns": columns}, choice=_choice(fit)))
    return Outcome(scores, skipped)


def evaluate_corruptions(subject: Subject, data: Corrupted, job: Job) -> Outcome:
    """mCE, low is good; drawn again are the pictures, the same ones in all corruptions."""
    fit = _fit(subject, data.train, job)
    numbers = {name: number for number, name in enumerate(data.train.classes)}
    wrong: dict[tuple[str, str], NDArray[np.bool_]] = {}
    ids: tuple[str, ...] = ()
    for part, source in data.pictures.items():
        bank = features(subject, source, job, "/".join(part))
        if bank.skipped:
            raise DataError(bank.skipped[0].id, f"of {'/'.join(part)} cannot be read: mCE needs the same pictures")
        ids = bank.ids
        truth = torch.tensor([numbers[name.split("/")[0]] for name in ids])
        wrong[part] = (fit.model.predict(bank.cls) != truth).numpy()

    def mce(times: NDArray[np.int64]) -> float:
        share = times / times.sum()
        return mean_corruption_error(
            {name: [float(share @ wrong[name, severity]) for severity in SEVERITIES] for name in ALEXNET_ERROR}
        )

    errors = {
        name: {severity: 100 * float(wrong[name, severity].mean()) for severity in SEVERITIES} for name in ALEXNET_ERROR
    }
    return Outcome([set_score("mce", mce, ids, high_is_good=False, choice=_choice(fit))], (), {}, errors)


def evaluate_objectnet(subject: Subject, data: ObjectNet, job: Job) -> Outcome:
    """Top-1 over the objects that ImageNet knows: any output that names the object is right.

    `top1` looks at all outputs, so one that names no object is wrong; `top1_masked` at those that name one.
    """
    fit = _fit(subject, data.train, job)
    bank = features(subject, data.pictures, job, "objectnet")
    if not bank.ids:
        raise DataError(data.name, "no picture could be read")
    logits, objects = fit.model.logits(bank.cls).numpy(), bank.labels.numpy()
    scores = [
        mean_score(
            metric, 100.0 * mapped_correct(logits, data.outputs, objects, masked=masked), bank.ids, choice=_choice(fit)
        )
        for metric, masked in (("top1", False), ("top1_masked", True))
    ]
    return Outcome(scores, bank.skipped, {"border_px": BORDER_PX, "objects": len(data.outputs)})


def _fit(subject: Subject, train: Source, job: Job) -> LinearChoice:
    bank: Bank = features(subject, train, job, "train")
    return fit_best_linear(bank.cls, bank.labels, len(train.classes), seed=job.seed)


def _choice(fit: LinearChoice) -> Choice:
    points = [{"penalty": penalty} for penalty in fit.held_out]
    return Choice({"penalty": fit.penalty}, "held-out train", points, list(fit.held_out.values()))
