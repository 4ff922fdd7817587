"""Detection sets for object discovery: VOC's XML and COCO's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opendino.data.beside import read_declared
from opendino.data.images import Image
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.objects import Objects, in_folder, read_coco, read_voc, require_placed
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job

LAYOUT = (
    "VOCdevkit/VOC2007 or VOC2012/{JPEGImages,Annotations,ImageSets/Main/trainval.txt}; "
    "or annotations/instances_PART.json beside PART/, with coco_20k_filenames.txt COCO-20k alone; "
    "or images/ beside annotations/ of VOC's XML, one a picture, here or in folders of parts, which are all scored"
)
COCO_20K = "coco_20k_filenames.txt"


@dataclass(frozen=True)
class Boxed:
    """A picture with its true boxes [n, 4], xyxy in pixels, n >= 1; size: of the picture that was marked, if known."""

    id: str
    image: Path
    boxes: NDArray[np.float64]
    size: tuple[int, int] | None = None

    def read(self) -> Image:
        """The picture. Raises DataError when it is not the one that was marked."""
        picture = read_declared(self.image)
        require_placed(self.boxes, self.size, *picture.array.shape[:2])
        return picture


@dataclass(frozen=True)
class Boxes:
    """Pictures that have boxes; skipped: those without, which are not scored; split: the part that is listed."""

    name: str
    split_hash: str
    pictures: Sequence[Boxed]
    skipped: Sequence[Skipped]
    split: str

    def words(self) -> str:
        """Pictures with boxes and without."""
        return f"{len(self.pictures):,} pictures with boxes, {len(self.skipped)} without"


def open_boxes(job: Job) -> Boxes:
    """Recognise the layout; `--limit` takes pictures evenly over the list. Raises DataError."""
    for year in ("2007", "2012"):
        for root in (job.data / "VOCdevkit" / f"VOC{year}", job.data):
            if (root / "Annotations").is_dir() and (root.name == f"VOC{year}"):
                return _build(f"voc{year}", "trainval", _voc(root), job)
    if (job.data / COCO_20K).is_file():
        return _build("coco20k", "train2014", _coco_20k(job.data), job)
    for file in sorted((job.data / "annotations").glob("instances_*.json"), reverse=True):
        part = file.stem.removeprefix("instances_")
        return _build(f"{job.data.resolve().name} {part}", part, _coco(job.data, file), job)
    if found := _plain(job.data):
        return _build(job.data.resolve().name, "all", found, job)
    raise DataError(job.data, "is no detection set that is known", f"expected: {LAYOUT}")


def _voc(root: Path) -> list[Boxed]:
    listing = root / "ImageSets" / "Main" / "trainval.txt"
    if not listing.is_file():
        raise DataError(listing, "is missing", f"expected: {LAYOUT}")
    return [
        _boxed(name, root / "JPEGImages" / f"{name}.jpg", read_voc(root / "Annotations" / f"{name}.xml"))
        for name in listing.read_text().split()
    ]


def _boxed(name: str, image: Path, objects: Objects) -> Boxed:
    return Boxed(name, image, objects.boxes, objects.size)


def _plain(root: Path) -> list[Boxed]:
    """Pictures of images/ with annotations/STEM.xml beside, of the root or else of all its folders; none: no boxes."""
    parts = [root] if (root / "images").is_dir() else sorted(root.iterdir())
    found = []
    for part in parts:
        marked = {file.stem: file for file in (part / "annotations").glob("*.xml")}
        for image in sorted((part / "images").iterdir()) if marked and (part / "images").is_dir() else ():
            name = image.relative_to(root).as_posix()
            if image.stem in marked:
                found.append(_boxed(name, image, read_voc(marked.pop(image.stem))))
            else:
                found.append(Boxed(name, image, np.empty((0, 4))))
        if marked:
            raise DataError(next(iter(marked.values())), "has no picture in images/", "add it, or take the file away")
    return found


def _coco(root: Path, file: Path) -> list[Boxed]:
    """Crowds left out; sides in whole pixels, as those who compare by CorLoc read them."""
    folder = root / file.stem.removeprefix("instances_")
    return [
        Boxed(name, in_folder(folder, name), objects.boxes[~objects.crowd].round(), objects.size)
        for name, objects in read_coco(file)[1]
    ]


def _coco_20k(root: Path) -> list[Boxed]:
    """The pictures of train2014 that are listed, a path a line."""
    listed = {Path(line).name for line in (root / COCO_20K).read_text().split()}
    file = root / "annotations" / "instances_train2014.json"
    found = [one for one in _coco(root, file) if Path(one.id).name in listed]
    if len(found) != len(listed):
        raise DataError(root / COCO_20K, f"names {len(listed)} pictures, {len(found)} of them are in {file.name}")
    return found


def _build(name: str, split: str, found: list[Boxed], job: Job) -> Boxes:
    kept = evenly([one for one in found if len(one.boxes)], job.limit)
    if not kept:
        raise DataError(job.data, "holds no picture with a box", f"expected: {LAYOUT}")
    skipped = [Skipped(one.id, "no boxes") for one in found if not len(one.boxes)]
    return Boxes(name, hash_ids([one.id for one in kept]), kept, skipped, split)
