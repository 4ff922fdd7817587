"""k-NN: the class that the nearest pictures of a bank vote for, as in DINO's evaluation, with three read-outs.

Source: Wu et al., arXiv 1805.01978, section 3.4 (cosine, votes exp(s / 0.07)). The read-out matters on small data:
the same trained CLS scored 14.4 centred and 19.4 standardised, so each score names its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.errors import ShapeError, UsageError

Readout = Literal["raw", "centred", "standardised"]
READOUTS: tuple[Readout, ...] = ("raw", "centred", "standardised")
TEMPERATURE = 0.07
BANK_CHUNK = 16_384
"""Rows of the bank that are compared at once."""


@dataclass(frozen=True)
class KnnScore:
    """One setting's answers, in the order of the queries.

    predictions [q] int64; correct [q] bool; among_five [q] bool: the true class is among the five with most votes.
    """

    k: int
    readout: Readout
    predictions: NDArray[np.int64]
    correct: NDArray[np.bool_]
    among_five: NDArray[np.bool_]

    @property
    def percent(self) -> float:
        """Top-1 accuracy, 0 to 100."""
        return 100 * float(self.correct.mean())


def score_knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    ks: Sequence[int] = (10,),
    readouts: Sequence[Readout] = ("standardised",),
    chunk: int = 512,
) -> list[KnnScore]:
    """Classify queries by their nearest neighbours in a bank.

    Args:
        bank, queries: [n, D] and [q, D] features, any float dtype.
        bank_labels, query_labels: [n] and [q] int64, 0 or more; a class may be absent from the bank.
        ks: neighbours; more than n are taken as n.
        readouts: `raw` features, `centred` on the bank's mean, or `standardised` (also divided by the bank's standard
            deviation per dimension; a constant one counts as 0). All are then scaled to length 1.
        chunk: queries scored at once; the result does not depend on it.
    Returns:
        A score per read-out and k, in this order. Ties: equal similarities rank by bank index, equal votes go to the
        lowest class. A class without a vote is among no five.
    Raises:
        ShapeError, UsageError: sizes do not fit, a label is negative, k < 1.
    """
    _check(bank, bank_labels, queries, query_labels, ks)
    num_classes = int(bank_labels.max()) + 1
    truth = query_labels.cpu().numpy()
    largest = min(max(ks), len(bank))
    scores = []
    for readout in readouts:
        similarity, index = nearest(bank, queries, largest, readout, chunk=chunk)
        # The largest similarity leaves the exponent: the votes keep their order and cannot overflow.
        votes = ((similarity - similarity[:, :1]).double() / TEMPERATURE).exp()
        labels = bank_labels.to(index.device)[index]
        for k in ks:
            answers, among = [], []
            for part in torch.arange(len(queries), device=index.device).split(chunk):
                sums = torch.zeros(len(part), num_classes, dtype=torch.float64, device=votes.device)
                sums.scatter_add_(1, labels[part, :k], votes[part, :k])
                # numpy's argmax takes the first of equal values; torch's promises nothing.
                table = sums.cpu().numpy()
                answers.append(table.argmax(axis=1))
                among.append(_among(table, truth[part.cpu().numpy()], 5))
            answer = np.concatenate(answers)
            scores.append(KnnScore(k, readout, answer, answer == truth, np.concatenate(among)))
    return scores


def _among(votes: NDArray[np.float64], classes: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """[q] whether one class a row of votes [q, C] is voted for, and among the `most` first; ties by class."""
    count = votes.shape[1]
    own = votes[np.arange(len(votes)), np.minimum(classes, count - 1)][:, None]
    before = (votes > own) | ((votes == own) & (np.arange(count) < classes[:, None]))
    among: NDArray[np.bool_] = (classes < count) & (own[:, 0] > 0) & (before.sum(axis=1) < most)
    return among


def nearest(
    bank: Tensor, queries: Tensor, k: int, readout: Readout, *, chunk: int = 512, bank_chunk: int = BANK_CHUNK
) -> tuple[Tensor, Tensor]:
    """Similarities and bank rows [q, k] of the k nearest, best first; equal similarities by bank row.

    The bank is read in parts of `bank_chunk` rows and never copied whole, so it may be a memory-mapped file. What is
    held beside it: one part in float32, its products with `chunk` queries, and k pairs a query.
    """
    readings = _statistics(bank, readout)
    rows = _apply(queries, readings)
    none = rows.new_empty(0, dtype=torch.int64)
    best = [(part.new_empty(len(part), 0), none.new_empty(len(part), 0)) for part in rows.split(chunk)]
    for start in range(0, len(bank), bank_chunk):
        keys = _apply(bank[start : start + bank_chunk], readings).to(rows.device)
        for number, part in enumerate(rows.split(chunk)):
            values, index = _top(part @ keys.T, min(k, len(keys)))
            values, index = torch.cat([best[number][0], values], 1), torch.cat([best[number][1], index + start], 1)
            # Rows of earlier parts stand first, so a stable sort keeps equal values in order of rows.
            order = values.sort(dim=1, descending=True, stable=True).indices[:, :k]
            best[number] = values.gather(1, order), index.gather(1, order)
    return torch.cat([values for values, _ in best]), torch.cat([index for _, index in best])


def read_out(bank: Tensor, queries: Tensor, readout: Readout) -> tuple[Tensor, Tensor]:
    """Both sides in float32, shifted and scaled by statistics of the bank alone, then of length 1."""
    readings = _statistics(bank, readout)
    return _apply(bank, readings), _apply(queries, readings)


def _statistics(bank: Tensor, readout: Readout) -> tuple[Tensor, Tensor] | None:
    """Mean [1, D] and scale [1, D] float32 of the read-out, None for raw; summed in float64, part by part."""
    if readout == "raw":
        return None
    parts = bank.split(BANK_CHUNK)
    mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0) / len(bank)
    if readout == "centred":
        return mean[None].float(), torch.ones_like(mean[None], dtype=torch.float32)
    squares = torch.stack([(part.double() - mean).square().sum(dim=0) for part in parts]).sum(dim=0)
    std = (squares / len(bank)).sqrt()
    # A dimension that is constant up to rounding would only add noise at full weight.
    scale = torch.where(std > 1e-6 * std.max(), 1 / std, 0.0)
    return mean[None].float(), scale[None].float()


def _apply(rows: Tensor, readings: tuple[Tensor, Tensor] | None) -> Tensor:
    """[n, D] in float32, shifted and scaled where asked, then of length 1."""
    rows = rows.float()
    if readings is not None:
        mean, scale = (part.to(rows.device) for part in readings)
        rows = (rows - mean) * scale
    return F.normalize(rows, dim=1)


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row in order; equal values by column, which topk alone does not promise."""
    extra = min(k + 1, similarity.shape[1])
    values, index = similarity.topk(extra, dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().flatten()
    if len(tied):
        ordered = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied], index[tied] = ordered.values[:, :extra], ordered.indices[:, :extra]
    return values[:, :k], index[:, :k]


def _check(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, ks: Sequence[int]) -> None:
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1]:
        raise ShapeError("k-NN", f"bank {tuple(bank.shape)} and queries {tuple(queries.shape)} must share their width")
    if len(bank) != len(bank_labels) or len(queries) != len(query_labels) or not len(bank) or not len(queries):
        raise ShapeError("k-NN", "every feature needs a label, and both sides at least one picture")
    if int(bank_labels.min()) < 0 or int(query_labels.min()) < 0:
        raise UsageError("k-NN", "pictures without a label cannot be scored", "leave them out")
    if not ks or min(ks) < 1:
        raise UsageError("k-NN", f"k must be at least 1, got {list(ks)}")
