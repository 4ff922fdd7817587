"""The twelve small classification sets of the paper's table 22 (Fine-S), each in its published files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.data.listing import has_picture_ending
from opendino.data.sources import Source
from opendino.errors import DataError, UsageError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.listed import ArraySource, ListSource
from opendino.evaluation.datasets.pickles import read_array, read_file, read_stubbed_pickle
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job

LAYOUT = (
    "any of food-101/, cifar-10-batches-py/, cifar-100-python/, SUN397/, stanford_cars/, fgvc-aircraft-2013b/, "
    "VOCdevkit/VOC2007/, dtd/, oxford-iiit-pet/, caltech-101/, flowers-102/, CUB_200_2011/, with their published files"
)
EXPECTED = f"expected: {LAYOUT}"
CIFAR_BYTES = 512 << 20
CALTECH_TRAIN = 30
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class FineSet:
    """train, test: with classes in the same numbers.

    tags: for sets with several labels a picture, of both parts [n, C]: 1 is there, 0 is not, -1 is not scored.
    """

    train: Source
    test: Source
    tags: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None


@dataclass(frozen=True)
class FineGrained:
    """The sets that were found, by name."""

    name: str
    split_hash: str
    sets: Mapping[str, FineSet]
    split = "test"

    def words(self) -> str:
        """Pictures of each set."""
        counts = (f"{name} {len(one.train):,} + {len(one.test):,}" for name, one in self.sets.items())
        return f"train and test pictures: {', '.join(counts)}"


Listed = Sequence[tuple[str, str]]
"""Pictures below the set's root, and their classes."""


def open_finegrained(job: Job) -> FineGrained:
    """Every set whose folder lies in the root, or the one that the root itself is. Raises DataError when none does."""
    found = {}
    for name, folder, marker, read in READERS:
        for root in (job.data / folder, job.data / Path(folder).name, job.data):
            if (root / marker).exists():
                found[name] = read(root, job)
                break
    if not found:
        raise DataError(job.data, "holds none of the twelve sets", EXPECTED)
    ids = [part.fingerprint for one in found.values() for part in (one.train, one.test)]
    return FineGrained("fine-s", hash_ids(ids), found)


def _build(root: Path, train: Listed, test: Listed, job: Job, *, classes: Sequence[str] | None = None) -> FineSet:
    names = sorted({label for _, label in train}) if classes is None else classes
    if unknown := sorted({label for _, label in test} - set(names)):
        raise DataError(root, f"its test part has a class that train lacks: {unknown[0]}", EXPECTED)
    parts: list[Source] = []
    for part in (train, test):
        if not part:
            raise DataError(root, "one of its two lists is empty", EXPECTED)
        source = ListSource(root, [name for name, _ in part], [label for _, label in part], names)
        source.require_files(EXPECTED)
        parts.append(limited(source, job))
    return FineSet(parts[0], parts[1])


def _either(first: Path, second: Path) -> Path:
    return second if second.is_file() else first


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(path, "is missing", EXPECTED)
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _food(root: Path, job: Job) -> FineSet:
    def listed(part: str) -> Listed:
        return [(f"images/{line}.jpg", line.split("/")[0]) for line in _lines(root / "meta" / f"{part}.txt")]

    return _build(root, listed("train"), listed("test"), job)


def _cifar10(root: Path, job: Job) -> FineSet:
    return _cifar(root, [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"], b"labels", job)


def _cifar100(root: Path, job: Job) -> FineSet:
    return _cifar(root, ["train"], ["test"], b"fine_labels", job)


def _cifar(root: Path, train: Sequence[str], test: Sequence[str], key: bytes, job: Job) -> FineSet:
    """Arrays in pickles of Python 2: the pictures are built from the bytes, nothing is unpickled into objects."""

    def part(files: Sequence[str]) -> tuple[list[NDArray[np.uint8]], list[str], list[int]]:
        pictures: list[NDArray[np.uint8]] = []
        names: list[str] = []
        labels: list[int] = []
        for file in files:
            path = root / file
            if not path.is_file():
                raise DataError(path, "is missing", EXPECTED)
            raw = read_stubbed_pickle(read_file(path, CIFAR_BYTES), str(path), encoding="bytes")
            try:
                rows = read_array(raw[b"data"], str(path)).reshape(-1, 3, 32, 32)
                if rows.dtype != np.uint8:
                    raise ValueError(f"its pictures are {rows.dtype}")
                labels += [int(label) for label in raw[key]]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(path, f"is no batch of CIFAR ({error})", EXPECTED) from None
            pictures.append(rows.transpose(0, 2, 3, 1))
            names += [f"{file}/{number}" for number in range(len(rows))]
        return pictures, names, labels

    sources: list[Source] = []
    parts = [part(train), part(test)]
    classes = [str(number) for number in range(max(max(labels) for _, _, labels in parts) + 1)]
    for pictures, names, labels in parts:
        if len(names) != len(labels):
            raise DataError(root, f"holds {len(names)} pictures and {len(labels)} labels", EXPECTED)
        sources.append(limited(ArraySource(np.concatenate(pictures), names, labels, classes), job))
    return FineSet(sources[0], sources[1])


def _sun397(root: Path, job: Job) -> FineSet:
    """Partition 1 of ten."""

    def listed(part: str) -> Listed:
        names = [line.removeprefix("/") for line in _lines(_either(root / part, root / "Partitions" / part))]
        return [(name, "/".join(name.split("/")[1:-1])) for name in names]

    return _build(root, listed("Training_01.txt"), listed("Testing_01.txt"), job)


def _cars(root: Path, job: Job) -> FineSet:
    """The test labels are a file of their own, beside the development kit or in it."""
    test_labels = _either(root / "cars_test_annos_withlabels.mat", root / "devkit" / "cars_test_annos_withlabels.mat")

    def listed(file: Path, folder: str) -> Listed:
        rows = np.atleast_1d(_matlab(file)["annotations"])
        return [(f"{folder}/{row['fname']}", f"{int(row['class']):03d}") for row in rows]

    train = listed(root / "devkit" / "cars_train_annos.mat", "cars_train")
    return _build(root, train, listed(test_labels, "cars_test"), job)


def _aircraft(root: Path, job: Job) -> FineSet:
    def listed(part: str) -> Listed:
        rows = (line.split(" ", 1) for line in _lines(root / "data" / f"images_variant_{part}.txt"))
        return [(f"data/images/{name}.jpg", variant) for name, variant in rows]

    return _build(root, listed("trainval"), listed("test"), job)


def _voc2007(root: Path, job: Job) -> FineSet:
    """A picture may hold several classes; 0 marks a class whose objects are all difficult, which is not scored."""
    sources, tags = [], []
    for part in ("trainval", "test"):
        columns = {
            name: dict(line.split() for line in _lines(root / "ImageSets" / "Main" / f"{name}_{part}.txt"))
            for name in VOC_CLASSES
        }
        names = evenly(_lines(root / "ImageSets" / "Main" / f"{part}.txt"), job.limit)
        source = ListSource(root, [f"JPEGImages/{name}.jpg" for name in names])
        source.require_files(EXPECTED)
        try:
            told = {"1": 1, "-1": 0, "0": -1}
            tags.append(np.array([[told[columns[one][name]] for one in VOC_CLASSES] for name in names], np.int64))
        except KeyError as error:
            raise DataError(root, f"its lists of {part} do not agree on {error}", EXPECTED) from None
        sources.append(source)
    return FineSet(sources[0], sources[1], (tags[0], tags[1]))


def _dtd(root: Path, job: Job) -> FineSet:
    """Split 1 of ten; train and val together are fitted on."""

    def listed(*parts: str) -> Listed:
        names = [line for part in parts for line in _lines(root / "labels" / f"{part}1.txt")]
        return [(f"images/{name}", name.split("/")[0]) for name in names]

    return _build(root, listed("train", "val"), listed("test"), job)


def _pets(root: Path, job: Job) -> FineSet:
    def listed(part: str) -> Listed:
        rows = (line.split()[:2] for line in _lines(root / "annotations" / f"{part}.txt"))
        return [(f"images/{name}.jpg", f"{int(number):02d}") for name, number in rows]

    return _build(root, listed("trainval"), listed("test"), job)


def _caltech101(root: Path, job: Job) -> FineSet:
    """30 pictures a class are drawn to fit on, the others are scored; the background is no class."""
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    generator = np.random.default_rng(job.seed)
    base = root / "101_ObjectCategories"
    for folder in sorted(path for path in base.iterdir() if path.is_dir() and path.name != "BACKGROUND_Google"):
        names = sorted(path.name for path in folder.iterdir() if has_picture_ending(path.name.encode()))
        drawn = set(generator.permutation(len(names))[: min(CALTECH_TRAIN, len(names) - 1)].tolist())
        for index, name in enumerate(names):
            row = (f"101_ObjectCategories/{folder.name}/{name}", folder.name)
            (train if index in drawn else test).append(row)
    return _build(root, train, test, job)


def _flowers(root: Path, job: Job) -> FineSet:
    """The sets that are named train and valid are fitted on; the larger one is the test."""
    labels = np.atleast_1d(_matlab(root / "imagelabels.mat")["labels"])
    sets = _matlab(root / "setid.mat")

    def listed(*parts: str) -> Listed:
        numbers = [int(number) for part in parts for number in np.atleast_1d(sets[part])]
        return [(f"jpg/image_{number:05d}.jpg", f"{int(labels[number - 1]):03d}") for number in numbers]

    return _build(root, listed("trnid", "valid"), listed("tstid"), job)


def _cub(root: Path, job: Job) -> FineSet:
    def column(file: str) -> dict[str, str]:
        return dict(line.split() for line in _lines(root / file))

    names, labels, splits = (column(f"{file}.txt") for file in ("images", "image_class_labels", "train_test_split"))

    def listed(flag: str) -> Listed:
        return [(f"images/{names[key]}", f"{int(labels[key]):03d}") for key in names if splits[key] == flag]

    return _build(root, listed("1"), listed("0"), job)


def _matlab(path: Path) -> Mapping[str, Any]:
    """Variables of a MATLAB file; scipy's reader makes arrays and runs nothing."""
    if not path.is_file():
        raise DataError(path, "is missing", EXPECTED)
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UsageError(path, "needs scipy", 'run: pip install "opendino[eval]"') from None
    try:
        found: Mapping[str, Any] = loadmat(str(path), squeeze_me=True)
    except (ValueError, TypeError, NotImplementedError, OSError, KeyError, IndexError) as error:
        raise DataError(path, f"cannot be read as a MATLAB file ({type(error).__name__})") from None
    return found


READERS: tuple[tuple[str, str, str, Callable[[Path, Job], FineSet]], ...] = (
    ("food101", "food-101", "meta/train.txt", _food),
    ("cifar10", "cifar-10-batches-py", "data_batch_1", _cifar10),
    ("cifar100", "cifar-100-python", "meta", _cifar100),
    ("sun397", "SUN397", "ClassName.txt", _sun397),
    ("cars", "stanford_cars", "devkit/cars_train_annos.mat", _cars),
    ("aircraft", "fgvc-aircraft-2013b", "data/images_variant_trainval.txt", _aircraft),
    ("voc2007", "VOCdevkit/VOC2007", "ImageSets/Main/trainval.txt", _voc2007),
    ("dtd", "dtd", "labels/train1.txt", _dtd),
    ("pets", "oxford-iiit-pet", "annotations/trainval.txt", _pets),
    ("caltech101", "caltech-101", "101_ObjectCategories", _caltech101),
    ("flowers", "flowers-102", "setid.mat", _flowers),
    ("cub", "CUB_200_2011", "train_test_split.txt", _cub),
)
"""Name, folder, a file or folder that tells the set, reader."""
