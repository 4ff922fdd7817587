"""Classification sets: `train` and `val` as class folders or tars of them (anyone's), and iNaturalist 2018's lists."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from opendino.data.sources import Source, hold_out, open_source, why_unscored
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.listed import ListSource
from opendino.evaluation.datasets.units import require_one_set
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "train/CLASS/*.jpg and val/CLASS/*.jpg, or train.tar and val.tar that hold class folders; "
    "CLASS/*.jpg alone, of which a fixed fifth is held out; "
    "iNaturalist 2018: {train,val}2018.json beside train_val2018/"
)
INATURALIST = "{}2018.json"


@dataclass(frozen=True)
class Classes:
    """train, val: sources with classes; val_numbers: of each val class its number among those of train; split: val,
    test, or a held-out fifth.
    """

    name: str
    split_hash: str
    train: Source
    val: Source
    val_numbers: Tensor
    split: str = "val"

    @property
    def class_names(self) -> Sequence[str]:
        """In the order of their numbers; those that val alone has come last."""
        return list(dict.fromkeys([*self.train.classes, *self.val.classes]))

    @property
    def num_classes(self) -> int:
        """Classes of both parts together."""
        return max(len(self.train.classes), int(self.val_numbers.max()) + 1)

    def words(self) -> str:
        """Pictures and classes of both parts."""
        return f"{len(self.train):,} train and {len(self.val):,} val pictures, {self.num_classes} classes"


def open_classes(job: Job) -> Classes:
    """Find both parts. Raises DataError naming what is missing and the layout expected."""
    require_one_set(job.data)
    if (whole := _class_folders(job.data)) is not None:
        # The same fifth as while training, so that its k-NN is this one.
        train, val = hold_out(whole)
        split = "held-out fifth"
    else:
        (train, _), (val, split) = (_part(job.data, names) for names in (("train",), ("val", "test")))
    train, val = limited(train, job), limited(val, job)
    numbers = {name: number for number, name in enumerate(train.classes)}
    shared = numbers.keys() & set(val.classes)
    if not shared:
        cause = "its train and val parts share no class name" if train.classes and val.classes else "has no classes"
        raise DataError(job.data, cause, f"expected: {LAYOUT}")
    # A class that train lacks gets a number of its own: its pictures count as wrong.
    val_numbers = torch.tensor([numbers.setdefault(name, len(numbers)) for name in val.classes])
    digest = hashlib.sha256(f"{train.fingerprint} {val.fingerprint}".encode()).hexdigest()
    name = "inaturalist2018" if (job.data / INATURALIST.format("val")).is_file() else job.data.resolve().name
    wnids = len(train.classes) == 1000 and all(name.startswith("n") and name[1:].isdigit() for name in train.classes)
    return Classes("imagenet" if wnids else name, digest, train, val, val_numbers, split)


def _class_folders(root: Path) -> Source | None:
    """The pictures of a folder of class folders, None for anything else: parts, lists, videos with masks."""
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    if len(folders) < 2 or any((path / "masks").is_dir() for path in folders):
        return None
    try:
        source = open_source(root)
    except DataError:
        return None
    return None if why_unscored(source) else source


def _part(root: Path, names: tuple[str, ...]) -> tuple[Source, str]:
    for name in names:
        if (listing := root / INATURALIST.format(name)).is_file():
            return _listed(root, listing), name
        for path in (root / name, root / f"{name}.tar"):
            if path.exists():
                return open_source(path), name
    raise DataError(root, f"has no {' or '.join(names)}", f"expected: {LAYOUT}")


def _listed(root: Path, listing: Path) -> ListSource:
    """Pictures and their categories from a file in COCO's form; classes in order of the categories' numbers."""
    raw = read_json(listing)
    try:
        category = {int(one["image_id"]): int(one["category_id"]) for one in raw["annotations"]}
        names = [str(one["file_name"]) for one in raw["images"]]
        labels = [str(category[int(one["id"])]) for one in raw["images"]]
        classes = [str(number) for number in sorted(int(one["id"]) for one in raw["categories"])]
        source = ListSource(root, names, labels, classes)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(listing, f"is no list of iNaturalist ({type(error).__name__}: {error})") from None
    source.require_files(f"expected: {LAYOUT}")
    return source
