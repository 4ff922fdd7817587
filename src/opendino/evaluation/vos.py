"""Video object segmentation by label propagation: the first mask travels to later frames along similar patches.

Nothing is trained. Source: arXiv 2508.10104, D.5 and table 27 (context of the last m frames and the first, top-k over
all of it together, a window around each patch).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.beside import read_declared
from opendino.errors import DataError
from opendino.evaluation.datasets.videos import Video, Videos, read_objects
from opendino.evaluation.dense import argmax, patch_map, to_native, whole_input
from opendino.evaluation.examples import MOST, Example, of_objects
from opendino.evaluation.metrics.video import ObjectScore, frame_decay, frame_recall, score_sequence
from opendino.evaluation.protocol import Job, Outcome, Statistic, Subject, set_score
from opendino.evaluation.segmentation import class_shares

CHUNK = 512
"""Query patches compared at once, to bound memory."""


@dataclass(frozen=True)
class Memory:
    """Patches of a frame as unit vectors [N, D] and their labels [N, O]."""

    units: Tensor
    labels: Tensor


class Propagation:
    """Labels on their way through a video: painted frames stay in view, the last ones come and go.

    Args:
        context: so many frames before the one in question are looked at, besides the painted ones.
        window: only patches at most so many rows and columns away are; negative for no window.
        k: the most similar patches over all of the context together; temperature: of their softmax.
    """

    def __init__(self, *, context: int = 7, window: int = 12, k: int = 5, temperature: float = 0.2) -> None:
        self._painted: list[Memory] = []
        self._recent: deque[Memory] = deque(maxlen=context)
        self._window, self._k, self._temperature = window, k, temperature

    def paint(self, patches: Tensor, labels: Tensor) -> None:
        """A frame [h, w, D] with known labels [h, w, O], rows that add up to 1. Earlier guesses are forgotten."""
        self._painted.append(Memory(_units(patches), labels.flatten(0, 1)))
        self._recent.clear()

    def follow(self, patches: Tensor) -> Tensor:
        """Soft labels [h, w, O] of the next frame [h, w, D]."""
        units = _units(patches)
        near = _window(patches.shape[0], patches.shape[1], self._window)
        soft = self._vote(units, [*self._painted, *self._recent], near)
        self._recent.append(Memory(units, soft))
        return soft.unflatten(0, patches.shape[:2])

    def recognise(self, patches: Tensor) -> Tensor:
        """[h, w, O]: labels by the painted frames alone, wherever in them; what no drift can have changed."""
        return self._vote(_units(patches), self._painted, None).unflatten(0, patches.shape[:2])

    def _vote(self, query: Tensor, known: list[Memory], near: Tensor | None) -> Tensor:
        keys, labels = torch.cat([one.units for one in known]), torch.cat([one.labels for one in known])
        answer = []
        for rows in torch.arange(len(query)).split(CHUNK):
            similarity = query[rows] @ keys.T
            if near is not None:
                similarity = similarity.masked_fill(~near[rows].repeat(1, len(known)), -torch.inf)
            values, index = similarity.topk(min(self._k, similarity.shape[1]), dim=1)
            answer.append(torch.einsum("qk,qko->qo", (values / self._temperature).softmax(dim=1), labels[index]))
        return torch.cat(answer)


def propagate(maps: Iterable[Tensor], first: Tensor, **settings: Any) -> Iterator[Tensor]:
    """Soft labels [h, w, O] of every frame after the first.

    Args:
        maps: patches [h, w, D] of all frames, the first included.
        first: [h, w, O] labels of the first frame, rows that add up to 1.
        settings: of `Propagation`.
    """
    frames, propagation = iter(maps), Propagation(**settings)
    propagation.paint(next(frames), first)
    for patches in frames:
        yield propagation.follow(patches)


def _units(patches: Tensor) -> Tensor:
    return F.normalize(patches.flatten(0, 1), dim=1)


@functools.lru_cache(maxsize=1)
def _window(height: int, width: int, window: int) -> Tensor | None:
    """[N, N] bool: which patches are near enough; None for all."""
    if window < 0:
        return None
    row, column = (grid.flatten() for grid in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    return ((row[:, None] - row).abs() <= window) & ((column[:, None] - column).abs() <= window)


def track(subject: Subject, video: Video, job: Job) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """True and found object numbers [frames, H, W] of a video; the first frame is given."""
    masks = [read_objects(path) for path in video.masks]
    if len({mask.shape for mask in masks}) > 1:
        raise DataError(video.name, "has masks of several sizes", "all frames of a video must have one size")
    truth = np.stack(masks)
    rows = int(job.settings["rows"])

    def maps() -> Iterator[Tensor]:
        for done, frame in enumerate(video.frames, 1):
            yield patch_map(subject, whole_input(subject, read_declared(frame), rows), int(job.settings["layer"]))
            job.progress(video.name, done, len(video.frames))

    features = maps()
    start = next(features)
    count = int(np.where(truth[0] == 255, 0, truth[0]).max())
    height, width = start.shape[:2]
    first = class_shares(np.where(truth[0] == 255, 0, truth[0]).astype(np.uint8), height, width, count + 1)

    def all_maps() -> Iterator[Tensor]:
        yield start
        yield from features

    found = [truth[0]]
    names = ("context", "window", "k", "temperature")
    for soft in propagate(all_maps(), first, **{name: job.settings[name] for name in names}):
        found.append(argmax(to_native(soft.permute(2, 0, 1), *truth.shape[1:])).astype(np.uint8))
    return truth, np.stack(found)


def evaluate_vos(subject: Subject, data: Videos, job: Job) -> Outcome:
    """J&F over objects, resampled by video: frames of one video are no independent trials."""
    by_video: dict[str, list[ObjectScore]] = {}
    drawn: list[Example] = []
    for video in data.videos:
        if len(video.frames) < 3:
            fix = "raise --limit" if job.limit is not None else ""
            raise DataError(video.name, f"has {len(video.frames)} frames, 3 are needed to score one", fix)
        truth, found = track(subject, video, job)
        by_video[video.name] = score_sequence(truth, found)
        if len(drawn) < MOST:
            jf = 100 * np.mean([one.jf for one in by_video[video.name]])
            last = read_declared(video.frames[-1]).array
            drawn.append(of_objects(video.name, last, truth[-1], found[-1], f"last frame; J&F of the video {jf:.0f}"))
    ids = list(by_video)
    objects = [np.array([[o.jf, o.j.mean(), o.f.mean()] for o in scores]) for scores in by_video.values()]
    sums, counts = np.stack([one.sum(0) for one in objects]), np.array([len(one) for one in objects])

    def mean_of(column: int) -> Statistic:
        return lambda times: 100 * float(times @ sums[:, column] / (times @ counts))

    scores = [set_score(metric, mean_of(column), ids, unit="video") for column, metric in enumerate(("jf", "j", "f"))]
    joined = [score for scores_ in by_video.values() for score in scores_]
    details = {name: {"jf": 100 * float(np.mean([o.jf for o in objs]))} for name, objs in by_video.items()}
    details["all"] = {
        "j_recall": 100 * float(np.mean([frame_recall(one.j) for one in joined])),
        "j_decay": 100 * float(np.mean([frame_decay(one.j) for one in joined])),
    }
    return Outcome(scores, (), {}, details, examples=drawn)
