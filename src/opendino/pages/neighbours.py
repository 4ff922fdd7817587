"""Nearest neighbours as pictures: what a query found before training and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendino.pages.page import data_uri, png_bytes


@dataclass(frozen=True)
class Found:
    """The pictures found for a query, nearest first: uint8 [H, W, 3], and whether each is of the query's class."""

    pictures: Sequence[np.ndarray]
    correct: Sequence[bool]


@dataclass(frozen=True)
class Neighbours:
    """A query picture uint8 [H, W, 3], its class in words, and what it found untrained and trained."""

    query: np.ndarray
    label: str
    before: Found
    after: Found


@dataclass(frozen=True)
class GalleryRow:
    """`Neighbours` with pictures as data URIs, for the template; each found one as (uri, correct)."""

    query: str
    label: str
    before: Sequence[tuple[str, bool]]
    after: Sequence[tuple[str, bool]]


def gallery(asked: Sequence[Neighbours], most: int = 5) -> list[GalleryRow]:
    """Pictures to stand inside a page, at most `most` found ones a query."""
    return [GalleryRow(_uri(one.query), one.label, _found(one.before, most), _found(one.after, most)) for one in asked]


def _found(found: Found, most: int) -> list[tuple[str, bool]]:
    pairs = list(zip(found.pictures, found.correct, strict=True))
    return [(_uri(picture), bool(correct)) for picture, correct in pairs[:most]]


def _uri(picture: np.ndarray) -> str:
    return data_uri(png_bytes(np.ascontiguousarray(picture)))
