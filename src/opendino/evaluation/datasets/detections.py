"""Detection sets with a part to fit on and one to score: COCO, VOC, and folders of VOC's XML or YOLO's text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendino.data.listing import has_picture_ending
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.objects import Objects, read_coco, read_voc, read_yolo
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.metrics.detection import Truth
from opendino.evaluation.protocol import Job

LAYOUT = (
    "annotations/instances_{train2017,val2017}.json beside train2017/ and val2017/, or other parts named so; "
    "VOCdevkit/VOC2007 or VOC2012/{JPEGImages,Annotations,ImageSets/Main/*.txt}; "
    "{train,val}/images/ beside {train,val}/annotations/ of VOC's XML, one a picture; "
    "or {train,val}/images/ beside {train,val}/labels/ of YOLO's text files, with classes.txt"
)
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
        return f"{len(self.train):,} train and {len(self.val):,} val pictures, {len(self.class_names)} classes"

    def truth(self, one: Marked, height: int, width: int) -> Truth:
        """Objects of a picture of so many pixels; those that VOC calls difficult count as crowds do."""
        objects = one.objects
        scale = np.array([width, height, width, height]) if objects.relative else np.ones(4)
        classes = np.array([self.numbers[name] for name in objects.names], np.int64)
        areas = objects.areas * scale[:2].prod()
        return Truth(objects.boxes * scale, classes, areas, objects.crowd | objects.difficult)


def open_detections(job: Job) -> Detectable:
    """Recognise the layout; `--limit` takes pictures evenly over each part.

    settings: `agnostic`, whether all objects are of one class. Raises DataError.
    """
    root = job.data
    for year in VOC_PARTS:
        for voc in (root / "VOCdevkit" / f"VOC{year}", root):
            if (voc / "Annotations").is_dir() and voc.name == f"VOC{year}":
                return _voc(voc, year, job)
    listed = [sorted((root / "annotations").glob(f"instances_{part}*.json"), reverse=True) for part in ("train", "val")]
    if all(listed):
        return _coco(root, [files[0] for files in listed], job)
    for folder in ("annotations", "labels"):
        if all((root / part / folder).is_dir() for part in ("train", "val")):
            return (_beside_xml if folder == "annotations" else _beside_text)(root, job)
    raise DataError(root, "is no detection set that is known", f"expected: {LAYOUT}")


def _coco(root: Path, files: Sequence[Path], job: Job) -> Detectable:
    parts: list[list[Marked]] = []
    names: list[str] = []
    for file in files:
        classes, pictures = read_coco(file)
        names += [name for name in classes if name not in names]
        folder = root / file.stem.removeprefix("instances_")
        parts.append([Marked(name, folder / Path(name).name, objects) for name, objects in pictures])
    return _build(root.resolve().name, files[1].stem.removeprefix("instances_"), parts, names, [], job)


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


def _pictures(root: Path, part: str) -> list[Path]:
    return [one for one in sorted((root / part / "images").glob("*")) if has_picture_ending(one.name.encode())]


def _beside_text(root: Path, job: Job) -> Detectable:
    file = root / "classes.txt"
    known = file.read_text().splitlines() if file.is_file() else []
    parts = [
        [
            Marked(one.relative_to(root).as_posix(), one, read_yolo(root / part / "labels" / f"{one.stem}.txt", known))
            for one in _pictures(root, part)
        ]
        for part in ("train", "val")
    ]
    return _build(root.resolve().name, "val", parts, known or sorted(_names(parts), key=int), [], job)


def _beside_xml(root: Path, job: Job) -> Detectable:
    parts: list[list[Marked]] = []
    skipped = []
    for part in ("train", "val"):
        marked = {file.stem: file for file in (root / part / "annotations").glob("*.xml")}
        parts.append([])
        for image in _pictures(root, part):
            name = image.relative_to(root).as_posix()
            if image.stem in marked:
                parts[-1].append(Marked(name, image, read_voc(marked.pop(image.stem))))
            else:
                skipped.append(Skipped(name, "no annotation"))
        if marked:
            raise DataError(next(iter(marked.values())), "has no picture in images/", "add it, or take the file away")
    return _build(root.resolve().name, "val", parts, _names(parts), skipped, job)


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
    for part, marked in zip(("train", "val"), parts, strict=True):
        if not any(len(one.objects.boxes) for one in marked):
            raise DataError(job.data, f"has no {part} picture with a box", f"expected: {LAYOUT}")
    train, val = (evenly(part, job.limit) for part in parts)
    digest = hash_ids([*(one.id for one in train), "|", *(one.id for one in val)])
    numbers = {name: number for number, name in enumerate(class_names)}
    if job.settings.get("agnostic"):
        class_names, numbers = ["object"], dict.fromkeys(numbers, 0)
    return Detectable(name, digest, train, val, class_names, numbers, skipped, split)
