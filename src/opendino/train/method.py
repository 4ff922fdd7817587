"""What the loop asks of a way of training; later stages are other methods, never another loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from opendino.data.listing import Skipped
from opendino.monitor.health import Probe


@dataclass(frozen=True)
class LossTerms:
    """total: the weighted sum to call backward on; values: each term unweighted, detached, by name."""

    total: Tensor
    values: Mapping[str, Tensor]


class Batch(Protocol):
    """What the loop itself reads of a batch; what is in it is between the loader and the method."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Names of the samples."""
        ...

    @property
    def bad(self) -> Sequence[Skipped]:
        """Samples that could not be read; others stand in their place."""
        ...


B = TypeVar("B", bound=Batch)
B_in = TypeVar("B_in", bound=Batch, contravariant=True)
B_out = TypeVar("B_out", bound=Batch, covariant=True)


class Batches(Protocol[B_out]):
    """Where batches come from, by step number."""

    def batches(self, start: int, stop: int) -> Iterator[B_out]:
        """The batches of steps start to stop - 1; the same step gives the same batch in any call."""
        ...


class Method(Protocol[B_in]):
    """Knows nothing of ranks, files or the clock; its `state_dict` holds everything that a resume needs."""

    def trained(self) -> Mapping[str, nn.Module]:
        """Modules with gradients, by name; each is clipped on its own."""
        ...

    def losses(self, crops: B_in, step: int, /) -> Iterator[LossTerms]:
        """One LossTerms per micro-batch; their totals and values add up to those of the whole batch."""
        ...

    def after_step(self, step: int) -> None:
        """EMA and refreshes, after the optimizer has stepped."""
        ...

    def scalars(self, step: int) -> Mapping[str, float]:
        """Scheduled numbers worth a line in the log."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """All tensors, trained or not."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object:
        """Takes back what `state_dict` gave; strict."""
        ...


class BackboneMethod(Method[Any], Protocol):
    """A method that makes a backbone out of pictures: what probes and pictures look at besides."""

    def probe(self, images: Tensor) -> Probe:
        """What health looks at, on a fixed batch [B, 3, H, W], normalised."""
        ...

    def export(self) -> nn.Module:
        """The backbone that a user loads afterwards, in eval mode."""
        ...
