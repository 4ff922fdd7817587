"""What the loop asks of a way of training; later stages are other methods, never another loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from opendino.data.loader import Crops
from opendino.monitor.health import Probe


@dataclass(frozen=True)
class LossTerms:
    """total: the weighted sum to call backward on; values: each term unweighted, detached, by name."""

    total: Tensor
    values: Mapping[str, Tensor]


class Method(Protocol):
    """Knows nothing of ranks, files or the clock; its `state_dict` holds everything that a resume needs."""

    def trained(self) -> Mapping[str, nn.Module]:
        """Modules with gradients, by name; each is clipped on its own."""
        ...

    def losses(self, crops: Crops, step: int) -> Iterator[LossTerms]:
        """One LossTerms per micro-batch; their totals and values add up to those of the whole batch."""
        ...

    def after_step(self, step: int) -> None:
        """EMA and refreshes, after the optimizer has stepped."""
        ...

    def scalars(self, step: int) -> Mapping[str, float]:
        """Scheduled numbers worth a line in the log."""
        ...

    def probe(self, images: Tensor) -> Probe:
        """What health looks at, on a fixed batch [B, 3, H, W], normalised."""
        ...

    def export(self) -> nn.Module:
        """The backbone that a user loads afterwards, in eval mode."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """All tensors, trained or not."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object:
        """Takes back what `state_dict` gave; strict."""
        ...
