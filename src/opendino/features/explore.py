"""What a folder looks like to a model: a map, groups, doubles and odd ones out, from the vectors of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.errors import OpendinoError

MAX_GROUPS = 12
NEIGHBOURS = 8
ODD_NEIGHBOURS = 5
USUAL, NEARLY_EQUAL = 12, 0.99
_SEED = 0


@dataclass(frozen=True)
class Overview:
    """Everything by row number of the n pictures.

    places: [n, 2] in [0, 1], alike pictures near one another. groups: [n] int, 0 the largest. neighbours: [n, m] rows,
    nearest first, m at most NEIGHBOURS; cosines: [n, m] of them. strangeness: [n], 1 minus the mean cosine to the 5
    nearest. usual: of each group the rows nearest to its middle, without those nearly equal to one before.
    doubles: groups of rows whose files are equal to the byte. pairs: the most alike rows of different files,
    (row, row, cosine), most alike first; nearly_equal: how many of such pairs are above NEARLY_EQUAL; usual_top: cosine
    that one in 200 of all pairs of different files reaches, by which to read the others.
    """

    places: NDArray[np.float64]
    groups: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    cosines: NDArray[np.float32]
    strangeness: NDArray[np.float32]
    usual: tuple[tuple[int, ...], ...]
    doubles: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, int, float], ...]
    nearly_equal: int
    usual_top: float


def folders_agree(labels: Sequence[str | None], neighbours: NDArray[np.int64]) -> tuple[float, float] | None:
    """How often the nearest picture has the same label, and how often a random other one would; None without two."""
    places = [row for row, label in enumerate(labels) if label is not None]
    counts = np.unique([labels[row] for row in places], return_counts=True)[1] if places else np.empty(0)
    if len(counts) < 2 or neighbours.shape[1] == 0:
        return None
    share = np.mean([labels[int(neighbours[row, 0])] == labels[row] for row in places])
    chance = (counts * (counts - 1)).sum() / (len(places) * (len(labels) - 1))
    return float(share), float(chance)


def look_over(vectors: NDArray[np.float32], hashes: Sequence[str], most_pairs: int = 12) -> Overview:
    """Compare all pictures with all: memory and time grow with the square, meant for some thousand.

    Args:
        vectors: [n, D]; hashes: of the n files.
    Raises:
        OpendinoError: scikit-learn is missing.
    """
    # Directions that all pictures share say nothing about their differences, and in many models they are the largest.
    centred = vectors - vectors.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    count = len(vectors)
    order = np.argsort(-alike, axis=1, kind="stable")[:, : min(NEIGHBOURS, count - 1)]
    cosines = np.take_along_axis(alike, order, 1)
    nearest = cosines[:, :ODD_NEIGHBOURS]
    strangeness = 1 - nearest.mean(1) if nearest.shape[1] else np.zeros(count, np.float32)
    same: dict[str, list[int]] = {}
    for row, digest in enumerate(hashes):
        same.setdefault(digest, []).append(row)
    upper = np.triu(alike, 1)
    upper[np.tril_indices(count)] = -np.inf
    pairs: list[tuple[int, int, float]] = []
    for flat in np.argsort(-upper, axis=None, kind="stable"):
        a, b = divmod(int(flat), count)
        if len(pairs) == most_pairs or not np.isfinite(upper[a, b]):
            break
        if hashes[a] != hashes[b]:
            pairs.append((a, b, float(upper[a, b])))
    groups = _groups(unit)
    different = np.isfinite(upper) & (_numbers(hashes)[:, None] != _numbers(hashes))
    return Overview(
        _places(unit),
        groups,
        order,
        cosines,
        strangeness,
        tuple(_usual(np.flatnonzero(groups == group), unit) for group in range(int(groups.max()) + 1)),
        tuple(tuple(rows) for rows in same.values() if len(rows) > 1),
        tuple(pairs),
        int((upper[different] > NEARLY_EQUAL).sum()),
        float(np.quantile(upper[different], 0.995)) if different.any() else 0.0,
    )


def _numbers(hashes: Sequence[str]) -> NDArray[np.int64]:
    """[n]: equal numbers for equal hashes."""
    numbers: NDArray[np.int64] = np.unique(list(hashes), return_inverse=True)[1]
    return numbers


def _places(unit: NDArray[np.float32]) -> NDArray[np.float64]:
    """t-SNE from a PCA start; PCA alone for fewer than ten pictures, too few for it."""
    learn = _find_sklearn()
    count = len(unit)
    if count < 10:
        left, values, _ = np.linalg.svd(unit, full_matrices=False)
        flat = np.zeros((count, 2))
        flat[:, : min(2, count)] = (left * values)[:, :2]
    else:
        perplexity = min(30.0, (count - 1) / 3)
        flat = learn.manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=_SEED).fit_transform(unit)
    low, high = flat.min(0), flat.max(0)
    return (flat - low) / np.maximum(high - low, 1e-12)


def _groups(unit: NDArray[np.float32]) -> NDArray[np.int64]:
    """k-means; k from 2 to 12 by the silhouette. One group when there are fewer than six pictures."""
    learn = _find_sklearn()
    best, labels = -np.inf, np.zeros(len(unit), np.int64)
    for count in range(2, min(MAX_GROUPS, len(unit) // 3) + 1):
        found = learn.cluster.KMeans(count, n_init=3, random_state=_SEED).fit_predict(unit)
        if len(np.unique(found)) < 2:
            break
        score = learn.metrics.silhouette_score(unit, found, sample_size=min(1000, len(unit)), random_state=_SEED)
        if score > best:
            best, labels = score, found
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    ranks = np.empty(len(sizes), np.int64)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return ranks[inverse]


def _usual(rows: NDArray[np.int64], unit: NDArray[np.float32]) -> tuple[int, ...]:
    chosen: list[int] = []
    for row in rows[np.argsort(-(unit[rows] @ unit[rows].mean(0)), kind="stable")]:
        if not chosen or (unit[chosen] @ unit[row]).max() < NEARLY_EQUAL:
            chosen.append(int(row))
        if len(chosen) == USUAL:
            break
    return tuple(chosen)


def _find_sklearn() -> Any:
    """The `sklearn` module with the parts used here imported."""
    try:
        import sklearn.cluster
        import sklearn.manifold
        import sklearn.metrics
    except ImportError:
        raise OpendinoError("the map of pictures", "needs scikit-learn", "pip install 'opendino[map]'") from None
    return sklearn
