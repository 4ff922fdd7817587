"""Cross-entropy over very many prototypes, and its targets, without ever holding all logits at once.

With 98,304 prototypes the logits of some thousand masked patches are gigabytes, four times over (student, softmax,
gradient, teacher). Here rows pass in chunks: memory is one chunk, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from opendino.losses.sinkhorn import balance_, identity, prototype_offsets

CHUNK_ELEMENTS = 2**26
"""Logits of a chunk: 268 MB in fp32."""
MAX_CHUNK_ROWS = 1024

Targets = Callable[[slice], Tensor]
"""Gives the target rows [n, K] of a slice of samples: a tensor's `__getitem__`, or what makes them when asked."""


def prototype_loss(
    features: Tensor, prototypes: Tensor, targets: Targets, weights: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Weighted sum of cross-entropies between targets and the student's assignment to prototypes.

    L = - sum_i w_i sum_k t[i,k] log softmax_k(x_i . c_k / temperature).

    Loss and gradients are made in one pass over chunks of rows in the forward: a chunk's logits are used for both and
    dropped, so nothing is computed twice and the backward only scales what is there.

    Args:
        features: [M, b] student features before the last layer; M may be 0. Under autocast products are in its dtype.
        prototypes: [K, b] rows of the last layer.
        targets: rows of targets [n, K] for a slice of the M samples; each sums to 1.
        weights: [M] the w_i.
    Returns:
        fp32 scalar.
    """
    return _PrototypeLoss.apply(features, prototypes, targets, weights, temperature)


class _PrototypeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, prototypes: Tensor, targets: Targets, weights: Tensor, temperature: float
    ) -> Tensor:
        rows, columns = _operands(features / temperature, prototypes)
        total = torch.zeros((), device=features.device)
        to_features = torch.zeros_like(features)
        to_prototypes = torch.empty_like(prototypes) if len(rows) else torch.zeros_like(prototypes)
        with torch.autocast(features.device.type, enabled=False):
            for part, scores in _scored_chunks(rows, columns):
                wanted, weight = targets(part), weights[part].float()
                # -log p = log sum exp - score; dot products row by row, without a tensor of their factors.
                agreement = torch.bmm(wanted[:, None, :], scores[:, :, None]).flatten()
                highest = scores.amax(dim=1, keepdim=True)
                mass = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
                total += ((highest + mass.log()).flatten() - agreement) @ weight
                # d L / d score = w (softmax - target)
                slope = scores.mul_(weight[:, None] / mass).addcmul_(wanted, weight[:, None], value=-1)
                slope = slope.to(rows.dtype)
                to_features[part] = slope @ columns / temperature
                first = part.start == 0
                if slope.dtype == to_prototypes.dtype:
                    to_prototypes.addmm_(slope.T, rows[part], beta=0 if first else 1)
                elif first:
                    to_prototypes.copy_(slope.T @ rows[part])
                else:
                    to_prototypes += slope.T @ rows[part]
        ctx.save_for_backward(to_features, to_prototypes)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        # In place: autograd refuses a second backward pass through what this one has changed.
        to_features, to_prototypes = ctx.saved_tensors
        return to_features.mul_(slope), to_prototypes.mul_(slope), None, None, None


@dataclass(frozen=True)
class BalancedTargets:
    """Sinkhorn's targets of N samples, made row by row when asked for.

    features: [N, b] teacher features before the last layer, over the temperature; prototypes: [K, b]; offsets: [K] of
    `sinkhorn.prototype_offsets`; scores: [N, K] where they are one chunk, else None and computed anew for each use.
    """

    features: Tensor
    prototypes: Tensor
    offsets: Tensor
    scores: Tensor | None

    @torch.no_grad()
    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Targets of the samples that a slice or an index tensor [n] names: fp32 [n, K]."""
        if self.scores is not None:
            return balance_(self.scores[index].to(torch.float32, copy=True), self.offsets)
        return balance_((self.features[index] @ self.prototypes.T).float(), self.offsets)


@torch.no_grad()
def balanced_targets(
    features: Tensor,
    prototypes: Tensor,
    temperature: float,
    *,
    all_sum: Callable[[Tensor], Tensor] = identity,
    all_max: Callable[[Tensor], Tensor] = identity,
) -> BalancedTargets:
    """Balance the assignment of teacher features to prototypes as `sinkhorn` does, in memory for one chunk of logits.

    Logits of more than one chunk are computed anew in each round and for each use. That costs less than to hold them
    all: memory that is filled but once takes as long as the product that fills it (LOG.md).

    Args:
        features: [N, b], N >= 1; prototypes: [K, b]. Under autocast products are in its dtype.
        all_sum, all_max: as for `sinkhorn`.
    """
    rows, columns = _operands(features / temperature, prototypes)
    with torch.autocast(features.device.type, enabled=False):
        kept = rows @ columns.T if len(rows) <= _chunk_rows(columns) else None

        def chunks() -> Iterator[Tensor]:
            if kept is not None:
                yield kept.to(torch.float32, copy=True)
            else:
                yield from (scores for _, scores in _scored_chunks(rows, columns))

        offsets = prototype_offsets(chunks, all_sum=all_sum, all_max=all_max)
    return BalancedTargets(rows, columns, offsets, kept)


def _operands(features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides of the product in the dtype that a linear layer would compute it in here."""
    device = features.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        return features.to(dtype), prototypes.to(dtype)
    return features, prototypes.to(features.dtype)


def _chunk_rows(columns: Tensor) -> int:
    return min(MAX_CHUNK_ROWS, max(1, CHUNK_ELEMENTS // len(columns)))


def _scored_chunks(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows with their products with all columns, fp32 [n, K].

    All chunks come in the same memory, for the caller to overwrite.
    """
    size = min(_chunk_rows(columns), len(rows))
    memory = torch.empty(size, len(columns), dtype=torch.float32, device=rows.device)
    for start in range(0, len(rows), max(size, 1)):
        part = slice(start, min(start + size, len(rows)))
        scores = memory[: part.stop - start]
        if rows.dtype == scores.dtype:
            torch.mm(rows[part], columns.T, out=scores)
        else:
            scores.copy_(rows[part] @ columns.T)
        yield part, scores
