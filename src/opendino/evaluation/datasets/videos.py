"""Video sets with object masks: DAVIS, YouTube-VOS and MOSE as published, and plain folders of frames and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opendino.data.listing import PARTS, has_picture_ending
from opendino.errors import DataError
from opendino.evaluation.datasets.units import hash_ids
from opendino.evaluation.dense import read_mask
from opendino.evaluation.protocol import Job

LAYOUT = (
    "DAVIS: {JPEGImages,Annotations}/480p/SEQ/00000.{jpg,png} and ImageSets/2017/val.txt; "
    "or {JPEGImages,Annotations}/SEQ/; or SEQ/{images,masks}/"
)


@dataclass(frozen=True)
class Video:
    """A video: frames and their masks, in order."""

    name: str
    frames: Sequence[Path]
    masks: Sequence[Path]


@dataclass(frozen=True)
class Videos:
    """Videos whose every frame has a mask; split: which of the set's."""

    name: str
    split_hash: str
    videos: Sequence[Video]
    split: str = "all"

    def words(self) -> str:
        """Videos and frames."""
        return f"{len(self.videos)} videos, {sum(len(video.frames) for video in self.videos):,} frames"


def read_objects(path: Path) -> NDArray[np.uint8]:
    """[H, W] object numbers. Masks of one object painted with 255 alone, as DAVIS 2016 has them, become 0 and 1."""
    mask = read_mask(path)
    return np.where(mask == 255, 1, mask).astype(np.uint8) if set(np.unique(mask)) <= {0, 255} else mask


def open_videos(job: Job) -> Videos:
    """Recognise the layout; `--limit` takes the first so many frames of every video. Raises DataError."""
    root = job.data
    if (root / "DAVIS").is_dir():
        root = root / "DAVIS"
    if (root / "Annotations" / "480p").is_dir():
        listing = root / "ImageSets" / "2017" / "val.txt"
        if not listing.is_file():
            raise DataError(listing, "is missing", f"expected: {LAYOUT}")
        return _build("davis2017", root, "JPEGImages/480p/{}", "Annotations/480p/{}", listing.read_text().split(), job)
    if (root / "Annotations").is_dir():
        names = sorted(path.name for path in (root / "Annotations").iterdir() if path.is_dir())
        return _build(root.resolve().name, root, "JPEGImages/{}", "Annotations/{}", names, job)
    names = sorted(path.parent.name for path in root.glob("*/masks") if path.is_dir())
    if names and all(name.lower().encode() in PARTS for name in names):
        raise DataError(root, f"holds {' and '.join(names)}, parts of a data set and no videos", f"expected: {LAYOUT}")
    return _build(root.resolve().name, root, "{}/images", "{}/masks", names, job)


def _build(name: str, root: Path, frames: str, masks: str, names: Sequence[str], job: Job) -> Videos:
    videos = []
    for video in names:
        folder = root / frames.format(video)
        if not folder.is_dir():
            raise DataError(folder, "is missing", f"expected: {LAYOUT}")
        pictures = sorted(path for path in folder.iterdir() if has_picture_ending(path.name.encode()))[: job.limit]
        truths = [root / masks.format(video) / f"{picture.stem}.png" for picture in pictures]
        if absent := [path for path in truths if not path.is_file()]:
            raise DataError(absent[0], f"is missing, and {len(absent) - 1} more masks", "every frame needs a mask")
        videos.append(Video(video, pictures, truths))
    if not videos:
        raise DataError(root, "holds no video that is known", f"expected: {LAYOUT}")
    frames_of = [f"{video.name}/{frame.stem}" for video in videos for frame in video.frames]
    return Videos(name, hash_ids(frames_of), videos, "val" if name == "davis2017" else "all")
