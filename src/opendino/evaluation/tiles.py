"""The demo's task: which photograph does a tile come from? Small, exact, and colour alone does not solve it.

Twenty photographs that scikit-image and scikit-learn ship, short side 320 px. Training tiles come from the left 55 % of
each, query tiles from the right 38 %, so no pixel is on both sides; each query's colours are changed, half of them to
grey. The gallery of k-NN is the training tiles with their photograph as label: training sees the same tiles but no
label, and every baseline gets the same gallery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from opendino.data import images
from opendino.data.sources import open_source
from opendino.errors import DataError, UsageError

TILE_PX = 64
SHORT_SIDE_PX = 320
TRAIN_TILES = 90
QUERY_TILES = 30
TRAIN_END, QUERY_START = 0.55, 0.62
"""Shares of the width; the gap between them belongs to neither side."""
TILE_SCALE = (0.8, 1.25)
GREY_SHARE = 0.5
GAIN = (0.6, 1.4)
"""Range of each colour channel's factor and of the contrast factor of query tiles."""
MAX_PHOTOGRAPHS = 20

SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "cell.png",
    "clock_motion.png",
    "text.png",
)
SKLEARN = ("china.jpg", "flower.jpg")
SHOWN = ("astronaut", "chelsea", "china", "coffee", "flower", "motorcycle_left")
"""Photographs of things; of one's own the first six."""


@dataclass(frozen=True)
class TileTask:
    """train [n, 64, 64, 3] uint8 with ids "photograph/number"; bank and bank_labels are the same tiles as a gallery;
    queries [q, 64, 64, 3] uint8, query_labels; labels int64 index `names`, the photographs; `shown`: the middle squares
    of some photographs by name, uint8 [320, 320, 3], to look at.
    """

    train: NDArray[np.uint8]
    ids: tuple[str, ...]
    bank: NDArray[np.uint8]
    bank_labels: NDArray[np.int64]
    queries: NDArray[np.uint8]
    query_labels: NDArray[np.int64]
    names: tuple[str, ...]
    shown: Mapping[str, NDArray[np.uint8]]

    @property
    def chance(self) -> float:
        """Percent right by guessing."""
        return 100 / len(self.names)


def build_tiles(seed: int = 0, images_dir: Path | None = None) -> TileTask:
    """Cut the tiles; the same seed gives the same tiles, and leaving out a photograph does not change the others.

    Args:
        images_dir: own photographs instead, the first 20 in order of names; each is one class.
    Raises:
        UsageError: the packages that ship the photographs are missing.
        DataError: fewer than two usable photographs.
    """
    photographs = _own(Path(images_dir)) if images_dir is not None else _shipped()
    names = tuple(sorted(photographs))
    shown: dict[str, NDArray[np.uint8]] = {}
    train: list[NDArray[np.uint8]] = []
    queries: list[NDArray[np.uint8]] = []
    for name in names:
        photograph = _scale(photographs[name])
        width = photograph.width
        if name in (SHOWN if images_dir is None else names[: len(SHOWN)]):
            shown[name] = np.asarray(ImageOps.fit(photograph, (SHORT_SIDE_PX, SHORT_SIDE_PX)))
        for side, (part, count) in enumerate(
            [((0, int(TRAIN_END * width)), TRAIN_TILES), ((int(QUERY_START * width), width), QUERY_TILES)]
        ):
            generator = np.random.default_rng([seed, side, *name.encode()])
            cut = [_cut(photograph, part, generator) for _ in range(count)]
            if side == 0:
                train.extend(cut)
            else:
                queries.extend(_change_colour(tile, generator) for tile in cut)
    ids = tuple(f"{name}/{number:03d}" for name in names for number in range(TRAIN_TILES))
    tiles = np.stack(train)
    return TileTask(
        train=tiles,
        ids=ids,
        bank=tiles,
        bank_labels=np.repeat(np.arange(len(names)), TRAIN_TILES),
        queries=np.stack(queries),
        query_labels=np.repeat(np.arange(len(names)), QUERY_TILES),
        names=names,
        shown=shown,
    )


def write_tiles(task: TileTask, folder: Path) -> None:
    """Write PNG files: folder/train/PHOTOGRAPH/NNN.png, folder/queries/PHOTOGRAPH/NNN.png, folder/shown/PHOTOGRAPH.png.

    So `opendino pretrain folder/train --val folder/queries` runs on them by hand. Existing tiles are written over.
    """
    for part, tiles, labels in (
        ("train", task.bank, task.bank_labels),
        ("queries", task.queries, task.query_labels),
    ):
        numbers = dict.fromkeys(range(len(task.names)), 0)
        for tile, label in zip(tiles, labels.tolist(), strict=True):
            target = folder / part / task.names[label]
            target.mkdir(parents=True, exist_ok=True)
            PillowImage.fromarray(tile).save(target / f"{numbers[label]:03d}.png", compress_level=1)
            numbers[label] += 1
    (folder / "shown").mkdir(parents=True, exist_ok=True)
    for name, photograph in task.shown.items():
        PillowImage.fromarray(photograph).save(folder / "shown" / f"{name}.png")


def _shipped() -> dict[str, NDArray[np.uint8]]:
    files = [_package_folder("skimage", "data") / name for name in SKIMAGE]
    files += [_package_folder("sklearn", "datasets/images") / name for name in SKLEARN]
    if absent := [file.name for file in files if not file.is_file()]:
        raise UsageError("demo photographs", f"{', '.join(absent)} not in the installed packages", _FIX)
    return {file.stem: images.read(file).array for file in files}


_FIX = 'run: pip install "opendino[demo]", or give your own photographs with --images DIR'


def _package_folder(package: str, below: str) -> Path:
    # Found without importing it: scikit-learn takes a second to import.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError("demo photographs", f"{package} is not installed", _FIX)
    return Path(spec.origin).parent / below


def _own(folder: Path) -> dict[str, NDArray[np.uint8]]:
    source = open_source(folder)
    photographs: dict[str, NDArray[np.uint8]] = {}
    problems: list[str] = []
    for index in range(len(source)):
        if len(photographs) == MAX_PHOTOGRAPHS:
            break
        try:
            array = source.read(index).array
        except DataError as error:
            problems.append(str(error))
            continue
        if min(array.shape[:2]) < TILE_PX:
            problems.append(f"{source.id(index)}: smaller than {TILE_PX} px")
            continue
        # A name for a folder: two digits keep equal stems in different folders apart.
        photographs[f"{index:02d}-{Path(source.id(index)).stem}"] = array
    if len(photographs) < 2:
        cause = f"{len(photographs)} usable photographs, at least 2 are needed"
        raise DataError(folder, cause + (f" ({problems[0]})" if problems else ""))
    return photographs


def _scale(array: NDArray[np.uint8]) -> PillowImage.Image:
    photograph = PillowImage.fromarray(array)
    factor = SHORT_SIDE_PX / min(photograph.size)
    size = (round(photograph.width * factor), round(photograph.height * factor))
    return photograph.resize(size, PillowImage.Resampling.LANCZOS)


def _cut(photograph: PillowImage.Image, part: Sequence[int], generator: np.random.Generator) -> NDArray[np.uint8]:
    """A square tile within columns [part[0], part[1]), brought to TILE_PX."""
    side = min(round(TILE_PX * generator.uniform(*TILE_SCALE)), part[1] - part[0], photograph.height)
    left = int(generator.integers(part[0], part[1] - side + 1))
    top = int(generator.integers(0, photograph.height - side + 1))
    box = (left, top, left + side, top + side)
    tile = photograph.resize((TILE_PX, TILE_PX), PillowImage.Resampling.BILINEAR, box=box)
    return np.asarray(tile)


def _change_colour(tile: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    values = tile.astype(np.float64)
    if generator.random() < GREY_SHARE:
        # Luma weights of ITU-R BT.601.
        values = np.repeat((values @ [0.299, 0.587, 0.114])[..., None], 3, axis=2)
    values = values * generator.uniform(*GAIN, size=3)
    values = (values - values.mean()) * generator.uniform(*GAIN) + values.mean()
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
