"""What pretraining learns: the same runs for several seeds, scored against their own random start and as a table.

    python benchmarks/learning.py TRAIN VAL --steps 1200 --seeds 0 1 2 --out runs/learning [-- any pretrain field]

TRAIN and VAL: folders or .tar files with one folder per class. Training sees TRAIN without labels; all of TRAIN is
the gallery. k-NN: the best of k 5, 10, 20 and raw, centred, standardised, chosen on VAL as for every baseline in
benchmarks/baselines.py. Linear: the penalty is chosen on a fifth of TRAIN. CLS, and patch tokens pooled to 3 x 3. The
last weights are scored, not the best ones. Paired: trained minus own start over the same queries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from opendino import load, pretrain
from opendino.data.sources import Source, open_source
from opendino.evaluation.knn import READOUTS, score_knn
from opendino.evaluation.linear import score_linear
from opendino.evaluation.metrics.interval import bootstrap, paired_bootstrap
from opendino.features.extract import Bank, extract


def score(tokens: str, probe: str, bank: Bank, queries: Bank) -> tuple[NDArray[np.bool_], str]:
    """Right-or-wrong answers per query, and the setting that gave them. tokens: cls, pooled; probe: k-NN, linear."""
    train, test = getattr(bank, tokens), getattr(queries, tokens)
    if probe == "linear":
        linear = score_linear(train, bank.labels, test, queries.labels)
        return linear.correct, f"penalty {linear.penalty:g}"
    knn = score_knn(train, bank.labels, test, queries.labels, ks=(5, 10, 20), readouts=READOUTS)
    best = max(knn, key=lambda one: one.percent)
    return best.correct, f"{best.readout}, k {best.k}"


def compare(run: Path, train: Source, val: Source, *, pooled_linear: bool = False) -> Iterator[tuple[str, str]]:
    """Name and words of each score of a run's last weights beside its own random start.

    pooled_linear: also a linear probe on 3 x 3 tokens, ten minutes of a core on 14,000 pictures.
    """
    models: list[Any] = [load(run / name) for name in ("model-start", "model")]
    banks = [[extract(model, source, model.transform) for source in (train, val)] for model in models]
    wanted = [("cls", "k-NN"), ("cls", "linear"), ("pooled", "k-NN")] + [("pooled", "linear")] * pooled_linear
    for tokens, probe in wanted:
        (before, _), (after, setting) = (score(tokens, probe, *pair) for pair in banks)
        start, end, gain = bootstrap(100 * before), bootstrap(100 * after), paired_bootstrap(100 * before, 100 * after)
        yield (
            f"{tokens} {probe}",
            f"{start.value:5.1f} [{start.low:.1f}, {start.high:.1f}] -> "
            f"{end.value:5.1f} [{end.low:.1f}, {end.high:.1f}]"
            f"  paired {gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]  ({setting})",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model")
    parser.add_argument("--pooled-linear", action="store_true", help="also a linear probe on 3 x 3 tokens (slow)")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    arguments, fields = parser.parse_known_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.steps} steps, fields {fields}")
    train, val = open_source(arguments.train), open_source(arguments.val)
    for seed in arguments.seeds:
        out = arguments.out / f"{arguments.model or 'default'}-{arguments.steps}-{seed}"
        result = pretrain(
            arguments.train,
            val=arguments.val,
            steps=arguments.steps,
            model=arguments.model,
            out=out,
            fields=["--seed", str(seed), "--data.seed", str(seed), *(field for field in fields if field != "--")],
        )
        batch = json.loads((out / "config.json").read_text())["data"]["batch_size"]
        seen = result.steps * batch
        print(f"seed {seed}: {seen:,} pictures, {seen / result.seconds:.0f} a second; {result.verdict}")
        for name, words in compare(out, train, val, pooled_linear=arguments.pooled_linear):
            print(f"seed {seed} {name:14} {words}", flush=True)


if __name__ == "__main__":
    main()
