"""Segmentation sets: ADE20k, Cityscapes, VOC, LoveDA and iSAID as published, and any folder of images and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opendino.data.listing import has_picture_ending
from opendino.errors import DataError
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.dense import read_mask
from opendino.evaluation.protocol import Job

LAYOUT = (
    "ADEChallengeData2016/{images,annotations}/{training,validation}/; leftImg8bit/ and gtFine/; "
    "VOCdevkit/VOC2012/; {Train,Val}/{Urban,Rural}/{images_png,masks_png}/; "
    "iSAID/{img_dir,ann_dir}/{train,val}/ in tiles; "
    "or {train,val}/{images,masks}/ with classes.txt"
)
IGNORE = 255
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""labelIds of the 19 scored classes, in order."""
LOVEDA_PLACES = ("Rural", "Urban")


@dataclass(frozen=True)
class Pair:
    """A picture and its mask; id is what the result names it by."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Masks:
    """train, val: pairs in order of names; class_names: their numbers where none are known; table [256]: class of each
    stored value, 255 for none.
    """

    name: str
    split_hash: str
    train: Sequence[Pair]
    val: Sequence[Pair]
    class_names: Sequence[str]
    table: NDArray[np.uint8]
    split = "val"

    @property
    def num_classes(self) -> int:
        """Scored classes."""
        return len(self.class_names)

    def words(self) -> str:
        """Pictures and classes."""
        return f"{len(self.train):,} train and {len(self.val):,} val pictures, {self.num_classes} classes"

    def read(self, pair: Pair) -> NDArray[np.uint8]:
        """[H, W] classes of a pair's mask, 255 where nothing is scored."""
        return self.table[read_mask(pair.mask)]


def open_masks(job: Job) -> Masks:
    """Recognise the layout. settings: `ignore`, a stored value of plain folders that is no class (-1: none).

    Raises:
        DataError: no layout fits, or a picture has no mask.
    """
    root = job.data
    if (ade := root / "ADEChallengeData2016").is_dir() or (ade := root / "annotations").is_dir():
        return _ade(ade if ade.name != "annotations" else root, job)
    if (root / "gtFine").is_dir():
        return _cityscapes(root, job)
    for voc in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (voc / "SegmentationClass").is_dir():
            return _voc(voc, job)
    if any((root / "Train" / place / "masks_png").is_dir() for place in LOVEDA_PLACES):
        return _loveda(root, job)
    for isaid in (root / "iSAID", root):
        if (isaid / "ann_dir").is_dir():
            return _isaid(isaid, job)
    if (root / "train" / "masks").is_dir():
        return _plain(root, job)
    raise DataError(root, "is no segmentation set that is known", f"expected: {LAYOUT}")


def _ade(root: Path, job: Job) -> Masks:
    # 0 is "other" and class c is stored as c + 1.
    table = _table({stored: stored - 1 for stored in range(1, 151)})
    parts = [_by_stem(root / "images" / part, root / "annotations" / part) for part in ("training", "validation")]
    return _build("ade20k", parts, _numbers(150), table, job)


def _cityscapes(root: Path, job: Job) -> Masks:
    table = _table({stored: index for index, stored in enumerate(CITYSCAPES_IDS)})
    parts = []
    for part in ("train", "val"):
        pictures = sorted((root / "leftImg8bit" / part).glob("*/*_leftImg8bit.png"))
        pairs = []
        for picture in pictures:
            stem = picture.name.removesuffix("_leftImg8bit.png")
            mask = root / "gtFine" / part / picture.parent.name / f"{stem}_gtFine_labelIds.png"
            pairs.append(Pair(stem, picture, mask))
        parts.append(pairs)
    return _build("cityscapes", parts, _numbers(19), table, job)


def _voc(root: Path, job: Job) -> Masks:
    parts = []
    for part in ("train", "val"):
        listing = root / "ImageSets" / "Segmentation" / f"{part}.txt"
        if not listing.is_file():
            raise DataError(listing, "is missing", f"expected: {LAYOUT}")
        names = listing.read_text().split()
        parts.append(
            [Pair(n, root / "JPEGImages" / f"{n}.jpg", root / "SegmentationClass" / f"{n}.png") for n in names]
        )
    return _build("voc2012", parts, _numbers(21), _table({value: value for value in range(21)}), job)


def _loveda(root: Path, job: Job) -> Masks:
    """0 is no data, class c is stored as c + 1; a number names a picture of one place and part alone."""
    parts = [
        [
            Pair(f"{place}/{pair.id}", pair.image, pair.mask)
            for place in LOVEDA_PLACES
            if (root / part / place).is_dir()
            for pair in _by_stem(root / part / place / "images_png", root / part / place / "masks_png")
        ]
        for part in ("Train", "Val")
    ]
    return _build("loveda", parts, _numbers(7), _table({stored: stored - 1 for stored in range(1, 8)}), job)


def _isaid(root: Path, job: Job) -> Masks:
    """Tiles as mmsegmentation cuts them; 16 classes, the background (0) among them, as it counts them."""
    parts = []
    for part in ("train", "val"):
        pictures = sorted((root / "img_dir" / part).glob("*.png"))
        masks = root / "ann_dir" / part
        parts.append([Pair(one.stem, one, masks / f"{one.stem}_instance_color_RGB.png") for one in pictures])
    return _build("isaid", parts, _numbers(16), _table({value: value for value in range(16)}), job)


def _plain(root: Path, job: Job) -> Masks:
    parts = [_by_stem(root / part / "images", root / part / "masks") for part in ("train", "val")]
    ignore = int(job.settings.get("ignore", IGNORE))
    names = root / "classes.txt"
    if names.is_file():
        known = dict(enumerate(names.read_text().splitlines()))
    else:
        # Without names the classes are the values that the masks of train hold.
        known = {int(value): str(value) for pair in parts[0] for value in np.unique(read_mask(pair.mask))}
    kept = sorted(value for value in known if value != ignore)
    table = _table({value: index for index, value in enumerate(kept)})
    return _build(root.resolve().name, parts, [known[value] for value in kept], table, job)


def _by_stem(images: Path, masks: Path) -> list[Pair]:
    if not images.is_dir() or not masks.is_dir():
        raise DataError(images if not images.is_dir() else masks, "is missing", f"expected: {LAYOUT}")
    pictures = sorted(path for path in images.rglob("*") if has_picture_ending(path.name.encode()))
    return [Pair(path.stem, path, masks / path.relative_to(images).with_suffix(".png")) for path in pictures]


def _table(classes: dict[int, int]) -> NDArray[np.uint8]:
    table = np.full(256, IGNORE, np.uint8)
    table[list(classes)] = list(classes.values())
    return table


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _build(
    name: str, parts: Sequence[Sequence[Pair]], classes: Sequence[str], table: NDArray[np.uint8], job: Job
) -> Masks:
    for part, pairs in zip(("train", "val"), parts, strict=True):
        if not pairs:
            raise DataError(job.data, f"has no {part} pictures", f"expected: {LAYOUT}")
        if absent := [pair for pair in pairs if not pair.mask.is_file()]:
            raise DataError(absent[0].mask, f"is missing, and {len(absent) - 1} more masks", f"expected: {LAYOUT}")
    train, val = (evenly(pairs, job.limit) for pairs in parts)
    digest = hash_ids([*(p.id for p in train), "|", *(p.id for p in val)])
    return Masks(name, digest, train, val, classes, table)
