"""Instance retrieval by the cosine of CLS: revisited Oxford and Paris, AmsterTime, and any labelled pictures.

Source: arXiv 2508.10104, D.8. "Ours": pictures go through the model's own transform and queries are not cropped to
their boxes, on which the paper is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.errors import DataError
from opendino.evaluation.cache import features
from opendino.evaluation.datasets.instances import Instances, Query
from opendino.evaluation.datasets.units import evenly
from opendino.evaluation.examples import MOST, Example, of_neighbours
from opendino.evaluation.metrics.retrieval import average_precision, hit_ranks, recall_at, revisited_aps
from opendino.evaluation.protocol import Job, Outcome, Score, Subject, mean_score

KS = (1, 5, 10)
NEAREST = 5
"""Pictures that are drawn for a query."""


def rank(gallery: Tensor, query: Tensor) -> NDArray[np.int64]:
    """Rows of [n, D] unit vectors from the nearest to [D] on; equal similarities by row."""
    return np.argsort(-(gallery @ query).numpy(), kind="stable")


def evaluate_retrieval(subject: Subject, data: Instances, job: Job) -> Outcome:
    """mAP as each set defines it, resampled by query; of AmsterTime both directions of a pair are one unit."""
    bank = features(subject, data.gallery, job, "gallery")
    asked = bank if data.queries is None else features(subject, data.queries, job, "queries")
    if skipped := [*bank.skipped, *(asked.skipped if asked is not bank else ())]:
        # Indices of the truth count the pictures as listed.
        more = f", and {len(skipped) - 1} more pictures" if len(skipped) > 1 else ""
        raise DataError(skipped[0].id, f"left out: {skipped[0].reason}{more}", "retrieval needs every picture")
    gallery, queries = F.normalize(bank.cls, dim=1), F.normalize(asked.cls, dim=1)
    ids = [question.id for question in data.questions]
    if data.kind == "revisited":
        scores = _revisited(gallery, queries, data.questions)
        return Outcome(scores, (), {"query_crop": False}, examples=_examples(data, gallery, queries))
    if data.kind == "pairs":
        both = [
            (_rank_of(gallery, queries, question.index) + _rank_of(queries, gallery, question.index)) / 2
            for question in data.questions
        ]
        score = mean_score("map", 100 * np.array(both), ids, unit="pair")
        return Outcome([score], (), {"directions": "both"}, examples=_examples(data, gallery, queries))
    ranks = [hit_ranks(rank(gallery, queries[q.index]), q.easy, q.junk) for q in data.questions]
    aps = [100 * average_precision(hits, len(q.easy)) for hits, q in zip(ranks, data.questions, strict=True)]
    recalls = [
        mean_score(f"recall_at_{k}", [100 * recall_at(hits, k) for hits in ranks], ids, unit="query") for k in KS
    ]
    scores = [mean_score("map", aps, ids, unit="query"), *recalls]
    return Outcome(scores, examples=_examples(data, gallery, queries))


def _examples(data: Instances, gallery: Tensor, queries: Tensor) -> list[Example]:
    """Some queries beside their nearest pictures."""
    asked = data.gallery if data.queries is None else data.queries
    drawn = []
    for question in evenly(data.questions, MOST):
        order = rank(gallery, queries[question.index])
        order = order[~np.isin(order, list(question.junk))][:NEAREST]
        wanted = {question.index} if data.kind == "pairs" else question.easy | question.hard
        nearest = [(data.gallery.read(int(row)).array, int(row) in wanted) for row in order]
        says = f"{sum(right for _, right in nearest)} of {len(nearest)} right, {len(wanted)} to be found"
        drawn.append(of_neighbours(question.id, asked.read(question.index).array, nearest, says))
    return drawn


def _revisited(gallery: Tensor, queries: Tensor, questions: Sequence[Query]) -> list[Score]:
    found = [(q.id, revisited_aps(rank(gallery, queries[q.index]), q.easy, q.hard, q.junk)) for q in questions]
    scores = []
    for setup in ("easy", "medium", "hard"):
        known = [(name, 100 * aps[setup]) for name, aps in found if np.isfinite(aps[setup])]
        if known:
            scores.append(mean_score(f"map_{setup}", [v for _, v in known], [n for n, _ in known], unit="query"))
    return scores


def _rank_of(gallery: Tensor, queries: Tensor, index: int) -> float:
    return average_precision(hit_ranks(rank(gallery, queries[index]), {index}), 1)
