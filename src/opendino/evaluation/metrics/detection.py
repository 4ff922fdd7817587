"""Average precision of boxes as COCO scores it: faster-coco-eval matches once and accumulates any draw of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.errors import ShapeError

IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
MOST_BOXES = 100
"""A picture's best so many detections of a class count."""
ALL_AREAS = (0.0, 1e10)
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels of a true object, as COCO parts them."""


@dataclass(frozen=True)
class Truth:
    """Objects of a picture: boxes [n, 4] xyxy in pixels, classes [n] from 0, areas [n] in square pixels (of the outline
    where there is one), unclear [n]: crowds, on which a detection is neither right nor wrong.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    areas: NDArray[np.float64]
    unclear: NDArray[np.bool_]


@dataclass(frozen=True)
class Detections:
    """What was found in a picture: boxes [n, 4] xyxy in pixels, classes [n] from 0, scores [n]."""

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass
class Matched:
    """Detections of n images, matched with the truth at every threshold of `IOUS`."""

    images: int
    classes: int
    _library: Any = field(repr=False)
    _parts: list[Any] = field(repr=False)

    def by_class(self, times: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """AP [10, classes] in [0, 1], NaN for a class without true objects; times [n]: how often each image counts."""
        positions = np.arange(self.images) if times is None else np.repeat(np.arange(self.images), times)
        if len(positions) != self.images:
            raise ShapeError("AP", f"draws as many images as there are, got {len(positions)} of {self.images}")
        # The library keeps a class's images together.
        offsets = self.images * np.arange(self.classes)[:, None]
        self._library._evalImgs_cpp = [self._parts[at] for at in (offsets + positions).ravel()]
        self._library.accumulate()
        precision = self._library.eval["precision"][:, :, :, 0, -1]
        return np.where(precision[:, 0] < 0, np.nan, precision.mean(1))


def match(
    truths: Sequence[Truth], found: Sequence[Detections], classes: int, area: tuple[float, float] = ALL_AREAS
) -> Matched:
    """Match greedily by score: an object is found once, crowds take any number.

    Args:
        truths, found: of the same images in the same order.
        classes: how many there are.
        area: objects of other areas count as crowds do.
    Raises:
        ShapeError: not as many truths as detections, or no image.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if len(truths) != len(found) or not truths:
        raise ShapeError(
            "AP", f"{len(truths)} truths and {len(found)} lists of detections", "give one of each an image"
        )
    numbered = range(1, len(truths) + 1)
    objects = [
        {"image_id": image, "category_id": int(label) + 1, "bbox": box, "area": float(size), "iscrowd": int(unclear)}
        for image, one in zip(numbered, truths, strict=True)
        for box, label, size, unclear in zip(_xywh(one.boxes), one.classes, one.areas, one.unclear, strict=True)
    ]
    detections = [
        {"image_id": image, "category_id": int(label) + 1, "bbox": box, "score": float(score), "area": box[2] * box[3]}
        for image, one in zip(numbered, found, strict=True)
        for box, label, score in zip(_xywh(one.boxes), one.classes, one.scores, strict=True)
    ]
    sides = [
        {
            "images": [{"id": image} for image in numbered],
            "categories": [{"id": label + 1, "name": str(label)} for label in range(classes)],
            "annotations": [{"iscrowd": 0, **one, "id": number} for number, one in enumerate(rows, 1)],
        }
        for rows in (objects, detections)
    ]
    library = COCOeval_faster(*map(COCO, sides), "bbox", print_function=lambda *_: None, separate_eval=True)
    library.params.iouThrs, library.params.maxDets = np.array(IOUS), [MOST_BOXES]
    library.params.areaRng, library.params.areaRngLbl = [list(area)], ["all"]
    library.evaluate()
    return Matched(len(truths), classes, library, library._evalImgs_cpp)


def mean_ap(by_class: NDArray[np.float64]) -> float:
    """Mean of [..., classes] over those that have true objects, NaN where none has."""
    known = by_class[~np.isnan(by_class)]
    return float(known.mean()) if known.size else float("nan")


def _xywh(boxes: NDArray[np.float64]) -> list[list[float]]:
    wide: list[list[float]] = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()
    return wide
