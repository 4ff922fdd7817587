"""Video classification by attentive heads on frozen patches of a few frames.

"ours": frames at even times, the largest centre square, patches pooled to a small grid so that they fit into memory, no
augmentation and no averaging over views at the end; grid of rates, blocks and query as in arXiv 2508.10104, D.6.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data import images
from opendino.data.beside import read_declared
from opendino.data.images.video import read_frames
from opendino.data.listing import has_picture_ending
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.actions import Actions, Clip
from opendino.evaluation.dense import patch_map, whole_input
from opendino.evaluation.protocol import Choice, Job, Outcome, Subject, set_score
from opendino.models.attentive_heads import AttentiveHeads
from opendino.train.methods.head_fitting import Recipe, Setting, fit_heads

GRID = tuple(
    Setting(base * power, decay) for power in (1e-4, 1e-3) for base in (1, 2, 5) for decay in (1e-3, 1e-2, 1e-1)
)
"""The paper's 18 heads."""
HELD_OUT = 0.1
DEFAULT_FPS = 25.0


def even_frames(count: int, wanted: int) -> NDArray[np.int64]:
    """[wanted] frame numbers from the first to the last of `count`; a short clip repeats some."""
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def clip_tokens(subject: Subject, path: Path, frames: int, rows: int, grid: int) -> Tensor:
    """[frames * grid * grid, D + 3]: pooled patches of even frames, then seconds, row and column in [-1, 1]."""
    if path.is_dir():
        names = sorted(one for one in path.iterdir() if has_picture_ending(one.name.encode()))
        seen = [read_declared(one) for one in names]
    else:
        seen = list(read_frames(path))
    if not seen:
        raise DataError(path, "holds no frame")
    rate = float(seen[0].meta.get("fps", DEFAULT_FPS))
    edge = (torch.arange(grid) + 0.5) / grid * 2 - 1
    tokens = []
    for number in even_frames(len(seen), frames).tolist():
        patches = patch_map(subject, whole_input(subject, _centre_square(seen[number]), rows))
        pooled = F.adaptive_avg_pool2d(patches.permute(2, 0, 1), grid).permute(1, 2, 0)
        row, column = torch.meshgrid(edge, edge, indexing="ij")
        seconds = torch.full((grid, grid), number / rate)
        tokens.append(torch.cat([pooled, seconds[..., None], row[..., None], column[..., None]], -1).flatten(0, 1))
    return torch.cat(tokens)


def _centre_square(picture: images.Image) -> images.Image:
    height, width = picture.array.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return replace(picture, array=np.ascontiguousarray(picture.array[top : top + side, left : left + side]))


def look(subject: Subject, clips: list[Clip], job: Job, what: str) -> tuple[Tensor, list[Clip], list[Skipped]]:
    """Tokens [n, t, D + 3] of all clips that can be read, those clips, and the others by name."""
    tokens, kept, skipped = [], [], []
    size = (int(job.settings["frames"]), int(job.settings["rows"]), int(job.settings["grid"]))
    for done, clip in enumerate(clips, 1):
        try:
            tokens.append(clip_tokens(subject, clip.path, *size))
            kept.append(clip)
        except DataError as error:
            skipped.append(Skipped(clip.path.name, error.cause))
        job.progress(what, done, len(clips))
    if not kept:
        raise DataError(what, f"no video could be read ({skipped[0].id}: {skipped[0].reason})")
    return torch.stack(tokens), kept, skipped


def held_out_groups(clips: list[Clip], seed: int) -> NDArray[np.bool_]:
    """[n] True for a tenth of the groups of every class that has two: near copies never lie on both sides."""
    generator = np.random.default_rng(seed)
    chosen = set[str]()
    for label in sorted({clip.label for clip in clips}):
        groups = sorted({clip.group for clip in clips if clip.label == label})
        if len(groups) > 1:
            count = max(1, round(HELD_OUT * len(groups)))
            chosen.update(generator.permutation(np.array(groups))[:count].tolist())
    return np.array([clip.group in chosen for clip in clips])


def evaluate_actions(subject: Subject, data: Actions, job: Job) -> Outcome:
    """Top-1 of the head that was best on held-out groups of train; groups of clips are drawn again, not clips."""
    train, clips, bad_train = look(subject, list(data.train), job, "train")
    val, scored, bad_val = look(subject, list(data.val), job, "val")
    labels = torch.tensor([clip.label for clip in clips])
    held = torch.from_numpy(held_out_groups(clips, job.seed))
    width = int(job.settings["width"])
    heads = AttentiveHeads(
        train.shape[-1] - 3,
        len(data.classes),
        len(GRID),
        width=width,
        heads=max(1, width // 48),
        depth=int(job.settings["depth"]),
        seed=job.seed,
    )
    batch = min(int(job.settings["batch"]), int((~held).sum()))
    steps = max(1, round(float(job.settings["epochs"]) * int((~held).sum()) / batch))
    fit_heads(
        heads,
        train[~held],
        labels[~held],
        F.cross_entropy,
        GRID,
        Recipe(steps, batch, "adamw", warmup_steps=steps // 20),
        seed=job.seed,
        progress=lambda done, total: job.progress("18 heads", done, total),
    )
    tried = _correct(heads, train[held], labels[held]).mean(1) if held.any() else np.zeros(len(GRID))
    chosen = int(tried.argmax())
    correct = _correct(heads, val, torch.tensor([clip.label for clip in scored]))[chosen]
    names, group_of = np.unique([clip.group for clip in scored], return_inverse=True)
    sums, counts = np.bincount(group_of, correct), np.bincount(group_of)
    config = {
        "steps": steps,
        "augmented": False,
        "views": 1,
        "videos": len(scored),
    }
    points = [asdict(one) for one in GRID]
    choice = Choice(points[chosen], "held-out train", points, tried.tolist())
    score = set_score(
        "top1", lambda times: float(times @ sums / (times @ counts)), names.tolist(), unit="group", choice=choice
    )
    absent = [Skipped(name, "listed, but not there") for name in data.absent]
    warnings = [f"video: {len(absent):,} listed videos are not there: other copies of the set score others"]
    return Outcome([score], [*bad_train, *bad_val, *absent], config, warnings=warnings if absent else ())


@torch.no_grad()
def _correct(heads: AttentiveHeads, tokens: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """[heads, n]: 100 for a right answer, else 0."""
    logits = torch.cat([heads(part) for part in tokens.split(64)], dim=1)
    right: NDArray[np.float64] = 100.0 * (logits.numpy().argmax(2) == labels.numpy())
    return right
