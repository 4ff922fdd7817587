"""PCA maps: the three strongest directions of patch features as red, green and blue, on one basis for all pictures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.errors import ShapeError
from opendino.pages.sheet import picture_sheet

__all__ = ["Basis", "colour", "fit", "pca_maps", "picture_sheet"]

PERCENT = 1.5
"""This share of patches at each end of a component is clipped, so that a few odd patches do not wash out the rest."""

MIN_SPAN = 1e-3
"""Smallest spread (patches have length 1) that is stretched to full colour: a collapsed model draws flat grey, not
rounding noise."""


@dataclass(frozen=True)
class Basis:
    """How patches become colours. Patches are scaled to length 1 first, as k-NN sees them.

    mean: [D]; components: [3, D] rows of length 1, red, green, blue; low, high: [3] scores drawn as 0 and 255;
    scores: [n, 3] of the patches it was fitted on, in order: what a later basis is aligned to;
    background: None, or (direction [D], threshold): patches with `direction @ patch` below it are drawn black.
    All float32 on the CPU.
    """

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor
    scores: Tensor
    background: tuple[Tensor, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, so that a resumed run keeps its colours."""
        fields: dict[str, Any] = {
            name: getattr(self, name).tolist() for name in ("mean", "components", "low", "high", "scores")
        }
        fields["background"] = self.background and [self.background[0].tolist(), self.background[1]]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Basis:
        """The inverse of `to_dict`."""
        background = fields["background"]
        mean, components, low, high, scores = (
            torch.tensor(fields[name]) for name in ("mean", "components", "low", "high", "scores")
        )
        threshold = background and (torch.tensor(background[0]), float(background[1]))
        return cls(mean, components, low, high, scores, threshold)


def pca_maps(patches: Tensor, basis: Basis | None = None, foreground: bool = False) -> tuple[np.ndarray, Basis]:
    """Colour the patches of several pictures by their three principal components.

    The basis is fitted on these patches. An earlier `basis` (of the same pictures, or of the same feature space) only
    decides order and signs of the components, so that pictures of a training run keep their colours where they can.
    To colour with an old basis unchanged use `colour`.

    Args:
        patches: [B, h, w, D], any float dtype and device. Non-finite values count as 0.
        basis: of an earlier call.
        foreground: paint the background black and give the colours to the foreground alone; see `fit`.
    Returns:
        uint8 [B, h, w, 3], and the new basis.
    Raises:
        ShapeError: not four dimensions.
    """
    if patches.ndim != 4:
        raise ShapeError("patches", f"must be [B, h, w, D], got {list(patches.shape)}", "keep the grid of the patches")
    fitted = fit(list(patches), basis, foreground)
    return np.stack([colour(picture, fitted) for picture in patches]), fitted


def fit(pictures: Sequence[Tensor], previous: Basis | None = None, foreground: bool = False) -> Basis:
    """One basis over pictures whose grids may differ.

    Foreground: the first component over all patches is cut in two at Otsu's threshold; the side that touches the
    picture borders less is the foreground, and the colours are fitted on it alone. It is a guess that suits pictures
    of single objects.

    Args:
        pictures: each [h, w, D].
        previous: gives order and signs; by the correlation of the scores where the number of patches is the same, else
            by the directions themselves where D is the same, else not used.
    """
    tokens = torch.cat([_unit(picture).flatten(0, 1) for picture in pictures])
    background = None
    if foreground:
        border = torch.cat([_border(picture.shape[0], picture.shape[1]).flatten() for picture in pictures])
        background = _background(tokens, border)
        kept = tokens @ background[0] >= background[1]
        # Fewer patches than components say nothing about colours: then all patches take part.
        fitted_on = tokens[kept] if int(kept.sum()) > 3 else tokens
    else:
        fitted_on = tokens
    mean, components = _principal(fitted_on, 3)
    scores = (tokens - mean) @ components.T
    order, signs = _alignment(components, scores, previous)
    components, scores = components[order] * signs[:, None], scores[:, order] * signs
    visible = (fitted_on - mean) @ components.T
    ends = torch.quantile(visible, torch.tensor([PERCENT / 100, 1 - PERCENT / 100]), dim=0)
    middle, half = ends.mean(0), ((ends[1] - ends[0]) / 2).clamp(min=MIN_SPAN / 2)
    return Basis(mean, components, middle - half, middle + half, scores, background)


def colour(patches: Tensor, basis: Basis) -> np.ndarray:
    """[h, w, D] patches in a given basis -> uint8 [h, w, 3]."""
    tokens = _unit(patches)
    scores = (tokens - basis.mean) @ basis.components.T
    shades = ((scores - basis.low) / (basis.high - basis.low)).clamp(0, 1)
    if basis.background is not None:
        direction, threshold = basis.background
        shades[tokens @ direction < threshold] = 0
    return (shades * 255).round().to(torch.uint8).numpy()


def _unit(patches: Tensor) -> Tensor:
    return F.normalize(patches.detach().float().cpu().nan_to_num(0, 0, 0), dim=-1)


def _principal(tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean [D] and the `count` strongest directions [count, D], zeros where the data has fewer.

    Signs: the entry of largest magnitude is positive. Exact and without random numbers, since it runs inside training.
    """
    mean = tokens.mean(0)
    centred = (tokens - mean).double()
    n, dim = centred.shape
    found = min(count, n, dim)
    components = torch.zeros(count, dim)
    if n >= dim:
        rows = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)[:found]
    else:
        rows = F.normalize(torch.linalg.eigh(centred @ centred.T).eigenvectors.T.flip(0)[:found] @ centred, dim=1)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    components[:found] = (rows * torch.where(largest < 0, -1.0, 1.0)).float()
    return mean, components


def _alignment(components: Tensor, scores: Tensor, previous: Basis | None) -> tuple[list[int], Tensor]:
    """Order and signs of the new components that agree most with the previous ones."""
    if previous is not None and previous.scores.shape == scores.shape:
        agreement = _correlation(scores, previous.scores)
    elif previous is not None and previous.components.shape == components.shape:
        agreement = components @ previous.components.T
    else:
        agreement = torch.eye(3)
    order = max(
        itertools.permutations(range(3)),
        key=lambda choice: sum(abs(float(agreement[new, old])) for old, new in enumerate(choice)),
    )
    signs = torch.tensor([-1.0 if float(agreement[new, old]) < 0 else 1.0 for old, new in enumerate(order)])
    return list(order), signs


def _correlation(new: Tensor, old: Tensor) -> Tensor:
    """[n, 3] and [n, 3] -> [3, 3] correlations; 0 where a column is constant."""
    new, old = (F.normalize(scores - scores.mean(0), dim=0) for scores in (new, old))
    return new.T @ old


def _border(height: int, width: int) -> Tensor:
    border = torch.ones(height, width, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    return border


def _background(tokens: Tensor, border: Tensor) -> tuple[Tensor, float]:
    """Direction and threshold of the foreground: `direction @ patch >= threshold`."""
    mean, components = _principal(tokens, 1)
    scores = (tokens - mean) @ components[0]
    cut = _otsu(scores)
    above = scores >= cut
    border_share_above = float(border[above].float().mean()) if above.any() else 1.0
    border_share_below = float(border[~above].float().mean()) if (~above).any() else 1.0
    sign = 1.0 if border_share_above <= border_share_below else -1.0
    direction = components[0] * sign
    return direction, sign * cut + float(mean @ direction)


def _otsu(values: Tensor) -> float:
    """The cut that leaves the least variance inside the two halves (Otsu 1979), over all cuts between sorted values."""
    ordered = values.double().sort().values
    n = len(ordered)
    if n < 2:
        return float(ordered[0])
    below = torch.arange(1, n, dtype=torch.float64)
    sums = ordered.cumsum(0)
    mean_below, mean_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / (n - below)
    best = int((below * (n - below) * (mean_below - mean_above) ** 2).argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)
