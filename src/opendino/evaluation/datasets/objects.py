"""Objects that were marked in pictures: VOC's XML, COCO's JSON and the text files of YOLO."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.errors import DataError
from opendino.files import read_json

MAX_XML_BYTES = 1 << 20


@dataclass(frozen=True)
class Objects:
    """Boxes [n, 4] xyxy in pixels, exclusive ends; names of their n classes; areas [n] in square pixels, of outlines
    where they are known; crowd [n]: many in one box; difficult [n]: VOC's mark; relative: boxes and areas are shares of
    the picture's sides and area.
    """

    boxes: NDArray[np.float64]
    names: tuple[str, ...]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    relative: bool = False


def read_voc(path: Path) -> Objects:
    """Whole objects, without VOC's boxes of their parts; it counts pixels from 1, so xmin and ymin minus 1.

    Raises:
        DataError: missing, too large, XML that declares entities, which no annotation needs, or a box without area.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_XML_BYTES else b"<!ENTITY"
        if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
            raise DataError(path, "is no plain annotation", "XML with entities or over 1 MiB is not read")
        found = [one for one in ElementTree.fromstring(data).iter("object") if one.find("bndbox") is not None]
        sides = [
            [float(one.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")] for one in found
        ]
        difficult = [float(one.findtext("difficult") or 0) > 0 for one in found]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(path, f"cannot be read as an annotation ({type(error).__name__})") from None
    boxes = np.array(sides, np.float64).reshape(-1, 4) - [1, 1, 0, 0]
    _require_area(path, boxes)
    names = tuple((one.findtext("name") or "").strip() for one in found)
    return Objects(boxes, names, _areas(boxes), np.zeros(len(boxes), bool), np.array(difficult, bool))


def read_coco(path: Path) -> tuple[list[str], list[tuple[str, Objects]]]:
    """Names of classes in order of their ids, and the file name of every picture with its objects.

    Raises:
        DataError: no such file, or none of COCO's instances.
    """
    raw = read_json(path)
    try:
        categories = {one["id"]: str(one["name"]) for one in sorted(raw["categories"], key=lambda one: one["id"])}
        marked: dict[int, list[dict[str, Any]]] = {}
        for one in raw["annotations"]:
            marked.setdefault(one["image_id"], []).append(one)
        return list(categories.values()), [
            (str(image["file_name"]), _of_coco(marked.get(image["id"], []), categories)) for image in raw["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is no COCO instances file ({error})") from None


def read_yolo(path: Path, class_names: Sequence[str]) -> Objects:
    """Rows "class x y width height", the middle and sides as shares of the picture, or "class x y x y ..." of an
    outline, whose box is taken; a missing file is a picture without objects.

    Raises:
        DataError: other rows, a class beyond `class_names` where there are any, or a box without area.
    """
    boxes, names = [], []
    try:
        rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
        for number, *values in filter(None, rows):
            names.append(class_names[int(number)] if class_names else str(int(number)))
            points = np.array(values, np.float64).reshape(-1, 2)
            middle, half = points[0], points[-1] / 2
            outline = len(points) > 2
            boxes.append([*points.min(0), *points.max(0)] if outline else [*(middle - half), *(middle + half)])
    except (OSError, ValueError, IndexError) as error:
        raise DataError(path, f"holds a row that is no object of YOLO's ({error})") from None
    array = np.array(boxes, np.float64).reshape(-1, 4)
    _require_area(path, array)
    none = np.zeros(len(array), bool)
    return Objects(array, tuple(names), _areas(array), none, none, relative=True)


def _of_coco(marked: list[dict[str, Any]], categories: dict[int, str]) -> Objects:
    boxes = np.array([one["bbox"] for one in marked], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    areas = np.array([one.get("area", one["bbox"][2] * one["bbox"][3]) for one in marked], np.float64)
    crowd = np.array([bool(one.get("iscrowd")) for one in marked], bool)
    names = tuple(categories[one["category_id"]] for one in marked)
    return Objects(boxes, names, areas, crowd, np.zeros(len(marked), bool))


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas


def _require_area(path: Path, boxes: NDArray[np.float64]) -> None:
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise DataError(path, "holds a box without area")
