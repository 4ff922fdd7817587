"""Fine-S: logistic regression on CLS on twelve small sets, and the mean over those that are there.

C is chosen on a tenth of train, as for `logreg`. VOC 2007 has several classes a picture: one classifier a class, one C
for all of them, mean average precision. Source: arXiv 2508.10104, table 22.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.cache import features
from opendino.evaluation.datasets.finegrained import FineGrained, FineSet
from opendino.evaluation.logistic import HELD_OUT_SHARE, choose_and_fit, fit_logistic
from opendino.evaluation.metrics.multilabel import eleven_point_ap, weighted_ap
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Statistic, Subject, mean_score, set_score
from opendino.features.extract import Bank

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Found:
    """Of one set: its headline number first, that number as a statistic of drawn pictures, and what went with it."""

    scores: Sequence[Score]
    statistic: Statistic
    ids: Sequence[str]
    per_class: float


def evaluate_finegrained(subject: Subject, data: FineGrained, job: Job) -> Outcome:
    """Top-1 (VOC 2007: mAP) of every set that is there, and their mean; pictures are drawn again inside each set."""
    grid = [float(C) for C in 10 ** np.linspace(-6, 5, int(job.settings["grid"]))]
    found: dict[str, _Found] = {}
    skipped: list[Skipped] = []
    for done, (name, one) in enumerate(data.sets.items(), 1):
        train, test = (
            features(subject, one.train, job, f"{name}/train"),
            features(subject, one.test, job, f"{name}/test"),
        )
        skipped += [Skipped(f"{name}/{bad.id}", bad.reason) for bad in (*train.skipped, *test.skipped)]
        score = _score_one_class if one.tags is None else _score_tags
        found[name] = score(name, one, train, test, grid, job.seed)
        job.progress("sets", done, len(data.sets))
    sizes = [len(one.ids) for one in found.values()]
    edges = np.cumsum(sizes)[:-1]

    def mean(times: NDArray[np.int64]) -> float:
        parts = np.split(times, edges)
        return float(np.mean([one.statistic(part) for one, part in zip(found.values(), parts, strict=True)]))

    ids = [f"{name}/{picture}" for name, one in found.items() for picture in one.ids]
    overall = set_score("mean", mean, ids, sizes=sizes, config={"sets": list(found)})
    missing = 12 - len(found)
    return Outcome(
        [overall, *(score for one in found.values() for score in one.scores)],
        skipped,
        {},
        {"mean_per_class": {name: one.per_class for name, one in found.items()}},
        [f"finegrained: {missing} of the 12 sets are not there, so the mean is of {len(found)}"] if missing else [],
    )


def _rows(name: str, bank: Bank) -> Array:
    if not len(bank.ids):
        raise DataError(name, "no picture could be read")
    return bank.cls.numpy().astype(np.float64)


def _score_one_class(name: str, one: FineSet, train: Bank, test: Bank, grid: Sequence[float], seed: int) -> _Found:
    fit = choose_and_fit(_rows(name, train), train.labels.numpy(), grid, seed)
    truth = test.labels.numpy()
    right = 100.0 * (fit.model.predict(_rows(name, test)) == truth)
    per_class = float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))
    config = {"mean_per_class": per_class, "converged": fit.converged}
    score = mean_score(f"top1_{name}", right, test.ids, config=config, choice=fit.choice)
    return _Found([score], lambda times: float(times @ right / times.sum()), test.ids, per_class)


def _score_tags(name: str, one: FineSet, train: Bank, test: Bank, grid: Sequence[float], seed: int) -> _Found:
    assert one.tags is not None
    known = [
        _of_readable(part, bank, tags)
        for part, bank, tags in zip((one.train, one.test), (train, test), one.tags, strict=True)
    ]
    x, y = _rows(name, train), known[0]
    held = np.random.default_rng(seed).permutation(len(x))[: max(1, round(HELD_OUT_SHARE * len(x)))]
    kept = np.setdiff1d(np.arange(len(x)), held)
    tried = {C: _mean_ap(_decide(x[kept], y[kept], x[held], C), y[held]) for C in grid}
    usable = {C: value for C, value in tried.items() if np.isfinite(value)}
    chosen = max(usable, key=lambda C: (usable[C], -C)) if usable else sorted(grid)[len(grid) // 2]
    logits = _decide(x, y, _rows(name, test), chosen)
    choice = Choice({"C": chosen}, "held-out train", [{"C": C} for C in tried], list(tried.values()))

    def mean_ap(times: NDArray[np.int64]) -> float:
        return 100 * _mean_ap(logits, known[1], times)

    def eleven(times: NDArray[np.int64]) -> float:
        return 100 * _mean_ap(logits, known[1], times, eleven_point_ap)

    scores = [
        set_score(f"map_{name}", mean_ap, test.ids, choice=choice),
        set_score(f"map11_{name}", eleven, test.ids, choice=choice),
    ]
    return _Found(scores, mean_ap, test.ids, scores[0].estimate.value)


def _of_readable(source: Any, bank: Bank, tags: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tags of the pictures that could be read, in their order."""
    rows = {source.id(index): index for index in range(len(source))}
    return tags[[rows[name] for name in bank.ids]]


def _decide(x: Array, tags: NDArray[np.int64], asked: Array, C: float) -> Array:
    """[n, classes]: how sure each one-against-the-rest classifier is; a class without both answers says nothing."""
    logits = np.zeros((len(asked), tags.shape[1]))
    for label, column in enumerate(tags.T):
        scored = column >= 0
        if len(np.unique(column[scored])) == 2:
            model, _ = fit_logistic(x[scored], column[scored], C)
            logits[:, label] = model.decision_function(asked)
    return logits


def _mean_ap(logits: Array, tags: NDArray[np.int64], times: Any = None, ap: Any = weighted_ap) -> float:
    """Mean over the classes that have a positive; a picture counts `times`, and not at all where its tag is unknown."""
    count = np.ones(len(tags)) if times is None else np.asarray(times, np.float64)
    present = np.flatnonzero((tags == 1).any(axis=0))
    found = [ap(logits[:, one], tags[:, one] == 1, count * (tags[:, one] >= 0)) for one in present]
    finite = [value for value in found if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
