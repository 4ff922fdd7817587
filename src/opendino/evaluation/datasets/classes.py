"""Classification sets: `train` and `val` as class folders or tars of them (ImageNet's layout, and anyone's)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from opendino.data.sources import Source, open_source
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.protocol import Job

LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg, or train.tar and val.tar that hold class folders"


@dataclass(frozen=True)
class Classes:
    """train, val: sources with classes; val_numbers: of each val class its number among those of train; split: val or
    test.
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
    wnids = len(train.classes) == 1000 and all(name.startswith("n") and name[1:].isdigit() for name in train.classes)
    return Classes("imagenet" if wnids else job.data.resolve().name, digest, train, val, val_numbers, split)


def _part(root: Path, names: tuple[str, ...]) -> tuple[Source, str]:
    for name in names:
        for path in (root / name, root / f"{name}.tar"):
            if path.exists():
                return open_source(path), name
    raise DataError(root, f"has no {' or '.join(names)}", f"expected: {LAYOUT}")
