"""Linear detection of frozen patches: which object does every patch show, where is its middle and how large is it?

`det-linear` is "ours", for the paper's detector is a decoder of 100 million weights: batch norm and one linear map from
a patch to class scores and a box, as in FCOS (arXiv 1904.01355) without its tower and pyramid, fitted on patches of
whole pictures that were extracted once. What it scores is what the features hold of things and their outlines.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.beside import read_declared
from opendino.data.images import Image
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.detections import Detectable, Marked
from opendino.evaluation.datasets.units import evenly
from opendino.evaluation.dense import patch_map, whole_input
from opendino.evaluation.examples import MOST, Example, of_detections
from opendino.evaluation.metrics.boxes import is_localised
from opendino.evaluation.metrics.detection import AREAS, IOUS, Detections, Truth, match, mean_ap
from opendino.evaluation.metrics.interval import RESAMPLES
from opendino.evaluation.patch_objects import SeenObjects, patch_targets, patches_loss, to_detections
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Subject, set_score
from opendino.evaluation.reading import read_each
from opendino.evaluation.segmentation import HELD_OUT_EVERY
from opendino.models.linear_heads import LinearHeads
from opendino.pages.overlay import class_colour
from opendino.train.methods.head_fitting import Recipe, Setting, fit_heads

GRID = tuple(Setting(lr, decay) for lr in (1e-3, 3e-3, 1e-2, 3e-2) for decay in (1e-4, 1e-3))
MOST_HELD = 2000
"""Held-out pictures that choose the setting, at most."""


@torch.no_grad()
def detect(heads: LinearHeads, head: int, one: SeenObjects) -> Detections:
    """By one head of the grid."""
    return to_detections(heads.one(one.patches.flatten(0, 1), head), one)


def look(
    subject: Subject, data: Detectable, pictures: list[Marked], skipped: list[Skipped], job: Job, what: str
) -> Iterator[SeenObjects]:
    """Patches of whole pictures, one at a time; a file that cannot be read is skipped by name."""
    rows, layer = int(job.settings["rows"]), int(job.settings["layer"])

    def read(one: Marked) -> tuple[Image, Truth]:
        picture = read_declared(one.image)
        return picture, data.truth(one, *picture.array.shape[:2])

    for one, (picture, truth) in read_each(pictures, read, skipped, job, f"{what} pictures"):
        patches = patch_map(subject, whole_input(subject, picture, rows), layer)
        yield SeenObjects(one, patches, (picture.array.shape[0], picture.array.shape[1]), truth)


def look_at_train(
    subject: Subject, data: Detectable, skipped: list[Skipped], job: Job
) -> tuple[Tensor, Tensor, list[SeenObjects]]:
    """Patches [n, D] and targets [n, C + 4] to fit on, and every fifth picture, which is held out.

    Raises DataError where nothing is left to fit on.
    """
    rows: list[tuple[Tensor, Tensor]] = []
    held: list[SeenObjects] = []
    for number, one in enumerate(look(subject, data, list(data.train), skipped, job, "train"), 1):
        if number % HELD_OUT_EVERY == 0:
            held.append(one)
        else:
            targets, known = patch_targets(one, len(data.class_names))
            rows.append((one.patches.flatten(0, 1)[known], targets[known]))
    features, targets = (torch.cat(parts) for parts in zip(*rows, strict=True))
    if not targets[:, :-4].any():
        raise DataError(job.data, "has no box on training pictures that are fitted on", "give more of them")
    return features, targets, held


def evaluate_linear_detection(subject: Subject, data: Detectable, job: Job) -> Outcome:
    """AP of COCO by the head whose setting was best on every fifth training picture, fitted on the others."""
    skipped = list(data.skipped)
    classes = len(data.class_names)
    features, targets, held = look_at_train(subject, data, skipped, job)
    heads = LinearHeads(features.shape[1], classes + 4, len(GRID), batch_norm=True, seed=job.seed)
    _start(heads, targets)
    steps = int(job.settings["steps"])
    fit_heads(
        heads,
        features,
        targets,
        patches_loss,
        GRID,
        Recipe(steps, int(job.settings["batch"]), "adamw", warmup_steps=max(1, steps // 25)),
        seed=job.seed,
        progress=lambda done, total: job.progress("head", done, total),
    )
    chosen, choice = _choose(heads, evenly(held, MOST_HELD), classes)
    del features, targets, held  # val comes one picture at a time
    seen, found, examples = [], [], []
    drawn = {one.id for one in evenly(data.val, MOST)}
    for one in look(subject, data, list(data.val), skipped, job, "val"):
        seen.append((one.marked.id, one.truth))
        found.append(detect(heads, chosen, one))
        if one.marked.id in drawn:
            examples.append(_drawn(one, found[-1]))
    ids, truths = zip(*seen, strict=True)
    scores, breakdown = _score(ids, truths, found, data.class_names, choice, job)
    legend = [(name, class_colour(number)) for number, name in enumerate(data.class_names)]
    told = data.warnings()
    return Outcome(scores, skipped, breakdown=breakdown, warnings=told, examples=examples, legend=legend)


def _score(
    ids: Sequence[str],
    truths: Sequence[Truth],
    found: Sequence[Detections],
    names: Sequence[str],
    choice: Choice,
    job: Job,
) -> tuple[list[Score], dict[str, dict[str, float]]]:
    """AP over thresholds, at 0.5 and at 0.75; and AP by class and by size."""
    matched = match(truths, found, len(names))

    @functools.cache  # three numbers are made of each draw of pictures, which takes up to a second on COCO
    def by_class(drawn: bytes) -> NDArray[np.float64]:
        job.progress("intervals", by_class.cache_info().misses, RESAMPLES)
        return matched.by_class(np.frombuffer(drawn, np.int64))

    def score(metric: str, at: list[int]) -> Score:
        return set_score(metric, lambda times: 100 * mean_ap(by_class(times.tobytes())[at]), ids, choice=choice)

    scores = [score("ap", list(range(len(IOUS)))), score("ap50", [IOUS.index(0.5)]), score("ap75", [IOUS.index(0.75)])]
    each = matched.by_class()
    sizes = {name: mean_ap(match(truths, found, len(names), area).by_class()) for name, area in AREAS.items()}
    return scores, {
        "ap_by_class": _known(dict(zip(names, each.mean(0).tolist(), strict=True))),
        "ap50_by_class": _known(dict(zip(names, each[0].tolist(), strict=True))),
        "ap_by_size": _known(sizes),
    }


def _start(heads: LinearHeads, targets: Tensor) -> None:
    """Biases that know how common classes are and how large objects, but not where: without them hundreds of steps
    only teach that most patches show nothing.
    """
    shown = targets[:, :-4].sum(1) > 0
    common = targets[:, :-4].mean(0).clamp(1 / len(targets), 1 - 1 / len(targets))
    start = torch.cat([common.logit(), targets[shown, -4:].mean(0)])
    with torch.no_grad():
        for bias in heads.biases:
            bias.copy_(start)


def _choose(heads: LinearHeads, held: list[SeenObjects], classes: int) -> tuple[int, Choice]:
    """The head with the best AP on pictures that were held out; the first one where they hold nothing to find."""
    truths = [one.truth for one in held]
    tried = [0.0] * len(GRID)
    if any(not one.unclear.all() for one in truths):
        for head in range(len(GRID)):
            found = [detect(heads, head, one) for one in held]
            tried[head] = 100 * mean_ap(match(truths, found, classes).by_class())
    chosen = int(np.argmax(tried))
    points = [asdict(one) for one in GRID]
    return chosen, Choice(points[chosen], "held-out train", points, tried)


def _drawn(one: SeenObjects, found: Detections) -> Example:
    """As many of the surest boxes as there are objects."""
    clear = ~one.truth.unclear
    boxes, classes = one.truth.boxes[clear], one.truth.classes[clear]
    surest, labels = found.boxes[: len(boxes)], found.classes[: len(boxes)]
    hits = sum(is_localised(box, surest[labels == label]) for box, label in zip(boxes, classes, strict=True))
    says = f"{hits} of {len(boxes)} found by the {len(boxes)} surest boxes" if len(boxes) else "nothing to find"
    return of_detections(one.marked.id, read_declared(one.marked.image).array, (boxes, classes), (surest, labels), says)


def _known(values: dict[str, float]) -> dict[str, float]:
    """In percent, without those that have no true objects."""
    return {name: 100 * value for name, value in values.items() if np.isfinite(value)}
