"""Sets of videos with a class each: UCF101, Something-Something v2 and Kinetics as published, and plain folders."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opendino.data.listing import has_picture_ending
from opendino.errors import DataError
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "UCF-101/CLASS/v_CLASS_gNN_cNN.avi and ucfTrainTestlist/{trainlist01,testlist01,classInd}.txt; "
    "SSv2: ID.webm and labels/{train,validation,labels}.json; "
    "Kinetics: annotations/{train,val}.csv and {train,val}/ID_START_END.mp4; or {train,val}/CLASS/VIDEO"
)
NO_FILMS = (".csv", ".json", ".txt", ".xml")
"""Annotations of pictures: their folders are no classes of films."""
_GROUP = re.compile(r"_(g\d+)_c\d+$")


@dataclass(frozen=True)
class Clip:
    """A video, its class, and what it was cut from: clips of one group are near copies."""

    path: Path
    label: int
    group: str


@dataclass(frozen=True)
class Actions:
    """Clips of both parts; classes in order of their numbers; absent: named by a list, and not there any more."""

    name: str
    split_hash: str
    classes: Sequence[str]
    train: Sequence[Clip]
    val: Sequence[Clip]
    absent: Sequence[str] = ()
    split = "val"

    @property
    def class_names(self) -> Sequence[str]:
        """In the order of their numbers."""
        return self.classes

    def words(self) -> str:
        """Videos and classes."""
        gone = f"; {len(self.absent):,} more are listed and not there" if self.absent else ""
        return f"{len(self.train):,} + {len(self.val):,} videos, {len(self.classes)} classes{gone}"


def open_actions(job: Job) -> Actions:
    """Recognise the layout; `--limit` takes videos evenly over each part. Raises DataError."""
    root = job.data
    if (root / "ucfTrainTestlist").is_dir():
        return _ucf(root, job)
    if (root / "labels" / "labels.json").is_file():
        return _ssv2(root, job)
    for lists in (root / "annotations", root):
        if (lists / "val.csv").is_file():
            return _kinetics(root, lists, job)
    parts = {part: root / part for part in ("train", "val")}
    if all(folder.is_dir() for folder in parts.values()):
        classes = sorted(path.name for path in parts["train"].iterdir() if path.is_dir())
        train, val = (
            [
                Clip(video, number, f"{name}/{video.stem}")
                for number, name in enumerate(classes)
                for video in sorted((folder / name).glob("[!.]*"))
                if video.is_dir() or not (has_picture_ending(video.name.encode()) or video.suffix in NO_FILMS)
            ]
            for folder in parts.values()
        )
        return _build(root.resolve().name, root, classes, train, val, job)
    raise DataError(root, "is no set of videos that is known", f"expected: {LAYOUT}")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(path, "is missing", f"expected: {LAYOUT}")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _ucf(root: Path, job: Job) -> Actions:
    """Class numbers in classInd.txt start at 1."""
    lists = root / "ucfTrainTestlist"
    numbers = {name: int(number) - 1 for number, name in (line.split() for line in _lines(lists / "classInd.txt"))}

    def clips(listing: str) -> list[Clip]:
        found = []
        for line in _lines(lists / listing):
            path = line.split()[0]
            name, stem = path.split("/")[0], Path(path).stem
            if name not in numbers:
                raise DataError(lists / listing, f"names the class {name}, classInd.txt does not")
            group = _GROUP.search(stem)
            found.append(Clip(root / "UCF-101" / path, numbers[name], f"{name}/{group.group(1) if group else stem}"))
        return found

    classes = sorted(numbers, key=lambda name: numbers[name])
    return _build("ucf101", root, classes, clips("trainlist01.txt"), clips("testlist01.txt"), job)


def _ssv2(root: Path, job: Job) -> Actions:
    """The class is the template without its brackets."""
    numbers = {str(name): int(number) for name, number in read_json(root / "labels" / "labels.json").items()}

    def clips(part: str) -> list[Clip]:
        try:
            return [
                Clip(
                    root / f"{int(one['id'])}.webm",
                    numbers[one["template"].replace("[", "").replace("]", "")],
                    str(one["id"]),
                )
                for one in read_json(root / "labels" / f"{part}.json")
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(root / "labels" / f"{part}.json", f"is no list of ids and templates ({error})") from None

    classes = sorted(numbers, key=lambda name: numbers[name])
    return _build("ssv2", root, classes, clips("train"), clips("validation"), job)


def _kinetics(root: Path, lists: Path, job: Job) -> Actions:
    """Rows of label, youtube_id, time_start, time_end, split. Videos vanish from the web: those that did are named."""
    rows: dict[str, list[dict[str, str]]] = {}
    for part in ("train", "val"):
        if not (lists / f"{part}.csv").is_file():
            raise DataError(lists / f"{part}.csv", "is missing", f"expected: {LAYOUT}")
        with open(lists / f"{part}.csv", newline="", encoding="utf-8") as lines:
            rows[part] = list(csv.DictReader(lines))
    try:
        classes = sorted({row["label"] for part in rows.values() for row in part})
        numbers = {name: number for number, name in enumerate(classes)}
        found: dict[str, list[Clip]] = {}
        absent = []
        for part, listed in rows.items():
            files = {path.stem: path for path in sorted((root / part).rglob("*")) if path.is_file()}
            found[part] = []
            for row in listed:
                span = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
                path = files.get(span) or files.get(row["youtube_id"])
                if path is None:
                    absent.append(f"{part}/{span}")
                else:
                    found[part].append(Clip(path, numbers[row["label"]], row["youtube_id"]))
    except (KeyError, TypeError, ValueError) as error:
        cause = f"its lists must have the columns label,youtube_id,time_start,time_end ({error})"
        raise DataError(lists, cause, f"expected: {LAYOUT}") from None
    return _build("kinetics400", root, classes, found["train"], found["val"], job, absent)


def _build(
    name: str,
    root: Path,
    classes: Sequence[str],
    train: Sequence[Clip],
    val: Sequence[Clip],
    job: Job,
    absent: Sequence[str] = (),
) -> Actions:
    train, val = evenly(list(train), job.limit), evenly(list(val), job.limit)
    if not train or not val:
        raise DataError(root, "holds no video on one side", f"expected: {LAYOUT}")
    return Actions(name, hash_ids([clip.path.name for clip in [*train, *val]]), classes, train, val, absent)
