"""Other ImageNets beside the original: V2, R, A, Sketch, ReaL and C, each as it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opendino.data.sources import Source, open_source
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.units import hash_ids
from opendino.evaluation.metrics.robustness import ALEXNET_ERROR
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "train/WNID/, beside any of: val/WNID/ with real.json, imagenetv2-matched-frequency-format-val/0..999/, "
    "imagenet-r/WNID/, imagenet-a/WNID/, sketch/WNID/"
)
LAYOUT_C = "train/WNID/ beside imagenet-c/CORRUPTION/1..5/WNID/*.JPEG, all 15 corruptions"
V2 = "imagenetv2-matched-frequency-format-val"
SEVERITIES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Variant:
    """pictures; allowed: for each the outputs that are right, () for one that is not scored; columns: the outputs that
    are looked at, None for all.
    """

    pictures: Source
    allowed: Sequence[tuple[int, ...]]
    columns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Variants:
    """train: where the head is fitted; sets by name."""

    name: str
    split_hash: str
    train: Source
    sets: Mapping[str, Variant]
    split = "test"

    @property
    def class_names(self) -> Sequence[str]:
        """Of the classifier."""
        return self.train.classes

    def words(self) -> str:
        """Pictures of each set."""
        counts = (f"{name} {len(one.pictures):,}" for name, one in self.sets.items())
        return f"{len(self.train):,} train pictures, {len(self.train.classes)} classes; {', '.join(counts)}"


@dataclass(frozen=True)
class Corrupted:
    """train as above; pictures: one source a corruption and severity, all of the same pictures."""

    name: str
    split_hash: str
    train: Source
    pictures: Mapping[tuple[str, str], Source]
    split = "val"

    @property
    def class_names(self) -> Sequence[str]:
        """Of the classifier."""
        return self.train.classes

    def words(self) -> str:
        """Pictures of one corruption and severity."""
        return (
            f"{len(self.train):,} train pictures, {len(next(iter(self.pictures.values()))):,} x 15 x 5 corrupted ones"
        )


def open_variants(job: Job) -> Variants:
    """Every variant that lies beside train/. Raises DataError when there is none."""
    train = open_train(job, LAYOUT)
    numbers = {name: number for number, name in enumerate(train.classes)}
    sets: dict[str, Variant] = {}
    if (job.data / V2).is_dir():
        source = limited(open_source(job.data / V2), job)
        # The folder's NAME is the class: sorted as text, 10 comes before 2.
        sets["v2"] = Variant(source, [(int(name),) for name in _folders(source)])
    for name, folder, narrow in (("r", "imagenet-r", True), ("a", "imagenet-a", True), ("sketch", "sketch", False)):
        if (job.data / folder).is_dir():
            source = limited(open_source(job.data / folder), job)
            if unknown := set(source.classes) - numbers.keys():
                raise DataError(job.data / folder, f"holds classes that train lacks, such as {min(unknown)}")
            columns = tuple(sorted(numbers[wnid] for wnid in source.classes)) if narrow else None
            sets[name] = Variant(source, [(numbers[wnid],) for wnid in _folders(source)], columns)
    if (job.data / "real.json").is_file():
        sets["real"] = _real(job)
    if not sets:
        raise DataError(job.data, "holds no variant of ImageNet", f"expected: {LAYOUT}")
    name = "imagenet" if len(train.classes) == 1000 else job.data.resolve().name
    digest = hash_ids([train.fingerprint, *(one.pictures.fingerprint for one in sets.values())])
    return Variants(name, digest, train, sets)


def open_corrupted(job: Job) -> Corrupted:
    """All 75 parts of ImageNet-C. Raises DataError when one is missing or holds other pictures."""
    train = open_train(job, LAYOUT_C)
    root = job.data / "imagenet-c"
    pictures = {}
    for corruption in ALEXNET_ERROR:
        for severity in SEVERITIES:
            if not (root / corruption / severity).is_dir():
                raise DataError(root / corruption / severity, "is missing", f"expected: {LAYOUT_C}")
            pictures[corruption, severity] = limited(open_source(root / corruption / severity), job)
    first = next(iter(pictures.values()))
    names = [first.id(index) for index in range(len(first))]
    for (corruption, severity), source in pictures.items():
        if [source.id(index) for index in range(len(source))] != names:
            raise DataError(root / corruption / severity, "does not hold the same pictures as the other parts")
        if unknown := {name.split("/")[0] for name in names} - set(train.classes):
            raise DataError(root, f"holds classes that train lacks, such as {min(unknown)}")
    return Corrupted("imagenet-c", hash_ids([train.fingerprint, *names]), train, pictures)


def open_train(job: Job, layout: str) -> Source:
    """ImageNet's training pictures, on which the classifier is fitted. Raises DataError."""
    if not (job.data / "train").is_dir():
        raise DataError(job.data, "has no train/ to fit the classifier on", f"expected: {layout}")
    train = limited(open_source(job.data / "train"), job)
    if not train.classes:
        raise DataError(job.data / "train", "has no class folders", f"expected: {layout}")
    return train


def _folders(source: Source) -> list[str]:
    """First folder of every picture."""
    return [source.id(index).split("/")[0] for index in range(len(source))]


def _real(job: Job) -> Variant:
    """Lists of right classes in the order of the val pictures' names, whatever folders they lie in."""
    lists = read_json(job.data / "real.json")
    whole = open_source(job.data / "val")
    order = sorted(range(len(whole)), key=lambda index: Path(whole.id(index)).name)
    if len(order) != len(lists):
        raise DataError(job.data / "real.json", f"has {len(lists)} lists for {len(order)} val pictures")
    allowed = {whole.id(index): tuple(labels) for index, labels in zip(order, lists, strict=True)}
    source = limited(whole, job)
    return Variant(source, [allowed[source.id(index)] for index in range(len(source))])
