"""How things are timed here: CPU time of one thread, interleaved in shuffled order, medians, ratios with intervals.

Wall-clock times of a shared machine say nothing; the CPU time of one thread stays within a few per cent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int = 9, seed: int = 0) -> dict[str, list[float]]:
    """CPU seconds of each call in each round; every round runs all of them once, in an order of its own."""
    torch.set_num_threads(1)
    for call in calls.values():
        call()
    order, generator = list(calls), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            start = time.process_time()
            calls[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def ratio(ours: list[float], other: list[float], seed: int = 0) -> str:
    """Median of other / ours over rounds ("how many times faster we are") with a bootstrap 95 % interval."""
    pairs = [b / a for a, b in zip(ours, other, strict=True)]
    generator = random.Random(seed)
    drawn = sorted(median(generator.choices(pairs, k=len(pairs))) for _ in range(2000))
    return f"{median(pairs):.2f} [{drawn[50]:.2f}, {drawn[1949]:.2f}]"


def gemm(size: int = 768) -> tuple[Callable[[], object], float]:
    """A matrix product in fp32 and its FLOP: what the core can do at most, in the same minute."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return (lambda: [a @ b for _ in range(8)]), 8 * 2.0 * size**3
