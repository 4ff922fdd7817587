"""Looks at dense features while a run trains: three gauges, and k-NN segmentation where masks are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from opendino.data.transform import Transform
from opendino.errors import UsageError
from opendino.evaluation.datasets.masks import Masks, open_masks
from opendino.evaluation.metrics.segmentation import mean_iou
from opendino.evaluation.patch_likeness import likeness_agreement
from opendino.evaluation.protocol import Job, Subject
from opendino.evaluation.segmentation import look_for_neighbours
from opendino.monitor.health import Health
from opendino.train.config import WatchConfig

BANK = 20_000
"""Patches of the training pictures that vote: a look must stay cheap. `opendino evaluate` takes ten times as many."""
NEIGHBOURS = 30
SIZE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Input sides of the curve over sizes, as multiples of the side at which pictures are read."""


@dataclass(frozen=True)
class MaskedPictures:
    """Pictures with masks to look at while training."""

    data: Masks
    job: Job

    def scores(self, model: nn.Module, transform: Transform, side_px: int, device: torch.device) -> dict[str, Any]:
        """miou in percent over all val pictures, and picture_iou, that of each (None where no class is known).

        side_px: short side of the pictures, rounded down to whole patches.
        """
        patch = transform.patch
        subject = Subject(model.eval(), replace(transform, patch=patch), "watched", "", device)
        settings = {"rows": max(1, side_px // patch), "layer": -1, "k": NEIGHBOURS, "bank": BANK}
        with torch.no_grad():
            job = replace(self.job, settings=settings)
            neighbours, val, _ = look_for_neighbours(subject, self.data, job)
            counts = neighbours.count(val, self.data.num_classes, job)
        each = 100 * mean_iou(counts)
        return {
            "miou": 100 * float(mean_iou(counts.sum(axis=0))),
            "picture_iou": [None if np.isnan(value) else round(float(value), 2) for value in each],
        }


def open_masked(watch: WatchConfig, seed: int) -> MaskedPictures | None:
    """What --watch.masks names. Raises UsageError or DataError when that is no set of pictures and masks."""
    if not watch.masks:
        return None
    if not Path(watch.masks).is_dir():
        raise UsageError(f"watch.masks {watch.masks}", "is no folder", "give one with {train,val}/{images,masks}/")
    job = Job(Path(watch.masks), watch.masks_limit or None, seed, settings={"ignore": watch.masks_ignore})
    return MaskedPictures(open_masks(job), job)


def gauges(health: Health) -> dict[str, float]:
    """The gauges of health that tell of dense features."""
    return {name: getattr(health, name) for name in ("cls_patch_cosine", "patch_cosine", "norm_ratio")}


def curve_over_sizes(
    model: nn.Module,
    transform: Transform,
    images: Callable[[int], Tensor],
    sides_px: Sequence[int],
    masked: MaskedPictures | None,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Dense quality at each input side: agreement of patch similarities with those at the first side, and, with masks,
    k-NN segmentation.

    images: the same pictures [n, 3, s, s] at a side s.
    """
    found: list[dict[str, Any]] = []
    reference: Tensor | None = None
    for side in sides_px:
        with torch.no_grad():
            patches = torch.cat([model(part.to(device)).patches.float().cpu() for part in images(side).split(8)])
        reference = patches if reference is None else reference
        row: dict[str, Any] = {"px": side, "agreement": likeness_agreement(patches, reference)}
        if masked is not None:
            row |= masked.scores(model, transform, side, device)
        found.append(row)
    return found


def sizes_in_words(rows: Sequence[dict[str, Any]]) -> str:
    """One line about a curve over sizes."""
    name, unit = ("miou", " %") if "miou" in rows[0] else ("agreement", "")
    words = "k-NN segmentation" if name == "miou" else "agreement of patch similarities with the smallest size"
    digits = 1 if unit else 2
    return f"{words} by input side: " + ", ".join(f"{row['px']} px {row[name]:.{digits}f}{unit}" for row in rows)
