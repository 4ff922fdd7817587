"""`opendino search STORE --image I | --id ID`: the most alike pictures of a store, as a table, a sheet and JSON."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from opendino.cli.output import claim_drawing
from opendino.cli.pictures import ReadingArgs
from opendino.data.images import Image, Reading, load_file, read
from opendino.data.sources import decode_id, open_source
from opendino.errors import DataError, UsageError, WeightsError
from opendino.features.encode import read_picture
from opendino.features.identity import model_hash
from opendino.features.precision import in_dtype, mean_of_valid
from opendino.features.precision import run as run_model
from opendino.features.search import Neighbour, Usual, find_neighbours, usual_cosines
from opendino.features.store import Row, Store, open_store
from opendino.files import write_atomic
from opendino.pages.found import CELL_PX, Cell, found_sheet
from opendino.pages.page import png_bytes
from opendino.pages.sheet import as_rgb
from opendino.weights import load


@dataclass(frozen=True, kw_only=True)
class SearchArgs(ReadingArgs):
    """Find the pictures of a store that are most alike to one.

    Example: opendino search photos.store --image PHOTO.jpg

    Exact, by cosine. A picture from outside goes through the store's own model and transform, and is read as its
    pictures were unless --bands, --value-range or --nodata say otherwise; --id takes a row of the store and leaves it
    out of the answer.
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
    """Where the store's model lies now, when it was moved; its hash must be that of the store."""
    accept_licence: Switch = False
    """Accept the licence of an open mirror without being asked, where the store's model is a name."""
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
    accept_licence: bool = False,
    reading: Reading | None = None,
    out: Path | str | None = None,
    device: str = "auto",
) -> Search:
    """The k rows of a store that are most alike to a picture or to one of its rows.

    Args:
        image: a picture file; it goes through the store's model and transform.
        id: or a row, which is left out of its own answer.
        vector: `cls` or `mean`.
        model: what `opendino.load` takes, when the store's model is not where it was; it must be the same one.
        reading: how the picture file is read; None is as those of the store were.
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
        pixels = read_picture(load_file(Path(image)), query, reading or opened.info.reading, opened.info.transform)
        vectors = _embed_one(opened, pixels, model, accept_licence, device)
        cell = Cell(as_rgb(pixels.array), "query", str(image))
    if vector not in vectors:
        raise UsageError(f"--vector {vector}", "no such vector", f"vectors: {', '.join(vectors)}")
    found = find_neighbours(opened, vectors[vector], k, column=vector, without=without)
    sheet = None
    if out is not None:
        drawing = claim_drawing(Path(out), "search", _inputs(opened, image, id, k, vector), named=True)
        sheet = drawing.path
        cells = [Cell(_picture(opened, opened.row(one.id)), f"{one.cosine:.3f}", one.id) for one in found]
        write_atomic(sheet, png_bytes(found_sheet([cell, *cells]), drawing.text))
    return Search(query, tuple(found), usual_cosines(opened, vector), sheet)


def run(argv: Sequence[str]) -> int:
    """Parse, search, print; returns the exit code."""
    args = parse_arguments(SearchArgs, argv, "search")
    store = open_store(args.store)
    out = args.out
    if out is None:
        asked = args.image.stem if args.image else Path(args.id or "query").stem
        inputs = _inputs(store, args.image, args.id, args.k, args.vector)
        out = claim_drawing(Path(f"search-{asked}.png"), "search", inputs, named=False).path
    stated = args.stated()
    answer = search(
        store,
        image=args.image,
        id=args.id,
        k=args.k,
        vector=args.vector,
        model=args.model,
        accept_licence=args.accept_licence,
        reading=replace(store.info.reading, **stated) if stated else None,
        out=out,
        device=args.device,
    )
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
        vector = "" if args.vector == "cls" else f" --vector {args.vector}"
        print(f"next: opendino search {shlex.quote(str(args.store))} --id {shlex.quote(answer.found[0].id)}{vector}")
    return 0


def _inputs(store: Store, image: Path | str | None, id: str | None, k: int, vector: str) -> dict[str, Any]:
    """What decides an answer, for `claim_drawing`."""
    asked = {"id": id} if image is None else {"image": Path(image)}
    return {"store": store.path, **asked, "k": k, "vector": vector, "model": store.info.model_hash}


def _embed_one(
    store: Store, image: Image, model: str | Path | None, accept_licence: bool, device: str
) -> dict[str, NDArray[np.float32]]:
    where = choose_device(device)
    # With the changes (stride, channels, heads) that it was embedded with.
    changes = store.info.card.get("changed", {})
    try:
        opened: Any = load(model or store.info.model, where, accept_licence=accept_licence, **changes)
    except WeightsError as error:
        if model is not None:
            raise
        fix = "say where it is now with --model, its hash is compared; without it --id and all rows stay readable"
        raise WeightsError(
            store.path, f"its model {store.info.model_words} cannot be opened ({error.cause})", fix
        ) from None
    found = model_hash(opened)
    if model is None and found != store.info.model_hash:
        cause = f"its model {store.info.model_words} was replaced there by another one ({found})"
        raise UsageError(
            store.path, cause, "say where the former is now with --model, or embed again into another store"
        )
    store.require(found, store.info.transform_hash)
    prepared = store.info.transform.prepare(image)
    features = run_model(
        in_dtype(opened, store.info.dtype), prepared.pixels[None], store.info.dtype, torch.device(where)
    )
    return {"cls": features.cls[0].numpy(), "mean": mean_of_valid(features.patches[0], prepared.valid).numpy()}


def _picture(store: Store, row: Row) -> np.ndarray | None:
    """The pixels of a row, or None when its file is gone or cannot be read any more."""
    root, reading = Path(store.info.source), store.info.reading
    if reading.window is None:  # of large TIFFs the part alone is read, or the whole reduced
        reading = replace(reading, window=row.box) if row.tile else replace(reading, at_least=CELL_PX)
    path = os.path.join(os.fsencode(root), decode_id(row.picture))
    try:
        if os.path.isfile(path):
            return as_rgb(read(Path(os.fsdecode(path)), reading=reading).array)
        source = open_source(root, skip=False, reading=reading)
        place = next((index for index in range(len(source)) if source.id(index) == row.picture), None)
        return None if place is None else as_rgb(source.read(place).array)
    except DataError:
        return None
