"""GEO-Bench: classification and segmentation of the Earth's surface from red, green and blue, and their means.

Heads as arXiv 2508.10104, D.13 has them for classification: 2,400 steps of SGD on frozen CLS, the rate chosen on valid;
here without augmentation. Segmentation is "ours": a linear map of patches where the paper fits a DPT head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.cache import kept
from opendino.evaluation.datasets.geobench import PARTS, GeoBench, Task
from opendino.evaluation.datasets.units import hash_ids
from opendino.evaluation.dense import patch_map
from opendino.evaluation.metrics.multilabel import f1_counts, micro_f1
from opendino.evaluation.metrics.segmentation import mean_iou
from opendino.evaluation.protocol import Choice, Job, Outcome, Score, Statistic, Subject, set_score
from opendino.evaluation.reading import read_each
from opendino.evaluation.segmentation import Seen, class_shares, fit_patch_classes
from opendino.features.extract import NO_LABEL, Bank, Inputs, extract_inputs
from opendino.models.linear_heads import LinearHeads
from opendino.train.methods.head_fitting import Recipe, Setting, fit_heads

RATES = (*(base * power for power in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1) for base in (1, 2, 5)), 1.0)
GRID = tuple(Setting(rate, 0.0) for rate in RATES)
METRICS = {"class": "accuracy", "tags": "f1", "mask": "miou"}
GROUPS = {"classification": ("class", "tags"), "segmentation": ("mask",)}


@dataclass(frozen=True)
class Scored:
    """A task's own score, and what its number is when pictures count several times."""

    task: Task
    score: Score
    statistic: Statistic


def evaluate_geobench(subject: Subject, data: GeoBench, job: Job) -> Outcome:
    """Accuracy, micro F1 (labels above 0.5) or mIoU at the masks' own size of each task, and the mean of each kind."""
    scored: list[Scored] = []
    skipped: list[Skipped] = []
    for task in data.tasks:
        found, bad = (_score_masks if task.kind == "mask" else _score_pictures)(subject, task, job)
        scored.append(found)
        skipped += bad
    scores, warnings = [], []
    for name, kinds in GROUPS.items():
        members = [one for one in scored if one.task.kind in kinds]
        if members:
            scores.append(_mean(name, members))
            if len(members) < 6:
                warnings.append(f"geobench: {name} is the mean of {len(members)} of its 6 tasks")
    config = {"bands": "red, green, blue", "date": "first", "score_size": "of the masks"}
    return Outcome([*scores, *(one.score for one in scored)], skipped, config, warnings=warnings)


def _mean(name: str, members: Sequence[Scored]) -> Score:
    sizes = [one.score.n for one in members]
    ends = np.cumsum(sizes)[:-1]

    def mean(times: NDArray[np.int64]) -> float:
        parts = zip(members, np.split(times, ends), strict=True)
        return float(np.mean([one.statistic(part) for one, part in parts]))

    ids = [f"{one.task.name}/{unit}" for one in members for unit in one.score.ids]
    return set_score(name, mean, ids, sizes=sizes, config={"tasks": [one.task.name for one in members]})


def _input(subject: Subject, bands: Tensor, job: Job) -> Tensor:
    """[3, S, S]: the official input, bands by their own statistics and squeezed to a square of `rows` patches."""
    side = int(job.settings["rows"]) * subject.model.patch
    return F.interpolate(bands[None], (side, side), mode="bilinear", align_corners=False, antialias=True)[0]


@dataclass(frozen=True)
class Part:
    """Pictures of a part that could be read: cls [n, D], truth [n] or [n, C], their names; skipped: the others."""

    cls: Tensor
    truth: NDArray[np.int64]
    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def _score_pictures(subject: Subject, task: Task, job: Job) -> tuple[Scored, list[Skipped]]:
    """By heads on CLS, the best one on valid."""
    train, valid, test = (_part(subject, task, name, job) for name in PARTS)
    heads = LinearHeads(train.cls.shape[1], task.num_classes, len(GRID), seed=job.seed)
    target = torch.from_numpy(train.truth)
    fit_heads(
        heads,
        train.cls,
        target.float() if task.kind == "tags" else target,
        F.binary_cross_entropy_with_logits if task.kind == "tags" else F.cross_entropy,
        GRID,
        Recipe(int(job.settings["steps"]), int(job.settings["batch"]), "sgd"),
        seed=job.seed,
        progress=lambda done, total: job.progress(f"{task.name} heads", done, total),
    )

    def statistic_of(part: Part, head: int) -> Statistic:
        with torch.no_grad():
            logits = heads.one(part.cls, head).numpy()
        if task.kind == "tags":
            counts = f1_counts(part.truth, logits > 0)
            return lambda times: 100 * micro_f1(np.tensordot(times, counts, 1))
        right = 100.0 * (logits.argmax(1) == part.truth)
        return lambda times: float(times @ right / times.sum())

    once = np.ones(len(valid.ids), np.int64)
    tried = [statistic_of(valid, head)(once) for head in range(len(GRID))]
    chosen = int(np.argmax(tried))
    points = [{"lr": rate} for rate in RATES]
    choice = Choice(points[chosen], "valid", points, tried)
    statistic = statistic_of(test, chosen)
    score = set_score(f"{METRICS[task.kind]}_{task.name}", statistic, test.ids, choice=choice)
    return Scored(task, score, statistic), [*train.skipped, *valid.skipped, *test.skipped]


def _part(subject: Subject, task: Task, part: str, job: Job) -> Part:
    """CLS and truth of a part; CLS is kept in the cache."""
    skipped: list[Skipped] = []
    what = f"{task.name} {part}"
    named = f"{task.name}/{{}}".format
    truths = dict(read_each(task.parts[part], task.read_truth, skipped, job, f"{what} labels", name=named))

    def compute() -> Bank:
        return extract_inputs(
            subject.model,
            _batches(subject, task, list(truths), job),
            device=subject.device,
            pool=1,
            progress=lambda done: job.progress(what, done, len(truths)),
        )

    sizes = hash_ids([f"{name} {task.path(name).stat().st_size}" for name in truths])
    key = [subject.hash, "geobench", str(job.settings["rows"]), str(task.folder.resolve()), part, sizes]
    bank = kept(job, key, compute)
    return Part(bank.cls, np.stack([truths[name] for name in bank.ids]), bank.ids, (*skipped, *bank.skipped))


def _batches(subject: Subject, task: Task, names: Sequence[str], job: Job) -> Iterator[Inputs]:
    """Inputs of pictures whose label was read; bands that cannot be read are skipped by name."""
    for start in range(0, len(names), job.batch_size):
        images, ids, skipped = [], [], []
        for name in names[start : start + job.batch_size]:
            try:
                images.append(_input(subject, task.read_bands(name), job))
                ids.append(name)
            except DataError as error:
                skipped.append(Skipped(f"{task.name}/{name}", error.cause))
        stacked = torch.stack(images) if images else torch.empty(0, 3, 1, 1)
        yield Inputs(stacked, (NO_LABEL,) * len(ids), tuple(ids), tuple(skipped))


def _score_masks(subject: Subject, task: Task, job: Job) -> tuple[Scored, list[Skipped]]:
    """By linear maps of patches, the best one on valid."""
    skipped: list[Skipped] = []
    named = f"{task.name}/{{}}".format

    def look(part: str) -> list[Seen]:
        seen = []

        def read(name: str) -> tuple[Tensor, NDArray[np.int64]]:
            return task.read_bands(name), task.read_truth(name)

        pictures, what = task.parts[part], f"{task.name} {part}"
        for name, (bands, truth) in read_each(pictures, read, skipped, job, what, name=named):
            patches = patch_map(subject, _input(subject, bands, job))
            mask, (height, width) = truth.astype(np.uint8), patches.shape[:2]
            seen.append(Seen(name, patches, class_shares(mask, height, width, task.num_classes), mask))
        return seen

    train, valid, test = (look(part) for part in PARTS)
    steps, batch = int(job.settings["mask_steps"]), int(job.settings["mask_batch"])
    fitted = fit_patch_classes(train, valid, task.num_classes, job, steps=steps, batch=batch, held_name="valid")
    counts = np.stack([fitted.count(one) for one in test])

    def statistic(times: NDArray[np.int64]) -> float:
        return 100 * float(mean_iou(np.tensordot(times, counts, 1)))

    ids = [one.id for one in test]
    return Scored(task, set_score(f"miou_{task.name}", statistic, ids, choice=fitted.choice), statistic), skipped
