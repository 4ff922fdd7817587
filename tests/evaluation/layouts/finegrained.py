"""The twelve small sets of Fine-S as published, two classes and about ten pictures each."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from scipy.io import savemat

from opendino.evaluation.datasets.finegrained import VOC_CLASSES
from tests.evaluation.layouts.drawing import picture, save

COUNTS = {"train": 4, "test": 2}


def rows(classes: tuple[str, str]) -> list[tuple[str, str, int, np.ndarray]]:
    """(part, class, running number from 1, picture)."""
    found = []
    for part, count in COUNTS.items():
        for kind, name in enumerate(classes):
            for seed in range(count):
                drawn = picture(kind, 10 * kind + seed + 100 * (part == "test"))[0]
                found.append((part, name, len(found) + 1, drawn))
    return found


def listing(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def food101(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for part, name, number, drawn in rows(("apple_pie", "waffles")):
        save(root / "food-101" / "images" / name / f"{number}.jpg", drawn)
        lists[part].append(f"{name}/{number}")
    listing(root / "food-101" / "meta" / "classes.txt", ["apple_pie", "waffles"])
    for part, lines in lists.items():
        listing(root / "food-101" / "meta" / f"{part}.txt", lines)
        json_lines = {name: [line for line in lines if line.startswith(name)] for name in ("apple_pie", "waffles")}
        (root / "food-101" / "meta" / f"{part}.json").write_text(str(json_lines).replace("'", '"'))


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the texts of Python 2, in which CIFAR was pickled."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_text


def _dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Python2Pickler(file, protocol=2).dump(value)


def _batch(path: Path, drawn: list[np.ndarray], labels: list[int], key: bytes) -> None:
    small = [np.asarray(Image.fromarray(one).resize((32, 32))) for one in drawn]
    data = np.stack(small).transpose(0, 3, 1, 2).reshape(len(small), -1)
    _dump(path, {b"data": data, key: labels, b"filenames": [b"x.png"] * len(labels)})


def cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for number in range(1, 6):
        _batch(folder / f"data_batch_{number}", [picture(kind, number)[0] for kind in (0, 1)], [0, 1], b"labels")
    _batch(folder / "test_batch", [picture(kind, 70)[0] for kind in (0, 1, 1)], [0, 1, 1], b"labels")


def cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    for part, count in (("train", 4), ("test", 2)):
        drawn = [picture(kind, seed + 50 * (part == "test"))[0] for kind in (0, 1) for seed in range(count)]
        _batch(folder / part, drawn, [0] * count + [1] * count, b"fine_labels")
    _dump(folder / "meta", {b"fine_label_names": [b"apple", b"boy"]})


def sun397(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for part, name, number, drawn in rows(("/a/abbey", "/c/church/indoor")):
        line = f"{name}/sun_{number:032x}.jpg"
        save(root / "SUN397" / line[1:], drawn)
        lists[part].append(line)
    listing(root / "SUN397" / "ClassName.txt", ["/a/abbey", "/c/church/indoor"])
    listing(root / "SUN397" / "Training_01.txt", lists["train"])
    listing(root / "SUN397" / "Testing_01.txt", lists["test"])


def cars(root: Path) -> None:
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    tables: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    for part, name, number, drawn in rows(("1", "2")):
        save(root / "stanford_cars" / f"cars_{part}" / f"{number:05d}.jpg", drawn)
        tables[part].append((1, int(name), f"{number:05d}.jpg"))
    (root / "stanford_cars" / "devkit").mkdir()
    files = ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")
    for part, file in zip(("train", "test"), files, strict=True):
        savemat(root / "stanford_cars" / file, {"annotations": np.array(tables[part], dtype=kind)[None]})
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)
    savemat(root / "stanford_cars" / "devkit" / "cars_meta.mat", {"class_names": names})


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for part, name, number, drawn in rows(("707-320", "Falcon 2000")):
        save(data / "images" / f"{number:07d}.jpg", drawn)
        lists[part].append(f"{number:07d} {name}")
    listing(data / "variants.txt", ["707-320", "Falcon 2000"])
    listing(data / "images_variant_trainval.txt", lists["train"])
    listing(data / "images_variant_test.txt", lists["test"])


def voc2007(root: Path) -> None:
    """Cats are red, dogs green; dogs of one picture are difficult."""
    base = root / "VOCdevkit" / "VOC2007"
    for part, listed in (("train", "trainval"), ("test", "test")):
        mine = [row for row in rows(("cat", "dog")) if row[0] == part]
        for _, _, number, drawn in mine:
            save(base / "JPEGImages" / f"{number:06d}.jpg", drawn)
        listing(base / "ImageSets" / "Main" / f"{listed}.txt", [f"{number:06d}" for _, _, number, _ in mine])
        for one in VOC_CLASSES:
            lines = [f"{number:06d} {' 1' if name == one else '-1'}" for _, name, number, _ in mine]
            if one == "dog":
                lines[0] = lines[0].replace("-1", " 0")
            listing(base / "ImageSets" / "Main" / f"{one}_{listed}.txt", lines)


def dtd(root: Path) -> None:
    lists: dict[str, list[str]] = {"train1": [], "val1": [], "test1": []}
    for part, name, number, drawn in rows(("banded", "dotted")):
        save(root / "dtd" / "images" / name / f"{name}_{number:04d}.jpg", drawn)
        key = "test1" if part == "test" else ("train1", "val1")[number % 2]
        lists[key].append(f"{name}/{name}_{number:04d}.jpg")
    for part, lines in lists.items():
        listing(root / "dtd" / "labels" / f"{part}.txt", lines)


def pets(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for part, name, number, drawn in rows(("Abyssinian", "american_bulldog")):
        save(root / "oxford-iiit-pet" / "images" / f"{name}_{number}.jpg", drawn)
        species = 1 + (name[0] == "a")
        lists[part].append(f"{name}_{number} {species} {species} 1")
    listing(root / "oxford-iiit-pet" / "annotations" / "trainval.txt", lists["train"])
    listing(root / "oxford-iiit-pet" / "annotations" / "test.txt", lists["test"])


def caltech101(root: Path) -> None:
    base = root / "caltech-101" / "101_ObjectCategories"
    for kind, name in enumerate(("accordion", "BACKGROUND_Google", "yin_yang")):
        for number in range(32 if kind == 0 else 3):
            save(base / name / f"image_{number + 1:04d}.jpg", picture(kind, 10 * kind + number)[0])


def flowers(root: Path) -> None:
    base = root / "flowers-102"
    ids: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    labels = []
    for part, name, number, drawn in rows(("1", "2")):
        save(base / "jpg" / f"image_{number:05d}.jpg", drawn)
        ids["tstid" if part == "test" else ("trnid", "valid")[number % 2]].append(number)
        labels.append(int(name))
    savemat(base / "setid.mat", {key: np.array([numbers]) for key, numbers in ids.items()})
    savemat(base / "imagelabels.mat", {"labels": np.array([labels])})


def cub(root: Path) -> None:
    base = root / "CUB_200_2011"
    tables: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for part, name, number, drawn in rows(("001.Black_footed_Albatross", "002.Laysan_Albatross")):
        save(base / "images" / name / f"{name[4:]}_{number:04d}.jpg", drawn)
        tables["images"].append(f"{number} {name}/{name[4:]}_{number:04d}.jpg")
        tables["image_class_labels"].append(f"{number} {int(name[:3])}")
        tables["train_test_split"].append(f"{number} {int(part == 'train')}")
    for file, lines in tables.items():
        listing(base / f"{file}.txt", lines)


SETS = (food101, cifar10, cifar100, sun397, cars, aircraft, voc2007, dtd, pets, caltech101, flowers, cub)


def twelve_sets(root: Path) -> Path:
    for build in SETS:
        build(root)
    return root
