"""How much of one model's features another one still agrees with, without labels: neighbours in common, and CKA."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from opendino.data.sources import Source, subset
from opendino.data.transform import Transform
from opendino.errors import ShapeError
from opendino.evaluation.metrics.interval import bootstrap
from opendino.evaluation.results import Result
from opendino.features.extract import Inputs, extract_inputs, read_inputs

NEIGHBOURS = 10
PICTURES = 1_000
"""At most so many are compared, spread evenly over the source."""


def neighbour_agreement(before: Tensor, after: Tensor, k: int = NEIGHBOURS) -> NDArray[np.float64]:
    """Share of a picture's k nearest neighbours that it has in both models, [n] in [0, 1].

    Args:
        before, after: [n, D] and [n, E] features of the same pictures; centred, then compared by cosine.
        k: at most n - 1. Two models that share nothing agree by chance on about k / (n - 1).
    Raises:
        ShapeError: other numbers of pictures, or fewer than 2.
    """
    _check(before, after)
    k = min(k, len(before) - 1)
    found = []
    for features in (before, after):
        units = F.normalize(features.float() - features.float().mean(0), dim=1)
        likeness = units @ units.T
        likeness.fill_diagonal_(-torch.inf)
        # A stable sort: equal features must give the same neighbours on every machine.
        found.append(likeness.sort(dim=1, descending=True, stable=True).indices[:, :k])
    shared = (found[0][:, :, None] == found[1][:, None, :]).any(2).double().mean(1)
    result: NDArray[np.float64] = shared.cpu().numpy()
    return result


def linear_cka(before: Tensor, after: Tensor) -> float:
    """|A^T B|^2 / (|A^T A| |B^T B|) of centred features [n, D] and [n, E], in [0, 1]; 1: one is a turned and scaled
    copy of the other. 0 when all pictures have the same features in one of them.

    Source: Kornblith et al., arXiv 1905.00414, equation 2 and section 3.
    """
    _check(before, after)
    a, b = (features.double() - features.double().mean(0) for features in (before, after))
    scale = (a.T @ a).norm() * (b.T @ b).norm()
    return float((a.T @ b).square().sum() / scale) if scale > 0 else 0.0


def _check(before: Tensor, after: Tensor) -> None:
    if before.ndim != 2 or after.ndim != 2 or len(before) != len(after) or len(before) < 2:
        cause = f"needs features of the same 2 or more pictures, got {list(before.shape)} and {list(after.shape)}"
        raise ShapeError("agreement", cause)


class AgreementProbe:
    """Compares a backbone with the one that training started from, on the same pictures each time.

    Args:
        start: the backbone to compare with; its features are taken once, at the first call.
        pictures: at most PICTURES of them are read.
        transform: what the exported model will use.
    """

    def __init__(
        self, start: nn.Module, pictures: Source, transform: Transform, device: torch.device | str = "cpu"
    ) -> None:
        stride = -(-len(pictures) // PICTURES)
        self._start, self._device = start, device
        self._pictures = subset(pictures, range(0, len(pictures), stride))
        self._transform = transform
        self._inputs: list[Inputs] = []
        self._before: Tensor | None = None

    def __call__(self, model: nn.Module) -> Result:
        """Percent of neighbours in common; CKA stands in `config`."""
        if self._before is None:
            self._inputs = list(read_inputs(self._pictures, self._transform))
            self._before = extract_inputs(self._start, self._inputs, device=self._device, pool=1).cls
        after = extract_inputs(model, self._inputs, device=self._device, pool=1).cls
        # Of few pictures, few are near: chance must stay far below any floor.
        k = max(1, min(NEIGHBOURS, (len(after) - 1) // 5))
        estimate = bootstrap(100 * neighbour_agreement(self._before, after, k))
        return Result(
            protocol="agreement",
            variant="ours",
            dataset="",
            split_hash=self._pictures.fingerprint,
            n=len(after),
            metric="neighbours",
            value=estimate.value,
            interval=(estimate.low, estimate.high),
            config={"k": k, "cka": linear_cka(self._before, after)},
        )
