"""Exact nearest neighbours in a store by cosine, read block by block so that memory does not grow with the store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.errors import UsageError
from opendino.features.store import Store

PAIRS_ROWS = 1000


@dataclass(frozen=True)
class Neighbour:
    """A row that was found. cosine: with the query, 1 for the same direction."""

    id: str
    cosine: float


@dataclass(frozen=True)
class Usual:
    """Cosine between random pairs of the store's rows: what "alike" means here. Percentiles 5, 50, 95, 99."""

    p5: float
    p50: float
    p95: float
    p99: float


def find_neighbours(
    store: Store,
    query: NDArray[np.float32],
    k: int = 10,
    *,
    column: str = "cls",
    without: Collection[str] = (),
    rows: int = 65_536,
) -> list[Neighbour]:
    """The k rows with the largest cosine to a query, nearest first; of equal ones the earlier row comes first.

    Args:
        query: [D], of the same model and transform (`Store.require`).
        column: `cls` or `mean`.
        without: ids to leave out, such as the query's own.
        rows: read at once.
    Returns:
        Fewer than k when the store has fewer; never a made-up row.
    Raises:
        UsageError: k below 1, or a query of another size or not finite.
    """
    if k < 1:
        raise UsageError(f"-k {k}", "must be at least 1")
    if query.shape != (store.info.dim,) or not np.isfinite(query).all():
        raise UsageError("query", f"must be {store.info.dim} finite numbers, got {list(query.shape)}")
    unit = F.normalize(_as_tensor(query), dim=0)
    best: list[Neighbour] = []
    for ids, vectors in store.blocks(column, rows):
        cosine = F.normalize(_as_tensor(vectors), dim=1) @ unit
        values, places = cosine.sort(descending=True, stable=True)
        # A row more for each id that may have to be left out.
        values, places = values[: k + len(without)], places[: k + len(without)]
        found = [Neighbour(ids[place], value) for value, place in zip(values.tolist(), places.tolist(), strict=True)]
        best = sorted([*best, *(one for one in found if one.id not in without)], key=lambda one: -one.cosine)[:k]
    return best


def usual_cosines(store: Store, column: str = "cls", seed: int = 0) -> Usual | None:
    """Percentiles of the cosine between random pairs of at most 1,000 rows; None below three rows."""
    count = len(store)
    if count < 3:
        return None
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(count, min(count, PAIRS_ROWS), replace=False))
    parts, start = [], 0
    for ids, vectors in store.blocks(column):
        inside = chosen[(chosen >= start) & (chosen < start + len(ids))] - start
        parts.append(_as_tensor(vectors[inside]))
        start += len(ids)
    unit = F.normalize(torch.cat(parts), dim=1)
    pairs = (unit @ unit.T)[torch.triu_indices(len(unit), len(unit), 1).unbind()]
    return Usual(*(float(value) for value in np.percentile(pairs.numpy(), (5, 50, 95, 99))))


def _as_tensor(vectors: NDArray[np.float32]) -> Tensor:
    """A copy that torch may own: Arrow's buffers are read-only."""
    return torch.from_numpy(np.array(vectors, np.float32))
