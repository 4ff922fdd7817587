"""`opendino embed PICTURES`: the features of every picture of a folder, in a store that is brought up to date."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from opendino.cli.arguments import OptionalCount, OptionalPath, Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.cli.model import ModelArgs, choose_model
from opendino.cli.pictures import PictureArgs, name_left_out, name_other_reading
from opendino.data.images import Reading
from opendino.data.sources import Source, open_source
from opendino.data.transform import Transform
from opendino.errors import DataError, StoppedError, UsageError
from opendino.features.codec import find_kind
from opendino.features.embed import Embedded, embed_source
from opendino.features.identity import model_hash
from opendino.features.info import StoreInfo
from opendino.features.lattice import Tiling
from opendino.features.precision import find_dtype
from opendino.parallel.gather import Ranks, launched_ranks

TILE_OVERLAP = 0.25
ONE = Ranks()


@dataclass(frozen=True, kw_only=True)
class EmbedArgs(PictureArgs, ModelArgs):
    """Keep the features of every picture of a folder or tar in a store.

    Example: opendino embed PICTURES --model runs/photos-small --out photos.store

    Pictures are taken whole: the short side becomes --size, the shape is kept, the rest is padded and left out of the
    mean. The same command again embeds only what is new or changed. Start it under torchrun to use several processes.
    """

    pictures: tyro.conf.Positional[Path]
    """A folder of pictures, a .tar, or a folder of .tar files."""
    out: OptionalPath = None
    """The store; default: NAME.store beside you, NAME being the folder's."""
    size: OptionalCount = None
    """Short side in pixels that the model sees; default: the model's own."""
    crop: Switch = False
    """Cut the middle square as evaluations do, instead of the whole picture."""
    dtype: str = "auto"
    """auto, fp32, bf16 or fp16; auto takes what the device is good at and measures the drift against fp32."""
    patches: str = "none"
    """Keep patch features too: none, fp16, int8 or pca (128 directions in int8); the loss is measured."""
    tile: Switch = False
    """Also cut pictures larger than --tile-px into overlapping tiles at their own resolution, and merge their maps."""
    tile_px: int = 512
    """Side of a tile in pixels; a quarter of it overlaps with the next."""
    verify: Switch = False
    """Compare the store's files with their hashes first; what is damaged is made anew."""
    only_newest: Switch = False
    """Remove earlier versions and deleted rows from the disk at the end."""
    workers: int = 2
    """Threads that read pictures."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as one JSON object instead of words."""


def embed(
    pictures: Path | str,
    model: str | Path | nn.Module | None = None,
    out: Path | str | None = None,
    *,
    size: int | None = None,
    crop: bool = False,
    dtype: str = "auto",
    patches: str = "none",
    tile: bool = False,
    tile_px: int = 512,
    verify: bool = False,
    only_newest: bool = False,
    workers: int = 2,
    device: str = "auto",
    skip: Path | bool = True,
    reading: Reading | None = None,
    quiet: bool = True,
    **changes: Any,
) -> Embedded:
    """Bring a feature store up to date with a folder; open it with `opendino.open_store`.

    Args:
        pictures: folder, tar, or folder of tars.
        model: what `opendino.load` takes, or a backbone that it returned; None is the best at hand.
        out: the store, made if missing; default NAME.store in the working directory.
        size: short side in pixels, rounded to whole patches; default the model's own.
        crop: the middle square instead of the whole picture.
        dtype: auto, fp32, bf16, fp16. patches: none, fp16, int8, pca.
        tile: also cut pictures larger than `tile_px` into tiles of that side, a quarter overlapping.
        verify: compare an existing store's files with their hashes first; what is damaged is made anew.
        only_newest: remove earlier versions and deleted rows from the disk at the end.
        workers: threads that read. quiet: no progress bar.
        skip, reading: as for `data.sources.open_source`: by default the files beside the pictures.
        changes: stride=, channels=, mean= and what else `cli.model.choose_model` takes.
    Returns:
        Embedded: what changed, what was skipped, the store's version.
    Raises:
        UsageError: a bad option, or a store of another model, transform or folder. DataError, WeightsError: what
            cannot be read. StoppedError: interrupted; the same call goes on.
    """
    with launched_ranks() as ranks:
        where = _rank_device(device, ranks)
        chosen = choose_model(model, where, **changes)
        source = open_source(Path(pictures), skip=skip, reading=reading)
        info = describe(
            chosen.model,
            chosen.named,
            Path(pictures),
            reading=source.reading,
            size=size,
            crop=crop,
            dtype=find_dtype(dtype, where),
            patches=patches,
            tile_px=tile_px if tile else None,
        )
        return embed_into(
            source,
            chosen.model,
            info,
            store_path(pictures, out),
            quiet,
            ranks,
            device=where,
            workers=workers,
            automatic=dtype == "auto",
            verify=verify,
            only_newest=only_newest,
        )


def embed_into(
    source: Source,
    model: nn.Module,
    info: StoreInfo,
    path: Path,
    quiet: bool,
    ranks: Ranks = ONE,
    **options: Any,
) -> Embedded:
    """`features.embed.embed_source`, whose `options` it takes, with a progress bar, and Ctrl-C as a stop."""
    fresh = not path.exists()
    console = Console(stderr=True, quiet=quiet or ranks.rank > 0, soft_wrap=True)
    if said := name_other_reading(getattr(model, "card", {}), source.reading):
        console.print(said)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=console.quiet
    ) as progress:
        task = progress.add_task("embed", total=None, words="looking for changes")

        def show(done: int, total: int, skipped: int) -> None:
            words = f"{done}/{total}" + (f", {skipped} skipped" if skipped else "")
            progress.update(task, completed=done, total=total, words=words)

        try:
            made = embed_source(source, model, info, path, ranks=ranks, progress=show, **options)
        except KeyboardInterrupt:
            raise StoppedError(path, "stopped, what was written stays", "the same command goes on") from None
    if ranks.rank == 0 and made.rows == 0:
        if fresh:  # else the same command with the right bands would be refused: they are other features
            shutil.rmtree(path)
        raise _none_embedded(source, made)
    return made


def _none_embedded(source: Source, made: Embedded) -> DataError:
    """What is wrong with the first picture, in full, since it is most likely wrong with all."""
    try:
        source.read(0)
        words, fix = ", ".join(f"{one.id}: {one.reason}" for one in made.skipped[:3]), ""
    except DataError as error:
        words, fix = f"{error.thing}: {error.cause}", error.fix
    return DataError(made.info.source, f"no picture could be embedded ({words})", fix)


def describe(
    model: Any,
    named: str,
    pictures: Path,
    *,
    reading: Reading,
    size: int | None = None,
    crop: bool = False,
    dtype: str = "fp32",
    patches: str = "none",
    tile_px: int | None = None,
) -> StoreInfo:
    """What a store of this model's features will say of itself."""
    asked = model.transform.size if size is None else size
    if asked < 1:
        raise UsageError(f"--size {asked}", "must be at least 1 pixel", f"try {model.transform.size}")
    patch = model.patch
    transform: Transform = dataclasses.replace(
        model.transform, mode="center" if crop else "padded", size=max(1, round(asked / patch)) * patch, patch=patch
    )
    tiling = None
    if tile_px is not None:
        if transform.stride not in (None, patch):
            raise UsageError("--tile with --stride", "tiles lie on a grid of whole patches", "use one of the two")
        cut = Tiling.from_pixels(tile_px, TILE_OVERLAP, patch)
        tiling = (cut.tile * patch, cut.step * patch)
    return StoreInfo(
        model=named,
        model_hash=model_hash(model),
        dim=model.dim,
        patch=patch,
        licence=str(model.card.get("licence", "not stated")),
        card={key: value for key, value in model.card.items() if key != "ignored"},
        transform=transform,
        source=str(pictures.resolve()),
        dtype=dtype,
        reading=dataclasses.replace(reading, at_least=None),
        patches=find_kind(patches),
        tile=tiling,
    )


def store_path(pictures: Path | str, out: Path | str | None) -> Path:
    """`--out`, or NAME.store in the working directory."""
    return Path(out) if out is not None else Path(f"{Path(pictures).resolve().stem}.store")


def run(argv: Sequence[str]) -> int:
    """Parse, embed, print; returns the exit code."""
    args = parse_arguments(EmbedArgs, argv, "embed")
    made = embed(**args.options(args.pictures, "json"), quiet=args.json)
    if os.environ.get("RANK", "0") != "0":
        return 0
    path = store_path(args.pictures, args.out)
    if args.json:
        print(json.dumps(_as_json(made, path)))
        return 0
    side = made.info.transform.size
    if args.size is not None and args.size != side:
        print(f"--size {args.size} rounded to {side}: whole patches of {made.info.patch} px")
    for line in in_words(made):
        print(line)
    print(f"wrote {path}: {made.rows} rows, version {made.version}")
    print(f"next: opendino search {shlex.quote(str(path))} --image PHOTO.jpg")
    return 0


def in_words(made: Embedded) -> list[str]:
    """What a person should know of a run: model, licence, transform, number type, drift, losses, what was left out."""
    info, changes = made.info, made.changes
    name = info.card.get("name", info.model)
    lines = [
        f"model {name} ({info.model_hash}), licence: {info.licence}",
        f"pictures: {picture_words(info)}",
        f"vectors: cls and mean of the patches, {info.dim} numbers each, computed in {info.dtype}"
        + ("" if info.drift is None else f" ({_drift_words(made)})"),
    ]
    if info.loss is not None:
        lines.append(
            f"patches kept as {info.patches}: cosine to fp32 {info.loss.cosine_mean:.5f} mean, "
            f"{info.loss.cosine_worst:.4f} worst; nearest patch unchanged for {100 * info.loss.neighbour_kept:.1f} %"
        )
    if info.tile is not None:
        told = "no picture looked at was large enough for more than one"
        if info.agreement is not None:
            one = info.agreement
            told = (
                f"cosine of merged maps to those of whole pictures {one.mean:.3f} mean, {one.worst:.3f} for the worst"
            )
            told += f" patch in 100 ({one.pictures} pictures)"
        lines.append(f"tiles of {info.tile[0]} px every {info.tile[1]} px: {told}")
    lines.append(
        f"pictures: {changes.added} new, {changes.changed} changed, {changes.removed} removed, {changes.kept} as before"
        + (" (earlier versions keep the old rows)" if changes.changed or changes.removed else "")
    )
    if made.mended:
        lines.append(f"damaged, taken out and made anew: {', '.join(made.mended)}")
    if left_out := name_left_out(made.skipped, "--json"):
        lines.append(left_out)
    return lines


def picture_words(info: StoreInfo) -> str:
    """What happens to a picture before the model sees it."""
    transform = info.transform
    numbers = ", ".join(f"{value:.3f}" for value in (*transform.mean, *transform.std))
    if transform.mode == "padded":
        shape = f"whole, short side {transform.size} px, shape kept, padded to patches of {info.patch} px"
    else:
        shape = f"the middle {transform.size} px square after scaling the short side to {transform.short_side}"
    if transform.stride not in (None, info.patch):
        shape += f", patches one every {transform.stride} px"
    return f"{shape}; {transform.filter}; mean and std {numbers}"


def _drift_words(made: Embedded) -> str:
    drift = made.info.drift
    assert drift is not None
    told = f"worst cosine to fp32 on {drift.pictures} pictures: cls {drift.cls:.5f}, mean {drift.mean:.5f}"
    return f"a smaller type drifted too far: {told}" if made.info.dtype == "fp32" else told


def _as_json(made: Embedded, path: Path) -> dict[str, Any]:
    return {
        "out": str(path),
        "rows": made.rows,
        "read": made.read,
        "version": made.version,
        "changes": dataclasses.asdict(made.changes),
        "mended": list(made.mended),
        "skipped": [dataclasses.asdict(one) for one in made.skipped],
        **{key: value for key, value in made.info.to_json().items() if key != "format"},
    }


def _rank_device(device: str, ranks: Ranks) -> Any:
    """Each process of a launch takes a card of its own."""
    chosen = choose_device(device)
    if chosen.type == "cuda" and ranks.world > 1:
        return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return chosen
