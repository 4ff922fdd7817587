"""Detection sets with a part to fit on and one to score: COCO, VOC, and folders of VOC's XML or YOLO's text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendino.data.listing import has_picture_ending
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.objects import (
    Objects,
    in_folder,
    read_coco,
    read_lines,
    read_voc,
    read_yolo,
    require_placed,
)
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.metrics.detection import Truth
from opendino.evaluation.protocol import Job

LAYOUT = (
    "annotations/instances_{train2017,val2017}.json beside train2017/ and val2017/, or other parts named so; "
    "VOCdevkit/VOC2007 or VOC2012/{JPEGImages,Annotations,ImageSets/Main/*.txt}; "
    "{train,val}/images/ beside {train,val}/annotations/ of VOC's XML, one a picture; "
    "or {train,val}/images/ beside {train,val}/labels/ of YOLO's text files, or images/{train,val}/ beside "
    "labels/{train,val}/, with classes.txt"
)
PARTS = {"train": ("train",), "val": ("val", "valid")}
"""Of plain folders, with the names that they go by."""
CLASSES = "classes.txt"
VOC_PARTS = {"2007": ("trainval", "test"), "2012": ("train", "val")}
"""Lists to fit on and to score: the truth of VOC 2012's test is not published."""


@dataclass(frozen=True)
class Marked:
    """A picture with its objects, if any; id is what results name it by."""

    id: str
    image: Path
    objects: Objects


@dataclass(frozen=True)
class Detectable:
    """train, val: marked pictures; class_names: of the classes that are scored; numbers: which of them a name in the
    annotations is; skipped: pictures without an annotation, where what they show is not known.
    """

    name: str
    split_hash: str
    train: Sequence[Marked]
    val: Sequence[Marked]
    class_names: Sequence[str]
    numbers: Mapping[str, int]
    skipped: Sequence[Skipped]
    split: str

    def words(self) -> str:
        """Pictures and classes."""
        empty = sum(not len(one.objects.boxes) for one in (*self.train, *self.val))
        without = f" ({empty:,} without objects)" if empty else ""
        pictures = f"{len(self.train):,} train and {len(self.val):,} val pictures{without}"
        return f"{pictures}, {len(self.class_names)} classes"

    def truth(self, one: Marked, height: int, width: int) -> Truth:
        """Objects of a picture of so many pixels; those that VOC calls difficult count as crowds do.

        Raises DataError for a picture of another size than the one that was marked, and for boxes outside.
        """
        objects = one.objects
        scale = np.array([width, height, width, height]) if objects.size == (1, 1) else np.ones(4)
        boxes = objects.boxes * scale
        require_placed(boxes, objects.size, height, width)
        classes = np.array([self.numbers[name] for name in objects.names], np.int64)
        return Truth(boxes, classes, objects.areas * scale[:2].prod(), objects.crowd | objects.difficult)

    def warnings(self) -> list[str]:
        """Of classes that nothing is learned of."""
        taught, asked = ({name for one in part for name in one.objects.names} for part in (self.train, self.val))
        lacking = sorted(asked - taught)
        if not lacking or len(self.class_names) == 1:
            return []
        named = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        return [f"{len(lacking)} of {len(asked)} scored classes are in no train picture and count as 0: {named}"]


def open_detections(job: Job) -> Detectable:
    """Recognise the layout; `--limit` takes pictures evenly over each part.

    settings: `agnostic`, whether all objects are of one class. Raises DataError.
    """
    root = job.data
    for year in VOC_PARTS:
        for voc in (root / "VOCdevkit" / f"VOC{year}", root):
            if (voc / "Annotations").is_dir() and voc.name == f"VOC{year}":
                return _voc(voc, year, job)
    listed = [sorted((root / "annotations").glob(f"instances_{part}*.json"), reverse=True) for part in PARTS]
    if all(listed):
        return _coco(root, [files[0] for files in listed], job)
    kinds = [kind for kind in ("annotations", "labels") if all(_folder(root, part, kind).is_dir() for part in PARTS)]
    if len(kinds) == 2:
        raise DataError(root, "has annotations/ and labels/", "move the one away that is not meant")
    if kinds:
        return (_beside_xml if kinds[0] == "annotations" else _beside_text)(root, job)
    raise DataError(root, "is no detection set that is known", f"expected: {LAYOUT}")


def _coco(root: Path, files: Sequence[Path], job: Job) -> Detectable:
    parts: list[list[Marked]] = []
    names: list[str] = []
    skipped = []
    for file in files:
        classes, pictures, strays = read_coco(file)
        names += [name for name in classes if name not in names]
        folder = root / file.stem.removeprefix("instances_")
        parts.append([Marked(name, in_folder(folder, name), objects) for name, objects in pictures])
        if strays:
            skipped.append(Skipped(file.name, f"{strays} annotations of pictures that it does not list"))
    return _build(root.resolve().name, files[1].stem.removeprefix("instances_"), parts, names, skipped, job)


def _voc(root: Path, year: str, job: Job) -> Detectable:
    parts = []
    for part in VOC_PARTS[year]:
        listing = root / "ImageSets" / "Main" / f"{part}.txt"
        if not listing.is_file():
            raise DataError(listing, "is missing", f"expected: {LAYOUT}")
        parts.append(
            [
                Marked(stem, root / "JPEGImages" / f"{stem}.jpg", read_voc(root / "Annotations" / f"{stem}.xml"))
                for stem in listing.read_text().split()
            ]
        )
    return _build(f"voc{year}", VOC_PARTS[year][1], parts, _names(parts), [], job)


def _folder(root: Path, part: str, kind: str) -> Path:
    """PART/KIND or KIND/PART, the first of them that there is."""
    found = [path for name in PARTS[part] for path in (root / name / kind, root / kind / name)]
    return next((path for path in found if path.is_dir()), found[0])


def _beside(root: Path, part: str, kind: str, suffix: str) -> tuple[list[Path], dict[str, Path]]:
    """Pictures of a part and its files of annotations by stem. Raises DataError for one without a picture."""
    images = _folder(root, part, "images")
    if not images.is_dir():
        raise DataError(images, "is missing", f"expected: {LAYOUT}")
    pictures = [one for one in sorted(images.iterdir()) if has_picture_ending(one.name.encode())]
    files = sorted(_folder(root, part, kind).glob(f"*{suffix}"))
    marked = {file.stem: file for file in files if file.name != CLASSES}
    if strays := sorted(marked.keys() - {one.stem for one in pictures}):
        more = f", nor have {len(strays) - 1} more" if len(strays) > 1 else ""
        cause = f"has no picture in {images.relative_to(root)}/{more}"
        raise DataError(marked[strays[0]], cause, "add it, or take the file away")
    return pictures, marked


def _beside_text(root: Path, job: Job) -> Detectable:
    # Tools that draw boxes leave the names beside the labels.
    places = (root / CLASSES, _folder(root, "train", "labels") / CLASSES)
    file = next((one for one in places if one.is_file()), None)
    known = [line.strip() for line in read_lines(file)] if file is not None else []
    if twice := [name for name in known if not name or known.count(name) > 1]:
        cause = f"names {twice[0]} twice" if twice[0] else "has an empty line"
        raise DataError(file, cause, "its lines are the names of classes 0, 1, ...")
    parts = []
    for part in PARTS:
        pictures, marked = _beside(root, part, "labels", ".txt")
        parts.append([Marked(_id(root, one), one, read_yolo(marked.get(one.stem), known)) for one in pictures])
    return _build(root.resolve().name, "val", parts, known or sorted(_names(parts), key=int), [], job)


def _beside_xml(root: Path, job: Job) -> Detectable:
    parts: list[list[Marked]] = []
    skipped = []
    for part in PARTS:
        pictures, marked = _beside(root, part, "annotations", ".xml")
        known = [one for one in pictures if one.stem in marked]
        parts.append([Marked(_id(root, one), one, read_voc(marked[one.stem])) for one in known])
        skipped += [Skipped(_id(root, one), "no annotation") for one in pictures if one.stem not in marked]
    return _build(root.resolve().name, "val", parts, _names(parts), skipped, job)


def _id(root: Path, image: Path) -> str:
    return image.relative_to(root).as_posix()


def _names(parts: Sequence[Sequence[Marked]]) -> list[str]:
    return sorted({name for part in parts for one in part for name in one.objects.names})


def _build(
    name: str,
    split: str,
    parts: Sequence[Sequence[Marked]],
    class_names: Sequence[str],
    skipped: Sequence[Skipped],
    job: Job,
) -> Detectable:
    train, val = (evenly(part, job.limit) for part in parts)
    for part, marked in zip(PARTS, (train, val), strict=True):
        if not any((~(one.objects.crowd | one.objects.difficult)).any() for one in marked):
            among = "" if job.limit is None else f" among {len(marked)}"
            raise DataError(job.data, f"has no {part} picture with a clear object{among}", "mark objects in some")
        if unnamed := [one for one in marked if "" in one.objects.names]:
            raise DataError(unnamed[0].image, "has an object without a name", "name its class in the annotation")
    digest = hash_ids([*(one.id for one in train), "|", *(one.id for one in val)])
    numbers = {name: number for number, name in enumerate(class_names)}
    if job.settings.get("agnostic"):
        class_names, numbers = ["object"], dict.fromkeys(numbers, 0)
    return Detectable(name, digest, train, val, class_names, numbers, skipped, split)
