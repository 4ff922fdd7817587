"""What the heads of a teacher are worth as targets: how sharp, how many prototypes, how steady over views."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.monitor.health import entropy


@dataclass(frozen=True)
class HeadQuality:
    """Of two views of each picture (or patch).

    entropy: mean of the targets, in nats, at most max_entropy = ln K. usage: share of the prototypes that some view
    chooses. agreement: share of pictures whose two views choose the same prototype; chance: what would agree if choices
    did not depend on the picture. images: pictures.
    """

    entropy: float
    max_entropy: float
    usage: float
    agreement: float
    chance: float
    images: int

    def __str__(self) -> str:
        prototypes = round(math.exp(self.max_entropy))
        return (
            f"targets of {self.entropy:.1f} of {self.max_entropy:.1f} nats, {round(self.usage * prototypes)} of "
            f"{prototypes} prototypes in use, two views choose the same one in {100 * self.agreement:.0f} % "
            f"(chance {100 * self.chance:.0f} %), {self.images:,} samples"
        )


def measure_heads(first: Tensor, second: Tensor) -> HeadQuality:
    """From targets [N, K] of two views of the same N pictures, rows summing to 1; N at least 1."""
    both = torch.cat([first, second]).float()
    choices = both.argmax(dim=1)
    shares = torch.bincount(choices, minlength=both.shape[1]).float() / len(choices)
    one, other = choices.chunk(2)
    return HeadQuality(
        entropy=float(entropy(both).mean()),
        max_entropy=math.log(both.shape[1]),
        usage=float((shares > 0).float().mean()),
        agreement=float((one == other).float().mean()),
        chance=float(shares.square().sum()),
        images=len(first),
    )
