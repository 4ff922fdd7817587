"""`opendino search STORE --image I | --id ID`: the most alike pictures of a store, as a table, a sheet and JSON."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from opendino.cli.arguments import OptionalPath, OptionalText, Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.data.beside import declared_reading
from opendino.data.images import Image, load_file, read
from opendino.data.sources import decode_id, open_source
from opendino.errors import DataError, UsageError
from opendino.features.encode import read_picture
from opendino.features.identity import model_hash
from opendino.features.precision import in_dtype, mean_of_valid
from opendino.features.precision import run as run_model
from opendino.features.search import Neighbour, Usual, find_neighbours, usual_cosines
from opendino.features.store import Row, Store, open_store
from opendino.files import write_atomic
from opendino.pages.found import Cell, found_sheet
from opendino.pages.page import png_bytes
from opendino.pages.sheet import as_rgb
from opendino.weights import load


@dataclass(frozen=True)
class SearchArgs:
    """Find the pictures of a store that are most alike to one.

    Example: opendino search photos.store --image PHOTO.jpg

    Exact, by cosine. A picture from outside goes through the store's own model and transform; --id takes a row of the
    store and leaves it out of the answer.
    """

    store: tyro.conf.Positional[Path]
    """What `opendino embed` wrote."""
    image: OptionalPath = None
    """A picture file to ask with."""
    id: OptionalText = None
    """Or a row of the store: its path relative to the embedded folder."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many to find."""
    vector: str = "cls"
    """cls, or mean of the patches."""
    model: OptionalText = None
    """Where the store's model lies now, when it was moved."""
    out: OptionalPath = None
    """The PNG sheet to write; default: search-NAME.png here."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as one JSON object instead of a table."""


@dataclass(frozen=True)
class Search:
    """An answer. found: nearest first; usual: cosines of random pairs, to judge it by; sheet: the PNG or None."""

    query: str
    found: tuple[Neighbour, ...]
    usual: Usual | None
    sheet: Path | None


def search(
    store: Path | str | Store,
    *,
    image: Path | str | None = None,
    id: str | None = None,
    k: int = 10,
    vector: str = "cls",
    model: str | Path | None = None,
    out: Path | str | None = None,
    device: str = "auto",
) -> Search:
    """The k rows of a store that are most alike to a picture or to one of its rows.

    Args:
        image: a picture file; it goes through the store's model and transform.
        id: or a row, which is left out of its own answer.
        vector: `cls` or `mean`.
        model: what `opendino.load` takes, when the store's model is not where it was; it must be the same one.
        out: write a sheet of the pictures there.
    Raises:
        UsageError: neither or both of image and id, an unknown id, another model. DataError, WeightsError: what cannot
            be read.
    """
    if (image is None) == (id is None):
        raise UsageError("search", "needs one of --image and --id", "opendino search STORE --image PHOTO.jpg")
    opened = store if isinstance(store, Store) else open_store(store)
    without: tuple[str, ...] = ()
    if id is not None:
        row = opened.row(id)
        query, vectors, without = id, {"cls": row.cls, "mean": row.mean}, (id,)
        cell = Cell(_picture(opened, row), "query", id)
    else:
        assert image is not None
        query = str(image)
        pixels = read_picture(load_file(Path(image)), query, opened.info.reading, opened.info.transform)
        vectors = _embed_one(opened, pixels, model, device)
        cell = Cell(as_rgb(pixels.array), "query", str(image))
    if vector not in vectors:
        raise UsageError(f"--vector {vector}", "no such vector", "vectors: cls, mean")
    found = find_neighbours(opened, vectors[vector], k, column=vector, without=without)
    sheet = None
    if out is not None:
        sheet = Path(out)
        cells = [Cell(_picture(opened, opened.row(one.id)), f"{one.cosine:.3f}", one.id) for one in found]
        write_atomic(sheet, png_bytes(found_sheet([cell, *cells])))
    return Search(query, tuple(found), usual_cosines(opened, vector), sheet)


def run(argv: Sequence[str]) -> int:
    """Parse, search, print; returns the exit code."""
    args = parse_arguments(SearchArgs, argv, "search")
    asked = args.image.stem if args.image else Path(args.id or "query").stem
    options = {name: value for name, value in vars(args).items() if name not in ("json", "out")}
    answer = search(**options, out=args.out or Path(f"search-{asked}.png"))
    if args.json:
        print(json.dumps({**asdict(answer), "sheet": str(answer.sheet)}))
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("", "cosine", "id"):
        table.add_column(column, justify="left" if column == "id" else "right", overflow="fold")
    for place, one in enumerate(answer.found, 1):
        table.add_row(str(place), f"{one.cosine:.4f}", one.id)
    Console().print(table)
    if len(answer.found) < args.k:
        print(f"the store has no more than {len(answer.found)}")
    if answer.usual is not None:
        usual = answer.usual
        print(
            f"random pairs of this store: median {usual.p50:.3f}, 95 % below {usual.p95:.3f}, "
            f"99 % below {usual.p99:.3f}"
        )
    print(f"wrote {answer.sheet}")
    if answer.found:
        print(f"next: opendino search {shlex.quote(str(args.store))} --id {shlex.quote(answer.found[0].id)}")
    return 0


def _embed_one(store: Store, image: Image, model: str | Path | None, device: str) -> dict[str, NDArray[np.float32]]:
    where = choose_device(device)
    # With the changes (stride, channels, heads) that it was embedded with.
    opened: Any = load(model or store.info.model, where, **store.info.card.get("changed", {}))
    store.require(model_hash(opened), store.info.transform_hash)
    prepared = store.info.transform.prepare(image)
    features = run_model(
        in_dtype(opened, store.info.dtype), prepared.pixels[None], store.info.dtype, torch.device(where)
    )
    return {"cls": features.cls[0].numpy(), "mean": mean_of_valid(features.patches[0], prepared.valid).numpy()}


def _picture(store: Store, row: Row) -> np.ndarray | None:
    """The pixels of a row, or None when its file is gone or cannot be read any more."""
    root = Path(store.info.source)
    path = os.path.join(os.fsencode(root), decode_id(row.picture))
    try:
        if os.path.isfile(path):
            array = read(Path(os.fsdecode(path)), reading=declared_reading(root)).array
        else:
            source = open_source(root)
            place = next((index for index in range(len(source)) if source.id(index) == row.picture), None)
            if place is None:
                return None
            array = source.read(place).array
    except DataError:
        return None
    y, x, height, width = row.box
    return as_rgb(array[y : y + height, x : x + width])
