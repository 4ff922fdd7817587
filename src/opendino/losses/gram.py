"""Gram anchoring: the student's patch-to-patch similarities stay near those of an older, denser teacher."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.errors import ShapeError

GramLevel = Literal["image", "batch"]
Negatives = Literal["keep", "drop", "drop_teacher"]


def gram_loss(
    student: Tensor,
    anchor: Tensor,
    *,
    level: GramLevel = "image",
    negatives: Negatives = "keep",
    chosen: Tensor | None = None,
) -> Tensor:
    """Mean squared difference of two matrices of cosines between patches.

    L = mean_{i,j} (x_i . x_j - y_i . y_j)^2 with x, y the L2-normalised patches of student and anchor. The paper writes
    the sum (a squared Frobenius norm); the published weight of 2 belongs to the mean, which does not grow with the
    number of patches. An anchor on a finer grid is resized to the student's before its patches are normalised: bicubic,
    corners not aligned, no antialias, so that what a larger picture shows smooths what the student learns.

    Args:
        student: [B, h, w, D] patches after the final norm; any float dtype, computed in fp32 whatever autocast says.
        anchor: [B, H, W, E] the Gram teacher's patches of the same crops, no gradient; H >= h, W >= w, E may differ
            from D.
        level: image: one h*w square matrix an image; batch: one over all patches of the batch, (B*h*w)^2 numbers.
        negatives: keep; drop: cosines below 0 count as 0 on both sides; drop_teacher: on the anchor's side only, so
            the student is asked for 0 there.
        chosen: [B, h, w] bool, the patches that count (the masked or the visible ones); level batch only, since images
            have different numbers of them.
    Returns:
        fp32 scalar in [0, 4]; 0 when all cosines agree, or when no patch is chosen.
    Raises:
        ShapeError: B differs, the anchor's grid is coarser, or `chosen` with level image.
    Source: arXiv 2508.10104, section 4.
    """
    if student.shape[0] != anchor.shape[0]:
        raise ShapeError("gram_loss", f"{student.shape[0]} images of the student, {anchor.shape[0]} of the anchor")
    grid, finer = student.shape[1:3], anchor.shape[1:3]
    if finer[0] < grid[0] or finer[1] < grid[1]:
        cause = f"the anchor's grid {finer[0]}x{finer[1]} is coarser than the student's {grid[0]}x{grid[1]}"
        raise ShapeError("gram_loss", cause, "give the Gram teacher crops that are at least as large")
    if chosen is not None and level == "image":
        raise ShapeError("gram_loss", "chosen patches need level batch", "images have different numbers of them")
    with torch.autocast(student.device.type, enabled=False):
        anchor = anchor.detach().float()
        if finer != grid:
            maps = F.interpolate(anchor.permute(0, 3, 1, 2), size=tuple(grid), mode="bicubic", align_corners=False)
            anchor = maps.permute(0, 2, 3, 1)
        x, y = student.float().flatten(1, 2), anchor.flatten(1, 2)
        if level == "batch":
            x, y = x.flatten(0, 1)[None], y.flatten(0, 1)[None]
            if chosen is not None:
                x, y = x[:, chosen.flatten()], y[:, chosen.flatten()]
                if not x.shape[1]:
                    return student.new_zeros((), dtype=torch.float32)
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
        ours, theirs = x @ x.mT, y @ y.mT
        if negatives == "drop":
            ours = ours.clamp_min(0)
        if negatives != "keep":
            theirs = theirs.clamp_min(0)
        return (ours - theirs).square().mean()
