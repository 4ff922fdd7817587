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
OVER = 0.05
"""Share of a side that outlines and boxes may lie outside the picture, as tools that draw them let happen."""


@dataclass(frozen=True)
class Objects:
    """Boxes [n, 4] xyxy in pixels, exclusive ends; names of their n classes; areas [n] in square pixels, of outlines
    where they are known; crowd [n]: many in one box; difficult [n]: VOC's mark; size: height and width in pixels of the
    picture that was marked, (1, 1) where boxes are shares of its sides, None where nobody says.
    """

    boxes: NDArray[np.float64]
    names: tuple[str, ...]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    size: tuple[int, int] | None


def require_placed(boxes: NDArray[np.float64], size: tuple[int, int] | None, height: int, width: int) -> None:
    """Raise DataError where boxes [n, 4] are of a picture of another size, or one does not even touch it."""
    if size not in (None, (1, 1), (height, width)):
        cause = f"was marked at {size[1]}x{size[0]} pixels, upright it has {width}x{height}"
        raise DataError("boxes", cause)
    # A side on the border is what rounding leaves of an object there.
    if ((boxes[:, :2] > (width, height)) | (boxes[:, 2:] < 0)).any():
        raise DataError("boxes", "has a box outside the picture")


def read_voc(path: Path) -> Objects:
    """Whole objects, without VOC's boxes of their parts; it counts pixels from 1, so xmin and ymin minus 1.

    Raises:
        DataError: missing, too large, XML that declares entities, which no annotation needs, or a box without area.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_XML_BYTES else b"<!ENTITY"
        if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
            raise DataError(path, "is no plain annotation", "XML with entities or over 1 MiB is not read")
        root = ElementTree.fromstring(data)
        found = [one for one in root.iter("object") if one.find("bndbox") is not None]
        sides = [
            [float(one.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")] for one in found
        ]
        difficult = [float(one.findtext("difficult") or 0) > 0 for one in found]
        size = int(float(root.findtext("size/height") or 0)), int(float(root.findtext("size/width") or 0))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(path, f"cannot be read as an annotation ({type(error).__name__})") from None
    boxes = np.array(sides, np.float64).reshape(-1, 4) - [1, 1, 0, 0]
    _require_area(path, boxes)
    names = tuple((one.findtext("name") or "").strip() for one in found)
    known = size if all(size) else None
    return Objects(boxes, names, _areas(boxes), np.zeros(len(boxes), bool), np.array(difficult, bool), known)


def read_coco(path: Path) -> tuple[list[str], list[tuple[str, Objects]], int]:
    """Names of classes in order of their ids; the file name of every picture with its objects; how many annotations are
    of pictures that are not listed.

    Raises:
        DataError: no such file, none of COCO's instances, or a box that is no box. One without area is COCO's own.
    """
    raw = read_json(path)
    try:
        categories = {one["id"]: str(one["name"]) for one in sorted(raw["categories"], key=lambda one: one["id"])}
        marked: dict[int, list[dict[str, Any]]] = {}
        for one in raw["annotations"]:
            x, y, width, height = map(float, one["bbox"])
            if not (np.isfinite([x, y, width, height]).all() and width >= 0 and height >= 0):
                raise DataError(path, f"annotation {one.get('id')} has the box {one['bbox']}, x, y, width, height")
            if one["category_id"] not in categories:
                raise DataError(path, f"annotation {one.get('id')} is of category {one['category_id']}, not listed")
            marked.setdefault(one["image_id"], []).append(one)
        if len({image["id"] for image in raw["images"]}) < len(raw["images"]):
            raise DataError(path, "lists an id of images twice")
        pictures = [
            (str(image["file_name"]), _of_coco(marked.pop(image["id"], []), categories, image))
            for image in raw["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error} where one is due" if isinstance(error, KeyError) else "not its form"
        raise DataError(path, f"is no COCO instances file ({what})") from None
    return list(categories.values()), pictures, sum(map(len, marked.values()))


def in_folder(folder: Path, name: str) -> Path:
    """A picture by its name in COCO's list, which may begin with the part or have folders of its own."""
    whole = folder / name
    return whole if ".." not in whole.parts and whole.is_file() else folder / whole.name


def _of_coco(marked: list[dict[str, Any]], categories: dict[int, str], image: dict[str, Any]) -> Objects:
    boxes = np.array([one["bbox"] for one in marked], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    areas = np.array([one.get("area") or one["bbox"][2] * one["bbox"][3] for one in marked], np.float64)
    crowd = np.array([bool(one.get("iscrowd")) for one in marked], bool)
    names = tuple(categories[one["category_id"]] for one in marked)
    size = int(image.get("height") or 0), int(image.get("width") or 0)
    return Objects(boxes, names, areas, crowd, np.zeros(len(marked), bool), size if all(size) else None)


def read_yolo(path: Path | None, class_names: Sequence[str]) -> Objects:
    """Rows "class x y width height", the middle and sides as shares of the picture, or "class x y x y x y ..." of an
    outline, whose box is taken; without a file a picture has no objects.

    Raises:
        DataError: other rows, a class beyond `class_names` where there are any, pixels instead of shares, no area.
    """
    boxes, names = [], []
    for line, row in enumerate(() if path is None else read_lines(path), 1):
        words = row.split()
        if not words:
            continue
        try:
            number, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise DataError(path, f"line {line} is no class number and numbers: {row[:40]}") from None
        if not 0 <= number < (len(class_names) or number + 1):
            raise DataError(path, f"line {line} is of class {number}, classes.txt names {len(class_names)}")
        if len(values) < 4 or len(values) % 2:
            cause = f"line {line} has {len(values)} numbers after its class"
            raise DataError(path, cause, "4 are a box, 6, 8, ... an outline; leave confidences out")
        points = np.array(values).reshape(-1, 2)
        if not ((points > -OVER) & (points < 1 + OVER)).all():
            cause = f"line {line} has numbers that are no shares of the picture's sides"
            raise DataError(path, cause, "0 to 1, not pixels")
        middle, half = points[0], points[1] / 2
        low, high = (points.min(0), points.max(0)) if len(points) > 2 else (middle - half, middle + half)
        names.append(class_names[number] if class_names else str(number))
        boxes.append([*low, *high])
    array = np.array(boxes, np.float64).reshape(-1, 4)
    _require_area(path, array)
    none = np.zeros(len(array), bool)
    return Objects(array, tuple(names), _areas(array), none, none, (1, 1))


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, without empty ones at its end. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"cannot be read as text ({type(error).__name__})", "save it as UTF-8") from None


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas


def _require_area(path: Path | None, boxes: NDArray[np.float64]) -> None:
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise DataError(path, "holds a box without area")
