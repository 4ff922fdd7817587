"""`opendino show pca|similarity|attention IMAGE...`: what a model sees in pictures, as one PNG."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image as PillowImage
from torch import Tensor

from opendino.cli.arguments import OptionalCount, OptionalPath, OptionalText, Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.cli.model import ModelArgs, as_flags, choose_model, model_changes, model_inputs
from opendino.cli.output import claim_drawing
from opendino.cli.pictures import ReadingArgs
from opendino.data.beside import reading_of_file, stated_fields
from opendino.data.images import Reading, read
from opendino.data.transform import Transform
from opendino.errors import OpendinoError, UsageError
from opendino.files import write_atomic
from opendino.pages.attention import attention_maps, attention_sheet
from opendino.pages.page import png_bytes
from opendino.pages.pca import colour, fit, picture_sheet
from opendino.pages.sheet import as_rgb
from opendino.pages.similarity import similarity_maps, similarity_sheet

_MOST_NEXT = 3
"""Pictures that the next command names."""


@dataclass(frozen=True, kw_only=True)
class ShowArgs(ReadingArgs, ModelArgs):
    """Draw what a model sees in pictures.

    Example: opendino show pca cat.jpg dog.jpg --model runs/photos-small

    KIND is pca (the three strongest feature directions as colours, one basis for all pictures), similarity (how much
    one patch of the first picture is like all others) or attention (where CLS looks). Pictures are taken whole.
    """

    kind: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KIND")]
    """pca, similarity or attention."""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...")]
    """Picture files."""
    out: OptionalPath = None
    """The PNG to write; default: KIND-NAME.png here, with a number where that was drawn from other inputs."""
    size: OptionalCount = None
    """Short side in pixels that the model sees; default: the model's own. More shows finer maps."""
    layer: OptionalCount = None
    """Layer to look at, from 0, negative from the end; default: the last, normed."""
    point: OptionalText = None
    """Y,X in pixels of the first picture, for similarity; default: its middle."""
    foreground: Switch = False
    """pca: paint the background black and give the colours to the foreground."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as one JSON object instead of words."""


@dataclass(frozen=True)
class Asked:
    """What is to be drawn: `show`'s arguments, and how each file is read."""

    kind: str
    images: tuple[Path, ...]
    out: Path | None
    size: int | None
    layer: int | None
    point: tuple[int, int] | None
    foreground: bool
    reading: Callable[[Path], Reading]


@dataclass(frozen=True)
class Seen:
    """A picture on its way: its file, its pixels, and what the model was given."""

    file: Path
    pixels: np.ndarray
    tensor: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Drawn:
    """The PNG, the pictures on it, what they went through, and what opens the model again."""

    path: Path
    seen: list[Seen]
    transform: Transform
    named: str


def show(
    kind: str,
    images: Sequence[Path | str],
    model: Path | str | None = None,
    *,
    out: Path | str | None = None,
    size: int | None = None,
    layer: int | None = None,
    point: tuple[int, int] | None = None,
    foreground: bool = False,
    device: str = "auto",
    reading: Reading | None = None,
    **changes: Any,
) -> Path:
    """Draw what a model sees in pictures and write it as one PNG.

    Args:
        kind: "pca", "similarity" or "attention".
        images: picture files, taken whole: the short side becomes `size`, the long side the nearest number of patches.
        model: what `opendino.load` takes; None is the best at hand.
        out: the PNG; by default `KIND-NAME.png` in the working directory.
        size: short side in pixels; rounded to whole patches.
        layer: from 0, negative from the end; None is the last one after the final norm.
        point: (y, x) in pixels of the first picture, for similarity.
        foreground: for pca, see `pages.pca.fit`.
        reading: how the files are read; None is as the nearest folder above each of them declares.
        changes: stride=, channels=, mean= and what else `cli.model.choose_model` takes.
    Returns:
        The path of the PNG.
    Raises:
        UsageError: unknown kind, no such layer or point, a model without attention. DataError, WeightsError: what
            cannot be read.
    """
    asked = Asked(
        kind,
        tuple(map(Path, images)),
        None if out is None else Path(out),
        size,
        layer,
        point,
        foreground,
        reading_of_file if reading is None else lambda _: reading,
    )
    return _draw(asked, model, changes, device).path


def run(argv: Sequence[str]) -> int:
    """Parse, draw, print; returns the exit code."""
    if argv and not argv[0].startswith("-"):
        _find_kind(argv[0])  # a misspelt kind is said before a missing picture
    args = parse_arguments(ShowArgs, argv, "show")
    asked = Asked(
        args.kind,
        args.images,
        args.out,
        args.size,
        args.layer,
        None if args.point is None else _parse_point(args.point),
        args.foreground,
        lambda file: replace(reading_of_file(file), **args.stated()),
    )
    drawn = _draw(asked, args.model, model_changes(args), args.device)
    seen = drawn.seen
    rows = [
        {
            "file": str(one.file),
            "height_px": one.pixels.shape[0],
            "width_px": one.pixels.shape[1],
            "seen_height_px": one.tensor.shape[1],
            "seen_width_px": one.tensor.shape[2],
            "patches": list(one.grid),
        }
        for one in seen
    ]
    if args.json:
        print(json.dumps({"kind": args.kind, "out": str(drawn.path), "model": drawn.named, "pictures": rows}))
        return 0
    if args.size is not None and args.size != drawn.transform.size:
        print(f"--size {args.size} rounded to {drawn.transform.size}: whole patches of {drawn.transform.patch} px")
    for row in rows:
        print(
            f"{row['file']}: {row['height_px']} x {row['width_px']} px, seen whole at {row['seen_height_px']} x "
            f"{row['seen_width_px']} (height x width), {row['patches'][0]} x {row['patches'][1]} patches"
        )
    print(f"wrote {drawn.path}")
    flags = as_flags(drawn.named if args.model is None else args.model, args) + args.as_flags()
    for name in ("size", "layer"):
        if (value := getattr(args, name)) is not None:
            flags += f" --{name} {value}"
    print(f"next: {_next_command(args.kind, seen, flags)}")
    return 0


def _draw(asked: Asked, model: Path | str | None, changes: dict[str, Any], device: str) -> Drawn:
    painter = _find_kind(asked.kind)
    if not asked.images:
        raise UsageError(f"show {asked.kind}", "no picture given", f"opendino show {asked.kind} PHOTO.jpg")
    path = _out_path(asked)
    where = choose_device(device)
    chosen = choose_model(model, where, **changes)
    transform = _whole(chosen.model, asked.size)
    seen = [_see(file, transform, asked.reading(file)) for file in asked.images]
    inputs = {
        "images": asked.images,
        "readings": [stated_fields(asked.reading(file)) for file in asked.images],
        "layer": asked.layer,
        "point": asked.point,
        "foreground": asked.foreground,
        **model_inputs(chosen.model, transform),
    }
    drawing = claim_drawing(path, f"show {asked.kind}", inputs, named=asked.out is not None)
    sheet = painter(chosen.model, seen, where, asked)
    try:
        write_atomic(drawing.path, png_bytes(sheet, drawing.text))
    except OSError as error:
        raise OpendinoError(drawing.path, f"cannot be written ({error.strerror})", "choose another --out") from None
    return Drawn(drawing.path, seen, transform, chosen.named)


def _see(file: Path, transform: Transform, reading: Reading) -> Seen:
    image = read(file, reading=reading)
    tensor = transform.apply(image)
    return Seen(file, as_rgb(image.array), tensor, transform.grid(*image.array.shape[:2]))


def _whole(model: Any, size: int | None) -> Transform:
    """The model's transform on whole pictures, its side rounded to whole patches."""
    asked = model.transform.size if size is None else size
    if asked < 1:
        raise UsageError(f"--size {asked}", "must be at least 1 pixel", f"try {model.transform.size}")
    side = max(1, round(asked / model.patch)) * model.patch
    return replace(model.transform, mode="whole", size=side, patch=model.patch)


@torch.inference_mode()
def _patches(model: Any, one: Seen, device: torch.device, layer: int | None) -> Tensor:
    images = one.tensor[None].to(device)
    if layer is None:
        patches: Tensor = model(images).patches[0]
    else:
        patches = model.intermediate(images, [_positive(layer, model.num_layers)])[0].patches[0]
    return patches.float().cpu()


def _positive(layer: int, count: int) -> int:
    if not -count <= layer < count:
        raise UsageError(
            f"--layer {layer}", f"the model has {count} layers", f"give 0 to {count - 1}, or -1 for the last"
        )
    return layer % count


def _pca(model: Any, seen: list[Seen], device: torch.device, asked: Asked) -> PillowImage.Image:
    patches = [_patches(model, one, device, asked.layer) for one in seen]
    basis = fit(patches, foreground=asked.foreground)
    maps = [colour(one, basis) for one in patches]
    return picture_sheet([one.pixels for one in seen], {"": maps}, cell_px=_cell_px(seen))


def _similarity(model: Any, seen: list[Seen], device: torch.device, asked: Asked) -> PillowImage.Image:
    height, width = seen[0].pixels.shape[:2]
    y, x = asked.point if asked.point is not None else (height // 2, width // 2)
    if not (0 <= y < height and 0 <= x < width):
        raise UsageError(f"--point {y},{x}", f"outside {seen[0].file.name}, {height} x {width} px (height x width)")
    place = (y * seen[0].grid[0] // height, x * seen[0].grid[1] // width)
    maps = similarity_maps([_patches(model, one, device, asked.layer) for one in seen], place)
    return similarity_sheet([one.pixels for one in seen], maps, place, cell_px=_cell_px(seen))


def _attention(model: Any, seen: list[Seen], device: torch.device, asked: Asked) -> PillowImage.Image:
    place = _positive(-1 if asked.layer is None else asked.layer, model.num_layers)
    maps = [attention_maps(model, one.tensor.to(device), place) for one in seen]
    return attention_sheet([one.pixels for one in seen], maps, cell_px=_cell_px(seen) * 3 // 4)


KINDS: dict[str, Callable[..., PillowImage.Image]] = {"pca": _pca, "similarity": _similarity, "attention": _attention}


def _find_kind(kind: str) -> Callable[..., PillowImage.Image]:
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        raise UsageError(
            f"show {kind}", "no such kind", f"did you mean {near[0]}?" if near else f"kinds: {', '.join(KINDS)}"
        )
    return KINDS[kind]


def _cell_px(seen: list[Seen]) -> int:
    return {1: 448, 2: 384, 3: 320, 4: 320}.get(len(seen), 208)


def _out_path(asked: Asked) -> Path:
    kind, first = asked.kind, asked.images[0]
    if kind == "similarity" and asked.point:
        kind += "-{}-{}".format(*asked.point)
    more = f"-and-{len(asked.images) - 1}-more" if len(asked.images) > 1 else ""
    path = asked.out if asked.out is not None else Path(f"{kind}-{first.stem}{more}.png")
    if path.suffix.lower() != ".png":
        raise UsageError(f"--out {path}", "must end in .png", f"try {path.with_suffix('.png')}")
    if path.resolve() in [file.resolve() for file in asked.images]:
        raise UsageError(f"--out {path}", "is one of the pictures to read", "choose another name")
    return path


def _parse_point(text: str) -> tuple[int, int]:
    parts = text.split(",")
    try:
        y, x = (int(part) for part in parts)
    except ValueError:
        raise UsageError(f"--point {text}", "must be Y,X in pixels", "for example --point 120,200") from None
    return y, x


def _next_command(kind: str, seen: list[Seen], flags: str) -> str:
    files = shlex.join(str(one.file) for one in seen[:_MOST_NEXT])
    height, width = seen[0].pixels.shape[:2]
    if kind == "similarity":
        return f"opendino show pca {files} {flags}"
    return f"opendino show similarity {files} {flags} --point {height // 2},{width // 2}"
