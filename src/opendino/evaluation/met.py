"""Which exhibit of the Met is it, and is it one at all? Nearest neighbours with a confidence, scored by GAP.

"Ours": pictures go through the model's own transform; the paper keeps them near their own size. Source: Ypsilantis et
al., arXiv 2202.01747; arXiv 2508.10104, D.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.evaluation.cache import features
from opendino.evaluation.datasets.met import DISTRACTOR, Met, Questions
from opendino.evaluation.metrics.retrieval import global_ap
from opendino.evaluation.protocol import Choice, Job, Outcome, Subject, mean_score, set_score

KS = (1, 2, 3, 5, 7, 10, 15, 20, 50)
TEMPERATURES = (0.01, 0.1, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0, 500.0)
LEAST_VARIANCE = 1e-9
"""Of the largest; directions below it are noise that whitening would blow up."""
CHUNK = 1024


@dataclass(frozen=True)
class Whitening:
    """mean [D] and projection [D, d] that give training features zero mean and unit variance in all directions."""

    mean: Tensor
    projection: Tensor

    def apply(self, features: Tensor) -> Tensor:
        """[n, D] -> [n, d] float32 unit vectors."""
        centred = F.normalize(features.double(), dim=1) - self.mean
        return F.normalize(centred @ self.projection, dim=1).float()


def fit_whitening(features: Tensor) -> Whitening:
    """PCA whitening of [n, D], rows of length 1 first; directions without variance are dropped."""
    x = F.normalize(features.double(), dim=1)
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov((x - mean).T, correction=0))
    kept = values > LEAST_VARIANCE * values[-1]
    return Whitening(mean, vectors[:, kept] / values[kept].sqrt())


@dataclass(frozen=True)
class Neighbours:
    """Of each question the most alike pictures, from the nearest on: similarity [q, k] and class [q, k]."""

    similarity: NDArray[np.float64]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Of the questions that could be read: names, neighbours, which are about exhibits, which are answered right."""

    ids: tuple[str, ...]
    neighbours: Neighbours
    known: NDArray[np.bool_]
    right: NDArray[np.bool_]


def find_neighbours(exhibits: Tensor, labels: Tensor, asked: Tensor, k: int) -> Neighbours:
    """Among unit vectors [n, d] with classes [n]; equal similarities in the order of the exhibits."""
    near, names = [], []
    for part in asked.split(CHUNK):
        similarity = (part @ exhibits.T).numpy()
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        near.append(np.take_along_axis(similarity, order, 1).astype(np.float64))
        names.append(labels.numpy()[order])
    return Neighbours(np.concatenate(near), np.concatenate(names))


def log_odds(found: Neighbours, k: int, temperature: float, num_classes: int) -> NDArray[np.float64]:
    """[q]: how sure the nearest class is against all others, in log space.

    Its confidence is exp(t s) / (sum over the classes among k neighbours of exp(t s) + classes not among them), s the
    best similarity of a class. The log odds order questions alike, but never tie at 1 where fp64 does.
    """
    similarity, classes = found.similarity[:, :k], found.classes[:, :k]
    # Neighbours come nearest first, so a class's first one is its best.
    first = np.array([[name not in row[:place] for place, name in enumerate(row)] for row in classes.tolist()])
    others = np.where(first, temperature * similarity, -np.inf)[:, 1:]
    absent = num_classes - first.sum(axis=1)
    with np.errstate(divide="ignore"):
        rest = np.concatenate([others, np.log(absent.astype(np.float64))[:, None]], axis=1)
        return temperature * similarity[:, 0] - np.logaddexp.reduce(rest, axis=1)


def evaluate_met(subject: Subject, data: Met, job: Job) -> Outcome:
    """GAP, GAP without distractors and accuracy; K and temperature by the GAP of val; drawn again are questions."""
    bank = features(subject, data.exhibits, job, "exhibits")
    whitening = fit_whitening(bank.cls)
    exhibits, count = whitening.apply(bank.cls), len(data.exhibits.classes)
    numbers = np.array([int(name) for name in data.exhibits.classes])
    skipped = list(bank.skipped)

    def ask(questions: Questions, part: str) -> Answers:
        asked = features(subject, questions.pictures, job, part)
        skipped.extend(asked.skipped)
        rows = {questions.pictures.id(index): index for index in range(len(questions.pictures))}
        truth = questions.exhibits[[rows[name] for name in asked.ids]]
        found = find_neighbours(exhibits, bank.labels, whitening.apply(asked.cls), max(KS))
        return Answers(asked.ids, found, truth != DISTRACTOR, numbers[found.classes[:, 0]] == truth)

    val = ask(data.val, "val")
    tried = {
        (k, t): 100 * global_ap(log_odds(val.neighbours, k, t, count), val.right, int(val.known.sum()))
        for k in KS
        for t in TEMPERATURES
    }
    k, temperature = max(tried, key=lambda setting: tried[setting])
    test = ask(data.test, "test")
    confidence, known, right = log_odds(test.neighbours, k, temperature, count), test.known, test.right

    def gap(times: NDArray[np.int64]) -> float:
        return _gap(confidence, right, times, int(times @ known))

    def gap_known(times: NDArray[np.int64]) -> float:
        return _gap(confidence[known], right[known], times, int(times.sum()))

    points = [dict(zip(("k", "temperature"), setting, strict=True)) for setting in tried]
    choice = Choice({"k": k, "temperature": temperature}, "val", points, list(tried.values()))
    names = [name for name, one in zip(test.ids, known.tolist(), strict=True) if one]
    return Outcome(
        [
            set_score("gap", gap, test.ids, unit="query", choice=choice),
            set_score("gap_known", gap_known, names, unit="query", choice=choice),
            mean_score("accuracy", 100.0 * right[known], names, unit="query"),
        ],
        skipped,
        {"whitened": exhibits.shape[1]},
    )


def _gap(confidence: NDArray[np.float64], right: NDArray[np.bool_], times: NDArray[np.int64], num_known: int) -> float:
    return 100 * global_ap(confidence, right, num_known, times) if num_known else float("nan")
