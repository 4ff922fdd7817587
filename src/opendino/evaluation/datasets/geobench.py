"""GEO-Bench 1.0 as published: tasks in folders of HDF5 files, a data set a band, labels in pickles that are not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opendino.errors import DataError, UsageError
from opendino.evaluation.datasets.pickles import Stub, read_array, read_file, read_stubbed_pickle
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = (
    "GEO-Bench 1.0: {classification_v1.0,segmentation_v1.0}/TASK/{task_specs.pkl, band_stats.json, "
    "default_partition.json, NAME.hdf5}, or one such TASK"
)
EXPECTED = f"expected: {LAYOUT}"
PARTS = ("train", "valid", "test")
BENCHMARKS = ("classification_v1.0", "segmentation_v1.0")
RGB = (("04 - Red", "03 - Green", "02 - Blue"), ("Red", "Green", "Blue"))
"""By sensor. m-eurosat and m-brick-kiln misname later bands (geo-bench issues 28 and 29), not these."""
KINDS: Mapping[str, Literal["class", "tags", "mask"]] = {
    "Classification": "class",
    "MultiLabelClassification": "tags",
    "SegmentationClasses": "mask",
    "SemanticSegmentation": "mask",
}
MAX_ATTRIBUTE = 1 << 20
MAX_CLASSES = 255
"""Of masks: 255 stands for pixels without a class."""


@dataclass(frozen=True)
class Task:
    """One of the twelve.

    kind: what a picture's truth is; parts: names by part; bands: red, green, blue; mean, std: of each, over the task.
    """

    name: str
    folder: Path
    kind: Literal["class", "tags", "mask"]
    num_classes: int
    parts: Mapping[str, Sequence[str]]
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def path(self, name: str) -> Path:
        """File of a picture."""
        return self.folder / f"{name}.hdf5"

    def read_bands(self, name: str) -> Tensor:
        """[3, H, W]: red, green and blue minus their mean over their deviation; of a series the first date.

        Raises DataError.
        """
        path = self.path(name)
        with _opened(path) as file:
            arrays = [np.asarray(file[_first_date(file, band, path)][()], np.float32).squeeze() for band in self.bands]
        if any(one.ndim != 2 or one.shape != arrays[0].shape for one in arrays):
            raise DataError(path, f"its bands have the shapes {[one.shape for one in arrays]}", "they must agree")
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (torch.from_numpy(np.stack(arrays)) - mean) / std

    def read_truth(self, name: str) -> NDArray[np.int64]:
        """A class [], tags [C] of 0 and 1, or a mask [H, W]. Raises DataError."""
        path = self.path(name)
        with _opened(path) as file:
            stored = np.asarray(file["label"][()] if self.kind == "mask" else _pickled_label(file, path))
        truth = stored.astype(np.int64).squeeze()
        shape = {"class": truth.ndim == 0, "tags": truth.shape == (self.num_classes,), "mask": truth.ndim == 2}
        limit = 2 if self.kind == "tags" else self.num_classes
        if not shape[self.kind] or not truth.size or truth.min() < 0 or truth.max() >= limit:
            raise DataError(path, f"its label {list(truth.shape)} is none of {self.num_classes} classes")
        return truth


@dataclass(frozen=True)
class GeoBench:
    """Those of the twelve tasks that are there."""

    name: str
    split_hash: str
    tasks: Sequence[Task]
    split = "test"

    def words(self) -> str:
        """Tasks and their test pictures."""
        counts = (f"{task.name} {len(task.parts['test']):,}" for task in self.tasks)
        return f"{len(self.tasks)} of 12 tasks, test pictures: {', '.join(counts)}"


def open_geobench(job: Job) -> GeoBench:
    """Raises UsageError without h5py, DataError for a task that lacks a file."""
    _h5py()
    listings = [path for name in BENCHMARKS for path in sorted((job.data / name).glob("*/default_partition.json"))]
    alone = (job.data / "default_partition.json").is_file()
    folders = [job.data.resolve()] if alone else [path.parent for path in listings]
    if not folders:
        raise DataError(job.data, "holds no task of GEO-Bench", EXPECTED)
    tasks = [_open(folder, job) for folder in folders]
    ids = [f"{task.name}/{part}/{name}" for task in tasks for part in PARTS for name in task.parts[part]]
    return GeoBench("geobench", hash_ids(ids), tasks)


def _open(folder: Path, job: Job) -> Task:
    for name in ("band_stats.json", "task_specs.pkl"):
        if not (folder / name).is_file():
            raise DataError(folder / name, "is missing", EXPECTED)
    partition, stats = read_json(folder / "default_partition.json"), read_json(folder / "band_stats.json")
    kind, num_classes = _label_type(folder / "task_specs.pkl")
    try:
        bands = next(rgb for rgb in RGB if all(band in stats for band in rgb))
        mean, std = (tuple(float(stats[band][key]) for band in bands) for key in ("mean", "std"))
        parts = {part: evenly([str(name) for name in partition[part]], job.limit) for part in PARTS}
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        cause = f"its band_stats.json or default_partition.json lacks {error or 'red, green and blue'}"
        raise DataError(folder, cause, EXPECTED) from None
    names = [name for part in parts.values() for name in part]
    if outside := [name for name in names if Path(name).name != name]:
        raise DataError(folder, f"its partition names {outside[0]}, which lies outside")
    task = Task(folder.name, folder, kind, num_classes, parts, bands, mean, std)
    if min(std) <= 0 or not all(parts.values()):
        raise DataError(folder, "has a part without pictures, or a band without spread")
    if absent := [name for name in names if not task.path(name).is_file()]:
        raise DataError(task.path(absent[0]), f"is missing, and {len(absent) - 1} more files", EXPECTED)
    return task


def _label_type(path: Path) -> tuple[Literal["class", "tags", "mask"], int]:
    """Kind of truth and number of classes of a task; its pickle names classes of geobench, of which none is made."""
    specs = read_stubbed_pickle(read_file(path), str(path))
    try:
        label = specs.state["label_type"]
        kind, count = KINDS[label.path.rsplit(".", 1)[-1]], int(label.state["n_classes"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"does not say what the labels are ({error})", EXPECTED) from None
    if not 1 < count < MAX_CLASSES:
        raise DataError(path, f"claims {count} classes")
    return kind, count


def _pickled_label(file: Any, path: Path) -> NDArray[Any]:
    """The label among the pickled attributes, which lie in the file as the text of a bytes literal."""
    text = file.attrs["pickle"]
    try:
        if len(text) > MAX_ATTRIBUTE:
            raise ValueError("too long")
        attributes = read_stubbed_pickle(ast.literal_eval(text), str(path))
        label = attributes["label"]
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise DataError(path, f"its attributes hold no label ({type(error).__name__})", EXPECTED) from None
    if isinstance(label, Stub | int | float):
        return read_array(label, str(path))
    return np.asarray(label)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with _h5py().File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(path, f"cannot be read as a picture of GEO-Bench ({error})", EXPECTED) from None


def _first_date(file: Any, band: str, path: Path) -> str:
    """Name of a band's data set: its own, or with the first of several dates behind it."""
    if band in file:
        return band
    dated = sorted(name for name in file if name.startswith(f"{band}_"))
    if not dated:
        raise DataError(path, f"holds no band {band!r}", EXPECTED)
    return dated[0]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UsageError("GEO-Bench", "needs h5py to read its files", 'run: pip install "opendino[geo]"') from None
    return h5py
