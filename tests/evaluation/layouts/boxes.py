"""Box sets as published, VOC and COCO, and a plain folder of VOC's XML."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.evaluation.layouts.drawing import SIDE, picture, save

XML = """<annotation><filename>{name}.jpg</filename><size><width>48</width><height>48</height></size>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>17</ymin><xmax>{xmax}</xmax><ymax>32</ymax></bndbox></object></annotation>"""


def voc_boxes(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2007"
    names = [f"{number:06d}" for number in range(10)]
    for number, name in enumerate(names):
        left = 8 * (number % 4)
        save(base / "JPEGImages" / f"{name}.jpg", picture(0, number, left=left)[0])
        text = XML.format(name=name, xmin=left + 1, xmax=left + 16)
        if number == 9:
            text = "<annotation></annotation>"
        file = base / "Annotations" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    listing = base / "ImageSets" / "Main" / "trainval.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(names))
    return root


def plain_boxes(root: Path) -> Path:
    """The same files as people have them: pictures beside their XML, in parts; one picture without."""
    voc = voc_boxes(root / "as published") / "VOCdevkit" / "VOC2007"
    for part, last in (("train", "0"), ("val", "1")):
        for folder, source, suffix in (("images", "JPEGImages", "jpg"), ("annotations", "Annotations", "xml")):
            (root / part / folder).mkdir(parents=True)
            for number in range(int(last), 10, 2):
                (voc / source / f"{number:06d}.{suffix}").rename(root / part / folder / f"{number:06d}.{suffix}")
    shutil.rmtree(root / "as published")
    (root / "val" / "annotations" / "000001.xml").unlink()
    return root


def coco_20k(root: Path) -> Path:
    """Pictures of train2014, of which a list names eight."""
    coco(root)
    (root / "val2017").rename(root / "train2014")
    (root / "annotations" / "instances_val2017.json").rename(root / "annotations" / "instances_train2014.json")
    names = [f"train2014/{path.name}" for path in sorted((root / "train2014").iterdir())[:8]]
    (root / "coco_20k_filenames.txt").write_text("\n".join(names) + "\n")
    return root


def coco(root: Path) -> Path:
    images, annotations = [], []
    for number in range(10):
        name = f"{number:012d}.jpg"
        save(root / "val2017" / name, picture(0, number, left=8 * (number % 4))[0])
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        box = [8.0 * (number % 4), 16.0, 16.0, 16.0]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": int(number == 9)}
        )
    file = root / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True)
    categories = [{"id": 1, "name": "square"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root
