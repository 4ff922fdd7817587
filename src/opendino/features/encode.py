"""A chunk of pictures to rows: read in threads, run in batches of one size, tile what is large."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from opendino.data.images import HEAD_BYTES, Image, Reading, TooLarge, Vanished, is_tiff, open_large, read
from opendino.data.sources import Source
from opendino.data.transform import Prepared, Transform, valid_patches
from opendino.errors import DataError
from opendino.features.codec import PatchCodec
from opendino.features.info import StoreInfo
from opendino.features.lattice import Agreement, Tiling, merge, starts
from opendino.features.precision import in_dtype, mean_of_valid, run

MAX_PATCHES = 32_768
"""A picture that would be more patches at once is refused: a strip of 8 x 100,000 px at 224 px would be 2.8 million."""
BATCH_PATCHES = {"cpu": 2048, "cuda": 32_768}
MAX_BATCH = {"cpu": 8, "cuda": 128}
SPARE = 2
"""A reduced JPEG keeps so many times the pixels a side that the model sees: less would show in the features."""
_ANY_SIDE = 1000
_LOOKED_AT, _COMPARED = 16, 2


class Pixels(Protocol):
    """A picture at its own resolution, from which bands of rows are taken."""

    def rows(self, top: int, count: int) -> NDArray[np.uint8]:
        """[at most count, W, C] from a row on, fewer where the picture ends."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A picture that was decoded whole: [H, W, C]."""

    array: NDArray[np.uint8]

    def rows(self, top: int, count: int) -> NDArray[np.uint8]:
        """See `Pixels`."""
        return self.array[top : top + count]


@dataclass(frozen=True)
class InFile:
    """A large TIFF that stays on the disk, read by a Reading whose range is known."""

    source: Source
    index: int
    reading: Reading
    width: int

    def rows(self, top: int, count: int) -> NDArray[np.uint8]:
        """See `Pixels`."""
        name = self.source.id(self.index)
        with self.source.open(self.index) as file, open_large(file, self.reading, name) as large:
            if large is None:
                raise Vanished(name, "is another file than before")
            return large.window(top, 0, count, self.width)


@dataclass(frozen=True)
class Loaded:
    """A picture that was read: its place in the source, what the model gets, its size and class in the file.

    pixels: at its own resolution, kept only when it is to be tiled.
    """

    index: int
    id: str
    prepared: Prepared
    width: int
    height: int
    stamp: str
    source_hash: str
    label: str | None
    pixels: Pixels | None


@dataclass(frozen=True)
class Failed:
    """A picture that has no row: why, and the stamp of its file, so that it is tried again when that changes."""

    id: str
    reason: str
    stamp: str


@dataclass(frozen=True)
class Made:
    """A chunk's rows as column values by name, in order, and its failures."""

    rows: list[dict[str, Any]]
    failed: list[Failed]
    pictures: int


def read_stamp(source: Source, index: int) -> str:
    """Size and time of change of the file behind a picture, as one text."""
    return "{}-{}".format(*source.stamp(index))


def hash_content(source: Source, index: int) -> str:
    """SHA-256 of a picture's file, not decoded. Raises an ImageError."""
    with source.open(index) as file:
        return _hash(file)


def _hash(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_picture(stored: bytes | BinaryIO, name: str, reading: Reading, transform: Transform) -> Image:
    """A picture's file as a transform needs it. Raises an ImageError.

    JPEGs and large TIFFs decode reduced while both sides stay at twice what they are resized to or more. Everything
    that makes or compares features reads here, so that a file gives one vector by whichever way it comes.
    """
    if reading.window is not None:
        return read(stored, name=name, reading=reading)
    return read(stored, name=name, reading=replace(reading, at_least=_enough(transform)))


def _enough(transform: Transform) -> int:
    """Pixels of the short side that a reduced picture keeps at least."""
    return SPARE * min(transform.resized(_ANY_SIDE, _ANY_SIDE))


def load_picture(source: Source, index: int, transform: Transform, tiling: Tiling | None) -> Loaded | Failed:
    """Read and prepare one picture; every expected failure becomes `Failed`."""
    name, stamp = source.id(index), read_stamp(source, index)
    try:
        with source.open(index) as file:
            digest = _hash(file)
            pixels: Pixels | None = None
            if tiling is None:
                image = read_picture(file, name, source.reading, transform)
            else:
                image, pixels = _read_whole(file, source, index, transform)
        height, width = image.full_size
        rows, columns = transform.grid(height, width)
        patches = rows * columns
        if patches > MAX_PATCHES:
            fix = "use a smaller --size, or --crop"
            raise TooLarge(name, f"{width}x{height} pixels are {patches} patches, at most {MAX_PATCHES}", fix)
        prepared = transform.prepare(image)
    except DataError as error:
        return Failed(name, getattr(error, "reason", error.cause), stamp)
    label = source.label(index)
    large = tiling is not None and max(height, width) > tiling.tile * transform.patch
    return Loaded(
        index,
        name,
        prepared,
        width,
        height,
        stamp,
        digest,
        None if label is None else source.classes[label],
        pixels if large else None,
    )


def _read_whole(file: BinaryIO, source: Source, index: int, transform: Transform) -> tuple[Image, Pixels]:
    """A picture for the transform, and its pixels at full size, which of a large TIFF stay in the file."""
    name, reading = source.id(index), replace(source.reading, at_least=None)
    file.seek(0)
    if reading.window is None and is_tiff(file.read(HEAD_BYTES)):
        with open_large(file, reading, name) as large:
            if large is not None:
                return large.reduced(_enough(transform)), InFile(source, index, large.reading, large.width)
    image = read(file, name=name, reading=reading)
    return image, InMemory(image.array)


def readable_sample(source: Source, transform: Transform, count: int) -> list[Prepared]:
    """The first readable ones among twice `count` pictures spread over the source, at most `count`."""
    places = np.unique(np.linspace(0, len(source) - 1, min(2 * count, len(source))).astype(int))
    found: list[Prepared] = []
    for index in places:
        loaded = load_picture(source, int(index), transform, None)
        if isinstance(loaded, Loaded):
            found.append(loaded.prepared)
        if len(found) == count:
            break
    return found


class Encoder:
    """A frozen model with everything that turns pictures into the rows of one store."""

    def __init__(self, model: nn.Module, info: StoreInfo, codec: PatchCodec, device: Any) -> None:
        self.info, self.codec, self.device = info, codec, torch.device(device)
        self.model = in_dtype(model, info.dtype)
        self.tiling = Tiling(*(side // info.patch for side in info.tile)) if info.tile else None
        kind = "cuda" if self.device.type == "cuda" else "cpu"
        self._most_patches, self._most_pictures = BATCH_PATCHES[kind], MAX_BATCH[kind]

    def load(self, source: Source, chunk: Sequence[int], threads: Executor) -> list[Future[Loaded | Failed]]:
        """Begin to read a chunk."""
        return [threads.submit(load_picture, source, index, self.info.transform, self.tiling) for index in chunk]

    def encode(self, reading: Sequence[Future[Loaded | Failed]]) -> Made:
        """Rows of a chunk in the order of its pictures, a picture's tiles after it."""
        read = [future.result() for future in reading]
        loaded = [one for one in read if isinstance(one, Loaded)]
        failed = [one for one in read if isinstance(one, Failed)]
        rows: dict[int, list[dict[str, Any]]] = {}
        for batch in self._batches(loaded):
            for one, cls, patches in zip(batch, *self._forward([one.prepared for one in batch]), strict=True):
                if not (cls.isfinite().all() and patches.isfinite().all()):
                    failed.append(Failed(one.id, "features are not finite", one.stamp))
                    continue
                try:
                    rows[one.index] = self._rows(one, cls, patches)
                except DataError as error:  # a large file that changed or failed between its tiles
                    failed.append(Failed(one.id, getattr(error, "reason", error.cause), one.stamp))
        return Made([row for one in loaded for row in rows.get(one.index, [])], failed, len(read))

    def agreement(self, source: Source) -> Agreement | None:
        """How far merged tiles are from whole pictures: the middle of a few large ones, at most two tiles a side.

        None when none of the pictures that were looked at is large enough for tiles.
        """
        assert self.tiling is not None
        side, cosines, pictures = 2 * self.tiling.tile * self.info.patch, [], 0
        for index in np.unique(np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int)):
            one = load_picture(source, int(index), self.info.transform, self.tiling)
            if isinstance(one, Failed) or one.pixels is None:
                continue
            top, left = (max(0, length - side) // 2 for length in (one.height, one.width))
            cut = one.pixels.rows(top, side)[:, left : left + side]
            whole = self.info.transform.prepare_unscaled(cut)
            one = replace(one, height=cut.shape[0], width=cut.shape[1])
            merged = torch.cat(list(merge(self._tile_rows(one, InMemory(cut), self.tiling, []), *whole.valid.shape)))
            cosines.append(F.cosine_similarity(self.patches_of(whole), merged, dim=-1)[whole.valid])
            pictures += 1
            if pictures == _COMPARED:
                break
        if not cosines:
            return None
        every = torch.cat(cosines)
        return Agreement(float(every.mean()), float(every.quantile(0.01)), pictures)

    def patches_of(self, prepared: Prepared) -> Tensor:
        """[h, w, D] of one picture."""
        return self._forward([prepared])[1][0]

    def _forward(self, pictures: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        pixels = torch.stack([one.pixels for one in pictures])
        features = run(self.model, pixels, self.info.dtype, self.device)
        return features.cls, features.patches

    def _batches(self, loaded: Sequence[Loaded]) -> Iterator[list[Loaded]]:
        """Pictures of one size together, sizes in the order in which they are met."""
        sizes: dict[tuple[int, ...], list[Loaded]] = {}
        for one in loaded:
            sizes.setdefault(tuple(one.prepared.pixels.shape), []).append(one)
        for same in sizes.values():
            count = self._batch_size(same[0].prepared.valid.numel())
            for start in range(0, len(same), count):
                yield same[start : start + count]

    def _batch_size(self, patches: int) -> int:
        return max(1, min(self._most_pictures, self._most_patches // patches))

    def _rows(self, one: Loaded, cls: Tensor, patches: Tensor) -> list[dict[str, Any]]:
        box = (0, 0, one.height, one.width)
        if one.pixels is None or self.tiling is None:
            return [
                self._row(one, "", box, one.prepared.valid, cls, patches) | self._kept([patches], one.prepared.valid)
            ]
        tiles: list[dict[str, Any]] = []
        valid = valid_patches(one.height, one.width, self.info.patch)
        merged = merge(self._tile_rows(one, one.pixels, self.tiling, tiles), *valid.shape)
        kept = self._kept(merged, valid)
        return [self._row(one, "", box, one.prepared.valid, cls, patches) | kept, *tiles]

    def _tile_rows(
        self, one: Loaded, pixels: Pixels, tiling: Tiling, made: list[dict[str, Any]]
    ) -> Iterator[tuple[int, list[tuple[int, Tensor]]]]:
        """Maps of the tiles, row by row for `merge`; their store rows are added to `made` on the way."""
        patch = self.info.patch
        grid = (-(-one.height // patch), -(-one.width // patch))
        for row, y in enumerate(starts(grid[0], tiling.tile, tiling.step)):
            maps: list[tuple[int, Tensor]] = []
            band = pixels.rows(y * patch, tiling.tile * patch)
            columns = list(enumerate(starts(grid[1], tiling.tile, tiling.step)))
            count = self._batch_size(min(tiling.tile, grid[0]) * min(tiling.tile, grid[1]))
            for first in range(0, len(columns), count):
                group = columns[first : first + count]
                cuts = [band[:, x * patch : (x + tiling.tile) * patch] for _, x in group]
                prepared = [self.info.transform.prepare_unscaled(cut) for cut in cuts]
                for (column, x), cut, ready, cls, patches in zip(
                    group, cuts, prepared, *self._forward(prepared), strict=True
                ):
                    maps.append((x, patches))
                    box = (y * patch, x * patch, cut.shape[0], cut.shape[1])
                    tile = self._row(one, f"{row},{column}", box, ready.valid, cls, patches)
                    made.append(tile | self._kept([], ready.valid))
            yield y, maps

    def _row(
        self, one: Loaded, tile: str, box: tuple[int, int, int, int], valid: Tensor, cls: Tensor, patches: Tensor
    ) -> dict[str, Any]:
        return {
            "id": f"{one.id}#{tile}" if tile else one.id,
            "picture": one.id,
            "tile": tile,
            "label": one.label,
            "stamp": one.stamp,
            "source_hash": one.source_hash,
            "model_hash": self.info.model_hash,
            "transform_hash": self.info.transform_hash,
            "width": one.width,
            "height": one.height,
            **dict(zip(("box_y", "box_x", "box_height", "box_width"), box, strict=True)),
            "cls": cls.numpy().copy(),  # a view would keep all tokens of its batch in memory
            "mean": mean_of_valid(patches, valid).numpy(),
        }

    def _kept(self, maps: Iterable[Tensor], valid: Tensor) -> dict[str, Any]:
        """The grid, and the patch features in their stored form: bands [k, w, D] from the top."""
        grid: dict[str, Any] = {
            "grid_h": valid.shape[0],
            "grid_w": valid.shape[1],
            "valid_h": int(valid[:, 0].sum()),
            "valid_w": int(valid[0].sum()),
        }
        # The bands are drawn also when none is kept: drawing them is what runs the tiles.
        keep = self.info.patches != "none"
        parts = [self.codec.encode(band.flatten(0, 1)) for band in maps if keep]
        if parts:
            grid["patches"] = np.concatenate([values for values, _ in parts])
            if self.info.patches == "int8":
                grid["patch_scales"] = np.concatenate([scales for _, scales in parts])
        return grid
