"""Scores without learning, as a table: pixels, colour, HOG, by k-NN and by a linear probe, with 95 % intervals.

    python benchmarks/baselines.py                        the tile task of the demo (needs scikit-image, scikit-learn)
    python benchmarks/baselines.py TRAIN VAL --side 64    two folders or .tar files with one folder per class

k-NN: all of TRAIN as gallery, the best of k 5, 10, 20 and of raw, centred, standardised features, chosen on VAL, which
favours the baseline by up to a point. Linear: penalty chosen on a fifth of TRAIN.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from opendino.data.sources import open_source
from opendino.evaluation.baselines import baseline_features, read_pictures
from opendino.evaluation.knn import READOUTS, score_knn
from opendino.evaluation.linear import score_linear
from opendino.evaluation.metrics.interval import bootstrap
from opendino.evaluation.probes import labels_of
from opendino.evaluation.tiles import build_tiles


def cell(correct: np.ndarray) -> str:
    estimate = bootstrap(100 * correct)
    return f"{estimate.value:5.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--side", type=int, default=64, help="pictures are squeezed to this side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the tiles")
    parser.add_argument("--no-linear", action="store_true", help="k-NN only")
    arguments = parser.parse_args()
    start = time.process_time()
    if arguments.folders:
        sources = [open_source(folder) for folder in arguments.folders]
        train, queries = (read_pictures(source, arguments.side) for source in sources)
        train_labels, query_labels = (torch.from_numpy(labels_of(source)) for source in sources)
    else:
        task = build_tiles(arguments.seed)
        train, queries = task.bank, task.queries
        train_labels, query_labels = torch.from_numpy(task.bank_labels), torch.from_numpy(task.query_labels)
    print(f"{len(train)} train, {len(queries)} queries, torch {torch.__version__}, {torch.get_num_threads()} threads")
    bank_features, query_features = baseline_features(train), baseline_features(queries)
    print(f"pictures and features: {time.process_time() - start:.1f} s of CPU")
    for name, bank in bank_features.items():
        start = time.process_time()
        scores = score_knn(bank, train_labels, query_features[name], query_labels, ks=(5, 10, 20), readouts=READOUTS)
        best = max(scores, key=lambda score: score.percent)
        line = f"{name:18} {bank.shape[1]:5}  k-NN {cell(best.correct)} (k {best.k}, {best.readout})"
        if not arguments.no_linear:
            linear = score_linear(bank, train_labels, query_features[name], query_labels)
            line += f"  linear {cell(linear.correct)} (penalty {linear.penalty:g})"
        print(f"{line}  {time.process_time() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
