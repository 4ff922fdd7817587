"""Painted objects followed through a user's video, frame by frame, with how sure it is and when one was lost.

Labels travel as in the video protocol (`vos`). Confidence asks another question, so that a mask which drifted away
cannot vouch for itself: of what was found, how much looks like the painted object when compared with the painted
frames alone, anywhere in them?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.data.images import Image
from opendino.errors import DataError, UsageError
from opendino.evaluation.dense import argmax, patch_map, to_native, whole_input
from opendino.evaluation.protocol import Subject
from opendino.evaluation.segmentation import class_shares
from opendino.evaluation.vos import Propagation

MIN_CONFIDENCE = 0.5
"""Below it most of what was found looks more like something else in the painted frames."""


@dataclass(frozen=True)
class Sighting:
    """Of one object in one frame. confidence: 0 to 1; share: of the frame's pixels; lost: not there, or not trusted."""

    confidence: float
    share: float
    lost: bool


@dataclass(frozen=True)
class TrackedFrame:
    """number: from 0; picture; mask [H, W] uint8, 0 where no object is; painted: the mask was given."""

    number: int
    picture: Image
    mask: NDArray[np.uint8]
    sightings: Mapping[int, Sighting]
    painted: bool


def follow(
    subject: Subject, frames: Iterable[Image], painted: Mapping[int, NDArray[np.uint8]], rows: int, **settings: Any
) -> Iterator[TrackedFrame]:
    """Every frame from the first painted one on, with its objects.

    Args:
        frames: of one size, from frame 0.
        painted: masks [H, W] by frame number, 0 for background, 1.. for objects; at least one. A later one corrects:
            from there on it is known as well as the first, and what was guessed before is forgotten.
        rows: patches on the short side.
        settings: of `vos.Propagation`.
    Raises:
        UsageError: no mask, one without an object, one of another size, or one for a frame that does not come.
        DataError: a frame of another size.
    """
    if not painted or any(not mask.any() for mask in painted.values()):
        raise UsageError("mask", "holds no painted object", "paint it in any value from 1 to 255 on black 0")
    objects = int(max(mask.max() for mask in painted.values()))
    propagation = Propagation(**settings)
    first, size, number = min(painted), None, -1
    for number, picture in enumerate(frames):
        if number < first:
            continue
        shape = picture.array.shape[:2]
        size = size or shape
        if shape != size:
            raise DataError(f"frame {number}", f"is {shape[1]} x {shape[0]} px, the first was {size[1]} x {size[0]}")
        patches = patch_map(subject, whole_input(subject, picture, rows))
        mask = painted.get(number)
        if mask is not None:
            if mask.shape != shape:
                found = f"is {mask.shape[1]} x {mask.shape[0]} px, its frame {shape[1]} x {shape[0]}"
                raise UsageError(f"mask of frame {number}", found, "paint on the frame itself")
            height, width = patches.shape[:2]
            propagation.paint(patches, class_shares(mask, height, width, objects + 1))
            shares = {one: float((mask == one).mean()) for one in range(1, objects + 1)}
            known = {one: Sighting(1.0, share, lost=not share) for one, share in shares.items()}
            yield TrackedFrame(number, picture, mask, known, True)
            continue
        soft, like = propagation.follow(patches), propagation.recognise(patches)
        guess = argmax(to_native(soft.permute(2, 0, 1), *shape)).astype(np.uint8)
        sightings = {}
        for one in range(1, objects + 1):
            share = float((guess == one).mean())
            weight = soft[..., one]
            confidence = float((weight * like[..., one]).sum() / weight.sum().clamp_min(1e-9)) if share else 0.0
            sightings[one] = Sighting(confidence, share, not share or confidence < MIN_CONFIDENCE)
        yield TrackedFrame(number, picture, guess, sightings, False)
    if late := [frame for frame in painted if frame > number]:
        raise UsageError(f"mask of frame {late[0]}", f"the video has {number + 1} frames", "count frames from 0")
