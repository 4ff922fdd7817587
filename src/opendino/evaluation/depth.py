"""Linear depth of frozen patches: how many metres is each pixel away, read from one layer?

`depth-linear` is "ours": the paper's head (batch norm, one linear map to 256 bins) and its grid, fitted on patches of
whole pictures that were extracted once, without crops, flips and test-time flips (arXiv 2508.10104, D.2).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendino.data import images
from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.datasets.depths import DepthPair, Depths
from opendino.evaluation.datasets.units import evenly
from opendino.evaluation.dense import patch_map, to_native, whole_input
from opendino.evaluation.examples import MOST, of_depth
from opendino.evaluation.metrics.depth import DepthScore, score_depth
from opendino.evaluation.protocol import Choice, Job, Outcome, Subject, mean_score
from opendino.evaluation.reading import read_each
from opendino.evaluation.segmentation import GRID, HELD_OUT_EVERY
from opendino.losses.scale_invariant import scale_invariant_loss
from opendino.models.depth_bins import depth_of_bins
from opendino.models.linear_heads import LinearHeads
from opendino.train.methods.head_fitting import Recipe, fit_heads

BINS = 256


@dataclass(frozen=True)
class SeenDepth:
    """A picture's patches [h, w, D], the mean depth of their valid pixels [h, w] (0: none), its pair."""

    pair: DepthPair
    patches: Tensor
    mean_m: Tensor


def patch_depth(depth: NDArray[np.floating], valid: NDArray[np.bool_], height: int, width: int) -> Tensor:
    """[height, width]: mean depth of the valid pixels of each patch, 0 where it has none."""
    known = torch.from_numpy(valid.astype(np.float32))[None]
    metres = torch.from_numpy(np.where(valid, depth, 0).astype(np.float32))[None]
    total, share = (F.adaptive_avg_pool2d(part, (height, width))[0] for part in (metres, known))
    return torch.where(share > 0, total / share.clamp_min(1e-9), 0.0)


def look(
    subject: Subject, data: Depths, pairs: list[DepthPair], job: Job, what: str
) -> tuple[list[SeenDepth], list[Skipped]]:
    """Patches of whole pictures; files that cannot be read and maps without a valid pixel are skipped by name."""
    seen: list[SeenDepth] = []
    skipped: list[Skipped] = []

    def read(pair: DepthPair) -> tuple[images.Image, NDArray[np.float64], NDArray[np.bool_]]:
        depth, valid = data.read(pair)
        if not valid.any():
            raise DataError(pair.id, "no valid depth")
        return data.picture(pair), depth, valid

    for pair, (picture, depth, valid) in read_each(pairs, read, skipped, job, f"{what} pictures"):
        image = whole_input(subject, picture, int(job.settings["rows"]))
        patches = patch_map(subject, image, int(job.settings["layer"]))
        height, width = patches.shape[:2]
        seen.append(SeenDepth(pair, patches, patch_depth(depth, valid, height, width)))
    return seen, skipped


def evaluate_linear_depth(subject: Subject, data: Depths, job: Job) -> Outcome:
    """RMSE, ARel and delta1 per picture, then the mean; the head was chosen on every fifth training picture."""
    train, bad_train = look(subject, data, list(data.train), job, "train")
    val, bad_val = look(subject, data, list(data.val), job, "val")
    held = train[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    kept = [one for index, one in enumerate(train) if index % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    features = torch.cat([one.patches.flatten(0, 1) for one in kept])
    truth = torch.cat([one.mean_m.flatten() for one in kept])
    known = truth > 0
    heads = LinearHeads(features.shape[1], BINS, len(GRID), batch_norm=True, seed=job.seed)
    steps = int(job.settings["steps"])
    fit_heads(
        heads,
        features[known],
        truth[known],
        lambda logits, metres: scale_invariant_loss(depth_of_bins(logits, data.low_m, data.high_m), metres),
        GRID,
        Recipe(steps, int(job.settings["batch"]), "adamw", warmup_steps=max(1, steps // 25)),
        seed=job.seed,
        progress=lambda done, total: job.progress("head", done, total),
    )
    tried = [
        float(np.mean([_score(heads, head, one, data).rmse for one in held])) if held else 0.0
        for head in range(len(GRID))
    ]
    chosen = int(np.argmin(tried))
    scores = [_score(heads, chosen, one, data) for one in val]
    pairs = evenly(list(zip(val, scores, strict=True)), MOST)
    drawn = []
    for one, score in pairs:
        depth, valid = data.read(one.pair)
        found = _metres(heads, chosen, one, data, depth.shape)
        drawn.append(of_depth(one.pair.id, depth, valid, found, f"{score.rmse:.2f} m off"))
    points = [asdict(one) for one in GRID]
    choice = Choice(points[chosen], "held-out train", points, tried)
    ids = [one.pair.id for one in val]
    return Outcome(
        [
            mean_score("rmse", [one.rmse for one in scores], ids, measure="m", high_is_good=False, choice=choice),
            mean_score("arel", [100 * one.arel for one in scores], ids, high_is_good=False, choice=choice),
            mean_score("delta1", [100 * one.delta1 for one in scores], ids, choice=choice),
        ],
        [*bad_train, *bad_val],
        examples=drawn,
    )


def _score(heads: LinearHeads, head: int, one: SeenDepth, data: Depths) -> DepthScore:
    depth, valid = data.read(one.pair)
    score = score_depth(depth, _metres(heads, head, one, data, depth.shape), valid)
    assert score is not None, "maps without a valid pixel were skipped"
    return score


def _metres(heads: LinearHeads, head: int, one: SeenDepth, data: Depths, size: tuple[int, ...]) -> NDArray[np.float32]:
    """[H, W] of the size that is asked for."""
    with torch.no_grad():
        logits = heads.one(one.patches.flatten(0, 1), head)
    metres = depth_of_bins(logits, data.low_m, data.high_m).unflatten(0, one.patches.shape[:2])
    found: NDArray[np.float32] = to_native(metres[None], *size)[0].numpy()
    return found
