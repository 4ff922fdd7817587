"""Equal and nearly equal pictures among millions, by hashes alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NEAR_BITS = 12
"""Pictures whose hashes differ in at most so many of 256 bits are near duplicates."""
_BANDS = 16
MAX_BUCKET = 2000
"""Pictures that share one of 16 pieces of the hash and are all compared; in a fuller bucket only neighbours are."""
_NEIGHBOURS, _BLOCK = 32, 65_536
_SCATTERED = np.array([row * 16 + (piece + 5 * row) % 16 for piece in range(_BANDS) for row in range(16)])
"""Bits in the order of pieces, each piece one cell of every row and column. Cells near each other agree in most
pictures: pieces that are rows were equal for thousands of pictures that are not alike, and all of them compared.
"""
_ONES = np.array([byte.bit_count() for byte in range(256)], np.uint8)


def near_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Pairs (i, j, bits that differ) with i < j at most NEAR_BITS apart, each once, in no order.

    Cut in 16 pieces, two hashes that differ in fewer than 16 bits agree in one piece at least; so only pictures with an
    equal piece are compared, and none is missed but in buckets fuller than MAX_BUCKET.

    Args:
        hashes: [n, 32] uint8.
    """
    if not len(hashes):
        return
    pieces = np.empty((len(hashes), _BANDS), np.uint16)
    for start in range(0, len(hashes), _BLOCK):
        bits = np.unpackbits(hashes[start : start + _BLOCK], axis=1)[:, _SCATTERED]
        pieces[start : start + _BLOCK] = np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint16)
    leading = np.ascontiguousarray(hashes).view(np.uint64).reshape(len(hashes), -1)[:, 0]
    for band in range(_BANDS):
        order = np.lexsort((leading, pieces[:, band]))
        ordered = pieces[order, band]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        sizes = np.diff(np.r_[starts, len(ordered)])
        crowded = np.repeat(sizes > MAX_BUCKET, sizes)
        # Places whose bucket reaches at least `step` places further; they only get fewer.
        places = np.arange(len(ordered))
        step = 0
        while len(places):
            step += 1
            places = places[places + step < len(ordered)]
            places = places[ordered[places + step] == ordered[places]]
            if step > _NEIGHBOURS:
                places = places[~crowded[places]]
            yield from _compare(order[places], order[places + step], hashes, pieces, band)


def _compare(
    ones: np.ndarray, others: np.ndarray, hashes: np.ndarray, pieces: np.ndarray, band: int
) -> Iterator[tuple[int, int, int]]:
    for start in range(0, len(ones), _BLOCK):
        first, second = ones[start : start + _BLOCK], others[start : start + _BLOCK]
        bits = _ONES[hashes[first] ^ hashes[second]].sum(axis=1)
        # Only the first band in which the two agree gives the pair.
        new = (bits <= NEAR_BITS) & ~(pieces[first, :band] == pieces[second, :band]).any(axis=1)
        for one, other, differ in zip(first[new], second[new], bits[new], strict=True):
            yield min(int(one), int(other)), max(int(one), int(other)), int(differ)


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
