"""Is a student of a teacher better than the same student that learns alone? At equal pictures and at equal time.

    python benchmarks/distilled.py TRAIN VAL --teacher RUN --student vit_tiny --steps 300 --seeds 0 1 2 [-- any field]

Per seed four runs of the student: alone, by the teacher's heads (`distill`), by its features (`distill_match`), all for
as many steps of as many pictures, and alone for as long as `distill` took (the time of its steps without probes). All
are scored as in benchmarks/learning.py: CLS, last weights, all of TRAIN as gallery, the best setting chosen on VAL for
every row alike. Paired: a distilled student minus the same seed alone, over the same queries.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.learning import score
from opendino import distill, load, pretrain
from opendino.data.sources import Source, open_source
from opendino.evaluation.metrics.interval import bootstrap, paired_bootstrap
from opendino.features.extract import extract
from opendino.monitor.metrics import read_rows

CLOCK = 0.05
"""Relative difference in length that no clock of a shared machine tells."""
RARELY = ("knn", "drift", "picture", "health")
UNWATCHED = [word for what in RARELY for word in (f"--watch.{what}-every", "0.5")]


def answers(model_dir: Path, train: Source, val: Source) -> dict[str, NDArray[np.float64]]:
    """100 or 0 per query of VAL, by k-NN and by a linear probe."""
    model: Any = load(model_dir)
    bank, queries = (extract(model, source, model.transform) for source in (train, val))
    return {probe: 100.0 * score("cls", probe, bank, queries)[0] for probe in ("k-NN", "linear")}


def images_per_s(run: Path) -> float:
    """Median over the logged steps; probes and pictures do not count."""
    return float(np.median([row["images_per_s"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "step"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", default="vit_tiny")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/distilled"))
    arguments, fields = parser.parse_known_args()
    train, val = open_source(arguments.train), open_source(arguments.val)
    student, steps = arguments.student, arguments.steps
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {student}, {steps} steps, fields {fields}")
    told(f"teacher {arguments.teacher}", answers(Path(arguments.teacher), train, val))
    for seed in arguments.seeds:
        out = arguments.out / f"{student}-{steps}-{seed}"
        asked = ["--seed", str(seed), "--data.seed", str(seed), *UNWATCHED, *(one for one in fields if one != "--")]
        common: dict[str, Any] = {"val": arguments.val, "fields": asked}

        def alone(length: int, out: Path = out, common: dict[str, Any] = common) -> Path:
            return pretrain(arguments.train, model=student, steps=length, out=out / f"alone-{length}", **common).run

        def taught(recipe: str, out: Path = out, common: dict[str, Any] = common) -> Path:
            named = {"teacher": arguments.teacher, "student": student, "recipe": recipe, "steps": steps}
            return distill(arguments.train, **named, out=out / recipe, **common).students[0].run

        runs = {"alone": alone(steps), "distill": taught("distill"), "distill_match": taught("distill_match")}
        pace = {name: images_per_s(run) for name, run in runs.items()}
        longer = round(steps * pace["alone"] / pace["distill"])
        runs["alone, as long"] = alone(longer) if longer > (1 + CLOCK) * steps else runs["alone"]
        scores = {name: answers(run / "model", train, val) for name, run in runs.items()}
        told(f"seed {seed} start", answers(runs["alone"] / "model-start", train, val))
        for name, run in runs.items():
            told(f"seed {seed} {name} ({images_per_s(run):.0f} pictures a second; {run.name})", scores[name])
        for name in ("distill", "distill_match"):
            for other in ("alone", "alone, as long"):
                for probe, values in scores[name].items():
                    gain = paired_bootstrap(scores[other][probe], values)
                    words = f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]"
                    print(f"seed {seed} {name} above {other}, {probe}: {words}", flush=True)


def told(name: str, scores: dict[str, NDArray[np.float64]]) -> None:
    spans = {probe: bootstrap(values) for probe, values in scores.items()}
    words = ", ".join(f"{probe} {span.value:.1f} [{span.low:.1f}, {span.high:.1f}]" for probe, span in spans.items())
    print(f"{name}: {words}", flush=True)


if __name__ == "__main__":
    main()
