"""Do the similarities between patches of a picture stay the same at another input size?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.errors import ShapeError


def likeness_agreement(patches: Tensor, reference: Tensor) -> float:
    """Mean over pictures of the correlation of patch-to-patch cosines at two input sizes, in [-1, 1].

    The finer map is averaged over the cells of the coarser grid first, so both have the same pairs; a patch's cosine
    with itself is left out. 1 when a picture's parts are alike in the same way at both sizes. It tells of stability
    alone: a network that answers by position or brightness has it too.

    Args:
        patches: [B, h, w, D]; reference: [B, H, W, E] of the same pictures, h and w at least H and W.
    Raises:
        ShapeError: another number of pictures, or a grid coarser than the reference's or of fewer than 3 patches.
    """
    grid = (reference.shape[1], reference.shape[2])
    if len(patches) != len(reference) or patches.shape[1] < grid[0] or patches.shape[2] < grid[1]:
        raise ShapeError(
            "agreement of patches", f"{list(patches.shape)} cannot be brought to the grid of {list(reference.shape)}"
        )
    num = grid[0] * grid[1]
    if num < 3:
        raise ShapeError("agreement of patches", f"{num} patches have too few pairs", "take a larger input")
    reduced = F.adaptive_avg_pool2d(patches.double().permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1)
    apart = ~torch.eye(num, dtype=torch.bool)

    def centred(tokens: Tensor) -> Tensor:
        units = F.normalize(tokens.flatten(1, 2), dim=-1)
        cosines = (units @ units.mT)[:, apart]
        return cosines - cosines.mean(dim=1, keepdim=True)

    return float(F.cosine_similarity(centred(reduced), centred(reference.double()), dim=1).mean())
