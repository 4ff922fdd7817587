"""AdamW whose matrices may take Muon's step: momentum, orthogonalised, so that all its directions count alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration that drives singular values to about 1; those of the source."""
ITERATIONS = 5


class MuonAdamW(torch.optim.AdamW):
    """Groups with `orthogonal` True take Muon's update, all others AdamW's.

    Muon: m <- m + (1 - 0.95) (g - m); W <- (1 - lr wd) W - lr max(1, rows / columns)^(1/2) U with U the orthogonalised
    g + 0.95 (m - g); a convolution counts as the matrix [out, in * k * k]. Worth it in short runs:
    34 -> 49 % on the demo's tiles (LOG.md).
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; not of the DINOv3 paper.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients at hand."""
        every = self.param_groups
        for group in every:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._orthogonal_step(parameter, group["lr"], group["weight_decay"])
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = every

    def _orthogonal_step(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient, momentum = parameter.grad, state["momentum"]
        assert gradient is not None
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalise(gradient.lerp(momentum, MOMENTUM).flatten(1))
        rows, columns = update.shape
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(update.view_as(parameter), alpha=-lr * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor) -> Tensor:
    """[m, n] -> the same singular vectors with singular values near 1 (0.7 to 1.2); zero stays zero."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    # Each turn multiplies x by a polynomial of its Gram matrix; collecting the polynomials and multiplying x once
    # leaves small square products alone, half the work where a convolution has nine times as many columns as channels.
    gram = x @ x.T
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = identity
    for turn in range(ITERATIONS):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        if turn + 1 < ITERATIONS:
            gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
