"""k-NN of 1,000 queries over a bank of ImageNet's size on disk: seconds and peak memory, read through a memory map.

python benchmarks/knn_memory.py --rows 1281167 --dim 1024 --file /path/on/a/disk/bank.f16
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from opendino.evaluation.knn import nearest


def main() -> None:
    """Write the bank if it is not there, search it, print both numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args()
    shape = (options.rows, options.dim)
    if not options.file.exists() or options.file.stat().st_size != 2 * options.rows * options.dim:
        written = np.memmap(options.file, np.float16, "w+", shape=shape)
        generator = np.random.default_rng(0)
        for start in range(0, options.rows, 16_384):
            part = written[start : start + 16_384]
            part[:] = generator.standard_normal(part.shape, np.float32)
        written.flush()
        del written, part
    bank = torch.from_numpy(np.memmap(options.file, np.float16, "r+", shape=shape))
    queries = bank[:: max(1, options.rows // options.queries)][: options.queries].clone()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    values, _ = nearest(bank, queries, 200, "raw")
    seconds = time.monotonic() - started
    assert float(values[:, 0].min()) > 0.99, "every query is in the bank"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Pages of the mapped file count as resident although the system may drop them at any time.
    print(
        f"{len(queries):,} queries, {shape[0]:,} x {shape[1]} fp16 ({2 * shape[0] * shape[1] / 2**30:.2f} GiB on disk)"
    )
    print(f"{seconds:.1f} s; peak resident {peak / 2**20:.2f} GiB, {before / 2**20:.2f} GiB before")


if __name__ == "__main__":
    main()
