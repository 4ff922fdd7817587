"""GEO-Bench as published: bands in HDF5, labels in the text of pickles that name classes of the package geobench."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.evaluation.layouts.drawing import SIDE, picture

COUNTS = (("train", 6), ("valid", 4), ("test", 4))
SENTINEL = ("04 - Red", "03 - Green", "02 - Blue")
AERIAL = ("Red", "Green", "Blue")


def _pickled(module: str, kind: str, **state: Any) -> Any:
    """An instance of a class that pickles by that name; the modules exist while it is written alone."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        holder = sys.modules.setdefault(".".join(parts[:end]), ModuleType(module))
    if not hasattr(holder, kind):
        setattr(holder, kind, type(kind, (), {"__module__": module}))
    instance = getattr(holder, kind)()
    instance.__dict__.update(state)
    return instance


def _task(folder: Path, kind: str, num_classes: int, bands: tuple[str, ...], label: Any, date: str = "") -> None:
    import h5py

    folder.mkdir(parents=True)
    parts: dict[str, list[str]] = {}
    values = []
    for part, count in COUNTS:
        parts[part] = [f"{part}_{number}" for number in range(count)]
        for number, name in enumerate(parts[part]):
            array, mask = picture(number % 2, 50 * len(parts) + number, left=8 * (number % 4))
            values.append(array)
            with h5py.File(folder / f"{name}.hdf5", "w") as file:
                attributes: dict[str, Any] = {"bands_order": [f"{band}{date}" for band in bands]}
                for channel, band in enumerate(bands):
                    file[f"{band}{date}"] = 40.0 * array[..., channel].astype(np.float32)
                    if date:
                        file[f"{band}_2020-01-01"] = np.zeros((SIDE, SIDE), np.float32)
                    info = _pickled("ccb.io.dataset", "Sentinel2", name=band, wavelength=0.5)
                    attributes[f"{band}{date}"] = {"band_info": info, "spatial_resolution": 10.0}
                if kind == "SegmentationClasses":
                    file["label"] = label(number, mask)
                else:
                    attributes["label"] = label(number, mask)
                file.attrs["pickle"] = str(pickle.dumps(attributes, protocol=4))
    mean, std = 40 * np.mean(values, axis=(0, 1, 2)), 40 * np.std(values, axis=(0, 1, 2))
    stats = {band: {"mean": mean[index], "std": std[index], "median": 0} for index, band in enumerate(bands)}
    (folder / "band_stats.json").write_text(json.dumps(stats))
    (folder / "default_partition.json").write_text(json.dumps(parts))
    labels = _pickled("geobench.label", kind, n_classes=num_classes, _class_names=None)
    specs = _pickled("geobench.task", "TaskSpecifications", dataset_name=folder.name, label_type=labels, n_time_steps=1)
    (folder / "task_specs.pkl").write_bytes(pickle.dumps(specs, protocol=4))


def geobench(root: Path) -> Path:
    """A task of each kind; in the first the label is a number of numpy, in the second an array."""
    classes, masks = root / "classification_v1.0", root / "segmentation_v1.0"
    before = set(sys.modules)
    _task(classes / "m-eurosat", "Classification", 10, SENTINEL, lambda number, mask: np.int64(3 + number % 2))
    _task(classes / "m-pv4ger", "Classification", 2, AERIAL, lambda number, mask: number % 2)
    _task(
        classes / "m-bigearthnet",
        "MultiLabelClassification",
        5,
        SENTINEL,
        lambda number, mask: np.array([1, number % 2, 1 - number % 2, 0, 0]),
    )
    _task(
        masks / "m-cashew-plant",
        "SegmentationClasses",
        7,
        SENTINEL,
        lambda number, mask: np.where(mask, 1 + number % 2, 4),
        date="_2019-06-04",
    )
    for module in set(sys.modules) - before:
        if module.split(".")[0] in ("ccb", "geobench"):
            del sys.modules[module]
    return root
