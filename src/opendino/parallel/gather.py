"""The processes of a torchrun launch that share a list of work: who am I, and collect what each one made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number and how many there are. One process needs no process group."""

    rank: int = 0
    world: int = 1

    def gather(self, value: T) -> list[T]:
        """Everyone's value in the order of the ranks on rank 0; an empty list elsewhere. Values are pickled."""
        if self.world == 1:
            return [value]
        values: list[T | None] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(value, values)
        return [one for one in values or [] if one is not None]

    def share(self, value: T | None) -> T:
        """Rank 0's value on every rank."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box)
        assert box[0] is not None
        return box[0]


@contextmanager
def launched_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started, or this process alone. Values travel over gloo: they lie on the CPU."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=timedelta(hours=1))
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
