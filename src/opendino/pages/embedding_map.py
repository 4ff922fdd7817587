"""The page of `opendino try`: a folder as a map of its pictures, with groups, doubles, odd ones out and PCA maps."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from opendino.features.explore import NEARLY_EQUAL, Overview, folders_agree
from opendino.pages.page import data_uri, jpeg_uri, png_bytes, write_page

THUMB_PX = 144
ODD = 12


@dataclass(frozen=True)
class Told:
    """What the page says in words. folder and store: paths; skipped: (id, reason); left: pictures beyond the limit."""

    folder: str
    model: str
    licence: str
    transform: str
    store: Path
    seconds: float
    left: int
    skipped: Sequence[tuple[str, str]]


def write_map_page(
    path: Path,
    told: Told,
    names: Sequence[str],
    pictures: Sequence[np.ndarray | None],
    labels: Sequence[str | None],
    overview: Overview,
    pca: Image.Image | None,
) -> Path:
    """Write the page as one file.

    Args:
        names: ids of the n pictures; pictures: uint8 [H, W, 3] each, of any size, None where it cannot be read now.
        labels: folders of the n pictures where these are classes. overview: of the same n.
        pca: a sheet of a few pictures and their PCA maps.
    """
    odd = np.argsort(-overview.strangeness, kind="stable")[: min(ODD, len(names))]
    data = {
        "names": list(names),
        "thumbs": [_thumb(picture) for picture in pictures],
        "places": np.round(overview.places, 4).tolist(),
        "groups": overview.groups.tolist(),
        "neighbours": overview.neighbours.tolist(),
        "cosines": np.round(overview.cosines.astype(float), 3).tolist(),
    }
    return write_page(
        path,
        "try.html",
        script="try.js",
        title=Path(told.folder).name,
        refresh=None,
        written=time.time(),
        written_words=time.strftime("%Y-%m-%d %H:%M:%S"),
        told=told,
        store=shlex.quote(str(told.store)),
        data=data,
        names=names,
        groups=list(zip(np.bincount(overview.groups).tolist(), overview.usual, strict=True)),
        doubles=overview.doubles[:ODD],
        num_doubles=len(overview.doubles),
        pairs=overview.pairs,
        nearly_equal=overview.nearly_equal,
        alike=NEARLY_EQUAL,
        usual_top=overview.usual_top,
        folders=folders_agree(labels, overview.neighbours),
        odd=[(int(row), float(overview.strangeness[row])) for row in odd],
        pca=data_uri(png_bytes(pca)) if pca is not None else None,
    )


def _thumb(picture: np.ndarray | None) -> str:
    image = Image.new("RGB", (32, 32), "grey") if picture is None else Image.fromarray(picture)
    image.thumbnail((THUMB_PX, THUMB_PX))
    return jpeg_uri(image)
