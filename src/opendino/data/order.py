"""The order of pictures: a pure function of (seed, position), so that resuming needs only an integer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from opendino.errors import UsageError

if TYPE_CHECKING:
    import grain

# grain permutes 32-bit numbers, one epoch at a time.
MAX_LENGTH = 2**32


def _grain_map(length: int, seed: int) -> grain.MapDataset:
    # grain warns through absl that no JAX profiler is there; nobody here has asked for one.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import grain
    finally:
        logging.disable(disabled)
    # grain adds the epoch to the seed: hashed first, so that seed 1 is not seed 0 one epoch later.
    mixed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return grain.MapDataset.range(length).shuffle(seed=mixed).repeat()


class Order:
    """Which picture stands at which position of an endless run over a source.

    Positions [e * length, (e + 1) * length) are epoch e: a permutation of all indices, another one in each epoch.
    Takes the same memory and time at any length and position.

    Args:
        length: pictures in the source, 1 to 2^32.
        seed: 0 or more.
    Raises:
        UsageError: length or seed is outside its range.
    """

    def __init__(self, length: int, seed: int) -> None:
        if not 1 <= length <= MAX_LENGTH:
            raise UsageError("order", f"length must be from 1 to {MAX_LENGTH}, got {length}")
        if seed < 0:
            raise UsageError("data.seed", f"must be 0 or more, got {seed}")
        self.length = length
        self.seed = seed
        # Here and not at the first call: importing grain beside a thread that draws progress was seen to break both.
        self._map = _grain_map(length, seed)

    def __call__(self, position: int) -> int:
        """Index into the source, 0 to length - 1, for any position from 0 on."""
        if position < 0:
            raise UsageError("order", f"position must be 0 or more, got {position}")
        return int(self._map[position])

    def __getstate__(self) -> dict[str, int]:
        return {"length": self.length, "seed": self.seed}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)  # type: ignore[misc]
