"""Box sets as published, VOC and COCO, and a plain folder of VOC's XML."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.evaluation.layouts.drawing import SIDE, picture, save

XML = """<annotation><filename>{name}.jpg</filename><size><width>48</width><height>48</height></size>
<object><name>cat</name><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>17</ymin><xmax>{xmax}</xmax><ymax>32</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>
</annotation>"""


def voc_boxes(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2007"
    names = [f"{number:06d}" for number in range(10)]
    for number, name in enumerate(names):
        left = 8 * (number % 4)
        save(base / "JPEGImages" / f"{name}.jpg", picture(0, number, left=left)[0])
        text = XML.format(name=name, xmin=left + 1, xmax=left + 16, difficult=int(number == 3))
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


def coco(root: Path, part: str = "val2017") -> Path:
    """Squares of two colours, which are two classes whose ids have a gap; the last picture holds a crowd alone."""
    images, annotations = [], []
    for number in range(10):
        name = f"{number:012d}.jpg"
        save(root / part / name, picture(number % 2, number, left=8 * (number % 4))[0])
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        box = [8.0 * (number % 4), 16.0, 16.0, 16.0]
        marks = {"bbox": box, "area": 256.0, "iscrowd": int(number == 9)}
        annotations.append({"id": number, "image_id": number, "category_id": (7, 1)[number % 2], **marks})
    file = root / "annotations" / f"instances_{part}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 7, "name": "red"}, {"id": 1, "name": "green"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


def coco_parts(root: Path) -> Path:
    return coco(coco(root), "train2017")


def yolo(root: Path) -> Path:
    """Text files beside pictures: boxes, one outline a part, and a picture without a file, which shows nothing."""
    coco_parts(root)
    for part in ("train", "val"):
        (root / part / "labels").mkdir(parents=True)
        (root / f"{part}2017").rename(root / part / "images")
        for number in range(9):
            left = 8 * (number % 4) / SIDE
            row = f"{number % 2} {left + 8 / SIDE} 0.5 {16 / SIDE} {16 / SIDE}\n"
            if number == 4:
                row = f"0 {left} {16 / SIDE} {left + 16 / SIDE} 0.5 {left + 4 / SIDE} {32 / SIDE}\n"
            (root / part / "labels" / f"{number:012d}.txt").write_text(row)
    shutil.rmtree(root / "annotations")
    (root / "classes.txt").write_text("red\ngreen\n")
    return root


def voc_parts(root: Path) -> Path:
    """The pictures of `voc_boxes`, of which six are to fit on and four to score."""
    lists = voc_boxes(root) / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    names = (lists / "trainval.txt").read_text().split()
    (lists / "trainval.txt").write_text("\n".join(names[:6]))
    (lists / "test.txt").write_text("\n".join(names[6:]))
    return root


def voc_2012_parts(root: Path) -> Path:
    (voc_parts(root) / "VOCdevkit" / "VOC2007").rename(root / "VOCdevkit" / "VOC2012")
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main"
    (lists / "trainval.txt").rename(lists / "train.txt")
    (lists / "test.txt").rename(lists / "val.txt")
    return root
