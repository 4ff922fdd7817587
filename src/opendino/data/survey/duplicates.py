"""Equal and nearly equal pictures among millions, by hashes alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NEAR_BITS = 12
"""Pictures whose hashes differ in at most so many of 256 bits are near duplicates."""
_BANDS = 16
MAX_BUCKET = 2000
"""Pictures that share one of 16 pieces of the hash and are all compared; in a fuller bucket only neighbours are."""
_NEIGHBOURS = 32
_ONES = np.array([byte.bit_count() for byte in range(256)], np.uint8)


def near_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Pairs (i, j, bits that differ) with i < j at most NEAR_BITS apart, each once, in no order.

    Cut in 16 pieces, two hashes that differ in fewer than 16 bits agree in one piece at least; so only pictures with an
    equal piece are compared, and none is missed but in buckets fuller than MAX_BUCKET.

    Args:
        hashes: [n, 32] uint8.
    """
    pieces = np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), _BANDS)
    for band in range(_BANDS):
        order = np.argsort(pieces[:, band], kind="stable")
        ordered = pieces[order, band]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
            if end - start > 1:
                yield from _within(order[start:end], hashes, pieces, band)


def _within(members: np.ndarray, hashes: np.ndarray, pieces: np.ndarray, band: int) -> Iterator[tuple[int, int, int]]:
    reach = len(members) if len(members) <= MAX_BUCKET else _NEIGHBOURS
    if len(members) > MAX_BUCKET:
        members = members[np.lexsort(pieces[members].T)]
    for place in range(len(members) - 1):
        others = members[place + 1 : place + 1 + reach]
        bits = _ONES[hashes[others] ^ hashes[members[place]]].sum(axis=1)
        for other, differ in zip(others[bits <= NEAR_BITS], bits[bits <= NEAR_BITS], strict=True):
            first, second = sorted((int(members[place]), int(other)))
            # Only the first band in which the two agree gives the pair.
            if not (pieces[first, :band] == pieces[second, :band]).any():
                yield first, second, int(differ)


def group_pairs(pairs: list[tuple[int, int, int]]) -> list[list[int]]:
    """Connected groups, each sorted, in the order of their first members."""
    parent: dict[int, int] = {}

    def root(one: int) -> int:
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for first, second, _ in pairs:
        a, b = sorted((root(first), root(second)))
        parent[b] = a
    groups: dict[int, list[int]] = {}
    for one in sorted(parent):
        groups.setdefault(root(one), []).append(one)
    return [groups[first] for first in sorted(groups)]
