"""ObjectNet as published, for a classifier of ImageNet: which of its 1,000 outputs name which object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opendino.data import images
from opendino.data.listing import has_picture_ending
from opendino.data.sources import Source
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.listed import ListSource
from opendino.evaluation.datasets.units import hash_ids
from opendino.evaluation.datasets.variants import open_train
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "train/WNID/ of ImageNet beside objectnet-1.0/{images/FOLDER/*.png, mappings/{folder_to_objectnet_label.json, "
    "objectnet_to_imagenet_1k.json, pytorch_to_imagenet_2012_id.json, imagenet_to_label_2012_v2}}"
)
EXPECTED = f"expected: {LAYOUT}"
BORDER_PX = 2
"""Of red around every picture, which is to keep them out of training sets."""


class Bordered(ListSource):
    """Pictures without their red border."""

    def read(self, index: int) -> images.Image:
        """Decode and cut."""
        picture = super().read(index)
        cut = slice(BORDER_PX, -BORDER_PX)
        return replace(picture, array=np.ascontiguousarray(picture.array[cut, cut]))


@dataclass(frozen=True)
class ObjectNet:
    """train: of ImageNet, where the classifier is fitted; pictures: of the objects that ImageNet knows too, by folder.

    outputs: for each of the folders those outputs of the classifier that name it.
    """

    name: str
    split_hash: str
    train: Source
    pictures: Source
    outputs: Sequence[frozenset[int]]
    split = "test"

    @property
    def class_names(self) -> Sequence[str]:
        """The objects' folders."""
        return self.pictures.classes

    def words(self) -> str:
        """Pictures and objects."""
        return f"{len(self.train):,} train pictures; {len(self.pictures):,} of {len(self.outputs)} objects"


def open_objectnet(job: Job) -> ObjectNet:
    """Raises DataError naming the mapping or folder that is missing."""
    train = open_train(job, LAYOUT)
    root = next((job.data / name for name in ("objectnet-1.0", "objectnet") if (job.data / name).is_dir()), job.data)
    if not (root / "images").is_dir():
        raise DataError(root / "images", "is missing", EXPECTED)
    outputs = _outputs_by_folder(root / "mappings", len(train.classes))
    names, labels = [], []
    for folder in sorted(outputs):
        for file in sorted((root / "images" / folder).glob("*")):
            if has_picture_ending(file.name.encode()):
                names.append(f"{folder}/{file.name}")
                labels.append(folder)
    if not names:
        raise DataError(root / "images", "holds no picture of an object that ImageNet knows", EXPECTED)
    present = sorted(set(labels))
    pictures = limited(Bordered(root / "images", names, labels, present), job)
    digest = hash_ids([train.fingerprint, pictures.fingerprint])
    return ObjectNet("objectnet", digest, train, pictures, [outputs[folder] for folder in present])


def _outputs_by_folder(mappings: Path, num_classes: int) -> Mapping[str, frozenset[int]]:
    """Folder to label, label to names of ImageNet, name to its line, line to the number in order of wnids."""
    label_of, names_of, line_of_output = (
        _mapping(mappings / f"{name}.json")
        for name in ("folder_to_objectnet_label", "objectnet_to_imagenet_1k", "pytorch_to_imagenet_2012_id")
    )
    listing = mappings / "imagenet_to_label_2012_v2"
    if not listing.is_file():
        raise DataError(listing, "is missing", EXPECTED)
    try:
        lines = {int(line): int(output) for output, line in line_of_output.items()}
        first = min(lines)  # copies that count lines from 1 exist
        numbers = {name.strip(): lines.get(line) for line, name in enumerate(listing.read_text().splitlines(), first)}
        found = {}
        for folder, label in label_of.items():
            if label in names_of:
                found[folder] = frozenset(numbers[name.strip()] for name in names_of[label].split("; "))
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise DataError(mappings, f"its files do not agree ({error})", EXPECTED) from None
    worst = max((number if number is not None else num_classes for one in found.values() for number in one), default=-1)
    if not 0 <= worst < num_classes:
        raise DataError(mappings, f"names output {worst} of a classifier with {num_classes} classes", EXPECTED)
    return {folder: frozenset(n for n in one if n is not None) for folder, one in found.items()}


def _mapping(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(path, "is missing", EXPECTED)
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise DataError(path, f"must map names, holds {json.dumps(raw)[:40]}", EXPECTED)
    return raw
