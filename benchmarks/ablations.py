"""What each setting of the small recipe is worth: the tile task of the demo with one thing changed at a time.

    python benchmarks/ablations.py --steps 640 --seeds 0 --out runs/ablations [--only "no KoLeo" ...]

Every row starts from the settings of `opendino demo`. k-NN as there: the best of k 5, 10, 20 and raw, centred,
standardised. Paired: the row minus the unchanged run of the same seed, over the same queries (no seed noise in it).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from opendino import load, pretrain
from opendino.cli.demo import INVARIANCE, KS, WATCHING
from opendino.data.sources import open_source
from opendino.evaluation.knn import READOUTS, score_knn
from opendino.evaluation.metrics.interval import bootstrap, paired_bootstrap
from opendino.evaluation.tiles import build_tiles, write_tiles
from opendino.features.extract import extract

BASE = "unchanged"
CHANGES = {
    BASE: "",
    "AdamW alone": "--optim.muon-lr 0",
    "no channel gains": "--data.color.channel-gain 0",
    "no spread of targets": "--method.target-spread 0",
    "no BatchNorm in the head": "--method.head-batch-norm False",
    "prototypes of free length": "--method.unit-prototypes False",
    "no KoLeo": "--method.koleo-weight 0",
    "KoLeo 0.2 instead of 0.05": "--method.koleo-weight 0.2",
    "no local crops": "--data.crops.num-locals 0",
    "4 local crops instead of 2": "--data.crops.num-locals 4",
    "32 prototypes instead of 128": "--method.prototypes 32",
    "512 prototypes": "--method.prototypes 512",
    "512 prototypes and a queue of 1,024": "--method.prototypes 512 --method.queue 1024",
    "EMA 0.9 from the start": "--method.momentum 0.9",
    "EMA 0.995 from the start": "--method.momentum 0.995",
    "no KoLeo, EMA 0.9": "--method.koleo-weight 0 --method.momentum 0.9",
    "no KoLeo, EMA 0.9, no local crops": "--method.koleo-weight 0 --method.momentum 0.9 --data.crops.num-locals 0",
    "batch 64, the same number of tiles": "--data.batch-size 64 --method.koleo-group 64",
}


def answers(model_dir: Path, tiles: Path) -> NDArray[np.bool_]:
    """Right or wrong for every query, at the best of the nine settings."""
    network: Any = load(model_dir)
    bank, queries = (extract(network, open_source(tiles / part), network.transform) for part in ("train", "queries"))
    scores = score_knn(bank.cls, bank.labels, queries.cls, queries.labels, ks=KS, readouts=READOUTS)
    return max(scores, key=lambda score: score.percent).correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=640, help="of 32 tiles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), metavar="ROW", default=list(CHANGES))
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.steps} steps of 32 tiles")
    for seed in arguments.seeds:
        tiles = arguments.out / f"tiles-{seed}"
        write_tiles(build_tiles(seed, None), tiles)
        base = None
        for name in [BASE, *(name for name in arguments.only if name != BASE)]:
            change = CHANGES[name].split()
            result = pretrain(
                tiles / "train",
                val=tiles / "queries",
                steps=arguments.steps // 2 if "--data.batch-size" in change else arguments.steps,
                out=arguments.out / f"{name.replace(' ', '-')}-{arguments.steps}-{seed}",
                fields=["--seed", str(seed), "--data.seed", str(seed), *INVARIANCE, *WATCHING, *change],
                quiet=True,
            )
            correct = answers(result.model, tiles)
            base = correct if base is None else base
            score, gain = bootstrap(100 * correct), paired_bootstrap(100 * base, 100 * correct)
            print(
                f"seed {seed} | {name} | {score.value:.1f} [{score.low:.1f}, {score.high:.1f}] | "
                f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}] | {result.seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
