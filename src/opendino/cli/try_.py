"""`opendino try PICTURES`: what a model makes of a folder, as one page, without training."""

from __future__ import annotations

import json
import shlex
import sys
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image as PillowImage

from opendino.cli.arguments import OptionalCount, OptionalPath, Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.cli.embed import describe, embed_into, picture_words
from opendino.cli.model import ModelArgs, choose_model, model_inputs
from opendino.cli.output import claim_folder
from opendino.cli.pictures import PictureArgs, name_left_out
from opendino.data.images import Image, Reading
from opendino.data.sources import Skipped, Source, open_source, subset
from opendino.errors import DataError, UsageError
from opendino.features.explore import look_over
from opendino.features.precision import find_dtype
from opendino.features.precision import run as run_model
from opendino.features.store import Store, open_store
from opendino.pages.embedding_map import THUMB_PX, Told, write_map_page
from opendino.pages.pca import colour, fit
from opendino.pages.sheet import as_rgb, picture_sheet

PCA_PICTURES = 8


@dataclass(frozen=True, kw_only=True)
class TryArgs(PictureArgs, ModelArgs):
    """See what a model makes of a folder of pictures: one page, no training.

    Example: opendino try PICTURES --model runs/photos-small
    """

    pictures: tyro.conf.Positional[Path]
    """A folder of pictures, a .tar, or a folder of .tar files."""
    out: OptionalPath = None
    """Folder for the page and the features; default: NAME-try here."""
    limit: int = 1000
    """At most so many pictures, spread over the folder."""
    size: OptionalCount = None
    """Short side in pixels that the model sees; default: the model's own."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    open: Switch = False
    """Open the page in the browser."""
    json: Switch = False
    """Print the result as one JSON object instead of words."""


@dataclass(frozen=True)
class Tried:
    """What came out: the page, the store, how many pictures are on the page, what was left out, seconds."""

    page: Path
    store: Path
    pictures: int
    groups: int
    doubles: int
    skipped: tuple[Skipped, ...]
    seconds: float


def try_(
    pictures: Path | str,
    model: str | Path | None = None,
    out: Path | str | None = None,
    *,
    limit: int = 1000,
    size: int | None = None,
    device: str = "auto",
    skip: Path | bool = True,
    reading: Reading | None = None,
    quiet: bool = True,
    **changes: Any,
) -> Tried:
    """Embed a folder and write one page about it: map, groups, doubles, odd ones out, PCA maps, neighbours by click.

    Args:
        pictures: folder, tar, or folder of tars.
        model: what `opendino.load` takes; None is the best at hand.
        out: folder for `try.html` and `features.store`; default NAME-try in the working directory.
        limit: at most so many pictures, spread evenly.
        size: short side in pixels that the model sees.
        skip, reading: as for `data.sources.open_source`: by default the files beside the pictures.
        changes: stride=, channels=, mean= and what else `cli.model.choose_model` takes.
    Raises:
        UsageError: `out` holds other files, or the page of other pictures or another model. DataError, WeightsError:
            as `embed`.
    """
    begun = time.monotonic()
    if limit < 2:
        raise UsageError(f"--limit {limit}", "must be at least 2")
    where = choose_device(device)
    chosen = choose_model(model, where, **changes)
    whole = open_source(Path(pictures), skip=skip, reading=reading)
    source = _spread(whole, limit)
    folder = Path(out) if out is not None else Path(f"{Path(pictures).resolve().stem}-try")
    info = describe(
        chosen.model, chosen.named, Path(pictures), reading=source.reading, size=size, dtype=find_dtype("auto", where)
    )
    output = claim_folder(
        folder, "try", {"pictures": Path(pictures), **model_inputs(chosen.model, info.transform, info.reading)}
    )
    page, path = output.file("try.html"), output.file("features.store")
    made = embed_into(source, chosen.model, info, path, quiet, device=where, automatic=True)
    store = open_store(path)
    if len(store) < 2:
        raise DataError(pictures, f"only {len(store)} picture could be read", "a map needs at least two")
    names = store.ids()
    table = store.table(["source_hash", "label"])
    overview = look_over(store.matrix("cls"), table["source_hash"].to_pylist())
    thumbs, typical = _thumbs(source, names), _typical(overview.groups)
    write_map_page(
        page,
        Told(
            str(pictures),
            str(info.card.get("name", chosen.named)),
            info.licence,
            picture_words(info).capitalize(),
            path,
            time.monotonic() - begun,
            len(whole) - len(source),
            [(one.id, one.reason) for one in made.skipped],
        ),
        names,
        [thumbs.get(name) for name in names],
        table["label"].to_pylist(),
        overview,
        _pca(chosen.model, store, where, [thumbs[names[row]] for row in typical if names[row] in thumbs]),
    )
    output.finish()
    return Tried(
        page,
        path,
        len(names),
        int(overview.groups.max()) + 1,
        len(overview.doubles),
        made.skipped,
        time.monotonic() - begun,
    )


def run(argv: Sequence[str]) -> int:
    """Parse, embed, draw, print; returns the exit code."""
    args = parse_arguments(TryArgs, argv, "try")
    tried = try_(**args.options(args.pictures, "json", "open"), quiet=args.json)
    if args.json:
        skipped = [{"id": one.id, "reason": one.reason} for one in tried.skipped]
        print(json.dumps({**vars(tried), "page": str(tried.page), "store": str(tried.store), "skipped": skipped}))
        return 0
    print(
        f"{tried.pictures} pictures, {tried.groups} groups, {tried.doubles} groups of equal files, "
        f"{tried.seconds:.0f} s"
    )
    if left_out := name_left_out(tried.skipped, str(tried.page)):
        print(left_out)
    print(f"wrote {tried.page} (open it in a browser) and {tried.store}")
    print(f"next: opendino search {shlex.quote(str(tried.store))} --image PHOTO.jpg")
    if args.open and sys.stdout.isatty():
        webbrowser.open(tried.page.resolve().as_uri())
    return 0


def _spread(source: Source, limit: int) -> Source:
    """At most `limit` pictures, evenly over the source."""
    if len(source) <= limit:
        return source
    return subset(source, np.linspace(0, len(source) - 1, limit).round().astype(np.int64))


def _thumbs(source: Source, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Small pictures by id; one that cannot be read any more has none."""
    wanted, found = set(names), {}
    for index in range(len(source)):
        if source.id(index) in wanted:
            try:
                array = source.read(index).array
            except DataError:
                continue
            image = PillowImage.fromarray(as_rgb(array))
            image.thumbnail((2 * THUMB_PX, 2 * THUMB_PX))
            found[source.id(index)] = np.array(image)
    return found


def _typical(groups: np.ndarray) -> list[int]:
    """A few rows, the groups in turn."""
    rows = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    turns = [int(row[place]) for place in range(PCA_PICTURES) for row in rows if place < len(row)]
    return turns[:PCA_PICTURES]


def _pca(model: Any, store: Store, device: torch.device, pictures: Sequence[np.ndarray]) -> PillowImage.Image | None:
    """PCA maps of a few pictures on one basis, padding cut away; None for a model that takes no RGB."""
    if not pictures or len(store.info.transform.mean) != 3:
        return None
    maps = []
    for picture in pictures:
        prepared = store.info.transform.prepare(Image(picture, "RGB", 8))
        patches = run_model(model, prepared.pixels[None], "fp32", device).patches[0]
        maps.append(patches[: int(prepared.valid[:, 0].sum()), : int(prepared.valid[0].sum())])
    basis = fit(maps)
    return picture_sheet(pictures, {"": [colour(one, basis) for one in maps]}, cell_px=160)
