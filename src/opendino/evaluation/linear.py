"""Linear probe: L2-penalised multinomial logistic regression on standardised frozen features, fitted by L-BFGS.

A convex fit with its penalty chosen on a held-out fifth of the training pictures needs no learning-rate grid and no
seed; it is "ours", not the SGD protocol of the paper.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.errors import ShapeError, UsageError

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4)
"""Tried from strong to weak, each started at the last one's solution."""
HELD_OUT_SHARE = 0.2
SCORE_TOLERANCE = 1e-4
"""Accuracy no longer moves below it; scikit-learn stops there too."""
PATIENCE = 2
"""Weaker penalties are no longer tried after so many in a row without a better held-out accuracy."""


@dataclass(frozen=True)
class LinearModel:
    """Scores are features @ weight + bias, features standardised first. weight [D, C]; bias [C]; mean, scale [D]."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """[n, D] -> [n, C]."""
        return ((features.float() - self.mean) * self.scale) @ self.weight + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """Class per row, [n, D] -> [n] int64; the lowest of equals."""
        return torch.from_numpy(self.logits(features).cpu().numpy().argmax(axis=1))


@dataclass(frozen=True)
class LinearChoice:
    """A model fitted on all of train with the penalty best on held-out train; held_out: percent per penalty tried."""

    model: LinearModel
    penalty: float
    held_out: Mapping[float, float]


@dataclass(frozen=True)
class LinearScore:
    """penalty: the chosen one; held_out: percent per penalty tried; predictions [q], correct [q] on the queries."""

    penalty: float
    held_out: Mapping[float, float]
    predictions: NDArray[np.int64]
    correct: NDArray[np.bool_]

    @property
    def percent(self) -> float:
        """Top-1 accuracy, 0 to 100."""
        return 100 * float(self.correct.mean())


def fit_linear(
    features: Tensor,
    labels: Tensor,
    penalty: float,
    *,
    num_classes: int | None = None,
    start: LinearModel | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 300,
) -> LinearModel:
    """Minimise mean cross-entropy + penalty / 2 * |weight|^2; the bias is free.

    Args:
        features: [n, D]; standardised here by their own mean and standard deviation.
        labels: [n] int64 in [0, C).
        penalty: 1 / (n C) of scikit-learn's LogisticRegression.
        start: a solution of the same size to start from.
        tolerance: largest entry of the gradient at which the fit ends.
    """
    if features.ndim != 2 or len(features) != len(labels) or not len(features):
        raise ShapeError("linear probe", f"features {tuple(features.shape)} do not fit labels {tuple(labels.shape)}")
    if penalty <= 0 or int(labels.min()) < 0:
        raise UsageError("linear probe", "needs a penalty above 0 and a label for every picture")
    x = features.float()
    mean = x.mean(dim=0)
    std = (x - mean).square().mean(dim=0).sqrt()
    scale = torch.where(std > 1e-6 * std.max(), 1 / std, 0.0)
    x = (x - mean) * scale
    classes = num_classes or int(labels.max()) + 1
    weight = x.new_zeros(x.shape[1], classes) if start is None else start.weight.clone()
    bias = x.new_zeros(classes) if start is None else start.bias.clone()
    weight.requires_grad_(), bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        history_size=10,
        tolerance_grad=tolerance,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, labels) + 0.5 * penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearModel(weight.detach(), bias.detach(), mean, scale)


def score_linear(
    train: Tensor,
    train_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> LinearScore:
    """Choose the penalty on a held-out fifth of `train`, fit again on all of it, score the queries once.

    The held-out pictures are a fifth of each class, drawn with `seed`; a class with one picture is not held out.
    """
    num_classes = int(torch.cat([train_labels, query_labels]).max()) + 1
    choice = fit_best_linear(train, train_labels, num_classes, penalties=penalties, seed=seed)
    predictions = choice.model.predict(queries).numpy()
    return LinearScore(choice.penalty, choice.held_out, predictions, predictions == query_labels.cpu().numpy())


def fit_best_linear(
    train: Tensor,
    train_labels: Tensor,
    num_classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> LinearChoice:
    """Choose the penalty on a held-out fifth of each class, then fit again on all."""
    fit = functools.partial(fit_linear, num_classes=num_classes, tolerance=SCORE_TOLERANCE, max_iterations=100)
    held = held_out_mask(train_labels.cpu().numpy(), seed)
    kept_x, kept_y, held_x, held_y = train[~held], train_labels[~held], train[held], train_labels[held]
    held_out: dict[float, float] = {}
    model: LinearModel | None = None
    best, since_best = -1.0, 0
    if held.any():
        for penalty in sorted(penalties, reverse=True):
            model = fit(kept_x, kept_y, penalty, start=model)
            held_out[penalty] = 100 * float((model.predict(held_x) == held_y.cpu()).float().mean())
            since_best = 0 if held_out[penalty] > best else since_best + 1
            best = max(best, held_out[penalty])
            if since_best == PATIENCE:
                break
    chosen = max(held_out, key=lambda p: (held_out[p], p)) if held_out else sorted(penalties)[len(penalties) // 2]
    return LinearChoice(fit(train, train_labels, chosen), chosen, held_out)


def held_out_mask(labels: NDArray[np.int64], seed: int, share: float = HELD_OUT_SHARE) -> Tensor:
    """[n] bool: a share of each class, drawn with `seed`, at least one; a class with one picture is not held out."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        held[members[:count]] = True
    return torch.from_numpy(held)
