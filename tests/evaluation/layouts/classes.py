"""Class sets as published: ImageNet, its variants and its corruptions."""

from __future__ import annotations

import json
from pathlib import Path

from opendino.evaluation.metrics.robustness import ALEXNET_ERROR
from tests.evaluation.layouts.drawing import picture, save


def imagenet(root: Path) -> Path:
    for part, count, base in (("train", 4, 0), ("val", 2, 100)):
        for kind, wnid in enumerate(("n01440764", "n01443537")):
            for number in range(count):
                save(root / part / wnid / f"{wnid}_{number}.JPEG", picture(kind, base + 10 * kind + number)[0])
    return root


def inaturalist(root: Path) -> Path:
    """Categories 7 and 12; pictures of both parts lie in one tree, by kingdom and category."""
    for part, count, base in (("train", 4, 0), ("val", 2, 100)):
        images, annotations = [], []
        for kind, category in enumerate((12, 7)):
            for number in range(count):
                identity = base + 10 * kind + number
                name = f"train_val2018/Plantae/{category}/{identity:032x}.jpg"
                save(root / name, picture(kind, identity)[0])
                images.append({"id": identity, "file_name": name})
                annotations.append({"id": identity, "image_id": identity, "category_id": category})
        listed = {"images": images, "annotations": annotations, "categories": [{"id": 12}, {"id": 7}]}
        (root / f"{part}2018.json").write_text(json.dumps(listed))
    return root


def class_folders(root: Path) -> Path:
    return imagenet(root) / "val"


WNIDS = [f"n{1440764 + 100 * number:08d}" for number in range(11)]


def imagenet_variants(root: Path) -> Path:
    """Eleven classes, so that a sort of V2's folders as text ("10" before "2") would give wrong numbers."""
    for number, wnid in enumerate(WNIDS):
        for copy in range(2):
            save(root / "train" / wnid / f"{wnid}_{copy}.JPEG", picture(number, copy)[0])
        save(root / "imagenetv2-matched-frequency-format-val" / str(number) / "a.jpeg", picture(number, 5)[0])
        save(root / "sketch" / wnid / "sketch_0.JPEG", picture(number, 6)[0])
        save(root / "val" / wnid / f"ILSVRC2012_val_{11 - number:08d}.JPEG", picture(number, 7)[0])
        if number % 2:
            save(root / "imagenet-r" / wnid / "art_0.jpg", picture(number, 8)[0])
            save(root / "imagenet-a" / wnid / "0.jpg", picture(number, 9)[0])
    # In the order of file names: the last class comes first.
    (root / "real.json").write_text(json.dumps([[10 - index] if index else [] for index in range(11)]))
    return root


def imagenet_c(root: Path) -> Path:
    imagenet(root)
    for corruption in ALEXNET_ERROR:
        for severity in range(1, 6):
            for kind, wnid in enumerate(("n01440764", "n01443537")):
                folder = root / "imagenet-c" / corruption / str(severity) / wnid
                save(folder / "ILSVRC2012_val_00000001.JPEG", picture(kind, severity)[0])
    return root


def objectnet(root: Path) -> Path:
    """Two objects of ImageNet, one of them under two of its names, and one that ImageNet does not know."""
    names = {number: f"thing {number}, thing" for number in range(11)}
    for number, wnid in enumerate(WNIDS):
        for copy in range(2):
            save(root / "train" / wnid / f"{wnid}_{copy}.JPEG", picture(number, copy)[0])
    base = root / "objectnet-1.0"
    for folder, kind in (("alarm_clock", 3), ("chair", 5), ("air_freshener", 1)):
        for copy in range(4):
            array = picture(kind, copy + 20)[0]
            array[[0, 1, -2, -1]] = array[:, [0, 1, -2, -1]] = (255, 0, 0)
            save(base / "images" / folder / f"{copy}.png", array)
    mappings = base / "mappings"
    mappings.mkdir()
    labels = {"alarm_clock": "Alarm clock", "chair": "Chair", "air_freshener": "Air freshener"}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    known = {"Alarm clock": f"{names[3]}; {names[9]}", "Chair": names[5]}
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(known))
    # Lines of the list of names lie in another order than wnids.
    lines = {number: (7 * number) % 11 for number in names}
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(lines))
    listed = sorted(names, key=lambda number: lines[number])
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(names[number] for number in listed) + "\n")
    return root
