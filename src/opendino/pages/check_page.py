"""The page of `opendino check`: what is in a folder of pictures, with the pictures themselves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from opendino.data.survey.summary import Summary
from opendino.pages.page import Tile, data_uri, png_bytes, write_page

THUMB_PX = 120
MAX_ROWS = 200


@dataclass(frozen=True)
class Shot:
    """A picture on the page: its id, a data URI, and words below it."""

    id: str
    uri: str
    words: str = ""


@dataclass(frozen=True)
class Shots:
    """What is shown: a sample, the suspicious by their word, masks by folder, and groups of equal and nearly equal
    pictures."""

    sample: Sequence[Shot]
    suspicious: Mapping[str, Sequence[Shot]]
    masks: Mapping[str, Sequence[Shot]]
    exact: Sequence[Sequence[Shot]]
    near: Sequence[Sequence[Shot]]


@dataclass(frozen=True)
class Said:
    """What the page says: the state in a sentence, advice, the next command, and where the skip list lies."""

    verdict: str
    advice: Sequence[str]
    next_command: str
    skip: str


def thumbnail(array: np.ndarray) -> str:
    """A small data URI of uint8 [H, W, C]; of other than three channels the first one as grey."""
    pixels = array if array.shape[2] == 3 else np.repeat(array[:, :, :1], 3, axis=2)
    picture = PillowImage.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((THUMB_PX, THUMB_PX), reducing_gap=2.0)
    return data_uri(png_bytes(picture))


def write_check_page(path: Path, title: str, summary: Summary, said: Said, shots: Shots) -> Path:
    """Write the page as one file that needs no network."""
    bad = sum(named.count for named in summary.bad.values())
    tiles = [
        Tile("pictures", f"{summary.files:,}", f"{summary.bytes / 1e6:,.1f} MB"),
        Tile("cannot be read", f"{bad:,}", f"{bad / summary.files:.2%}" if bad else "all can"),
        Tile("copies", f"{summary.exact_copies:,}", f"{summary.near_copies:,} more nearly so"),
    ]
    if summary.classes:
        sizes = summary.classes.values()
        tiles.append(Tile("classes", f"{len(sizes):,}", f"of {min(sizes):,} to {max(sizes):,}"))
    if summary.short_px:
        tiles.insert(1, Tile("usual size", f"{summary.short_px[2]} x {summary.long_px[2]}", "px, short x long side"))
    return write_page(
        path,
        "check.html",
        title=title,
        refresh=None,
        written=time.time(),
        written_words=time.strftime("%Y-%m-%d %H:%M:%S"),
        tiles=tiles,
        summary=summary,
        said=said,
        shots=shots,
        classes=sorted(summary.classes.items(), key=lambda item: (-item[1], item[0]))[:MAX_ROWS],
        largest=max(summary.classes.values(), default=1) or 1,
        colour=list(zip("RGB", summary.mean, summary.std, strict=True)) if len(summary.mean) == 3 else [],
    )
