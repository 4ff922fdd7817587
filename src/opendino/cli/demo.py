"""`opendino demo`: see self-supervised learning happen on real photographs in under three minutes on two cores."""

from __future__ import annotations

import json
import shlex
import sys
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from opendino.cli.arguments import OptionalPath, OptionalText, Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.cli.pretrain import pretrain
from opendino.data.sources import open_source
from opendino.errors import OpendinoError
from opendino.evaluation.baselines import colour_histogram, hog, pixels
from opendino.evaluation.knn import READOUTS, KnnScore, read_out, score_knn
from opendino.evaluation.metrics.interval import Estimate, bootstrap, paired_bootstrap
from opendino.evaluation.tiles import TileTask, build_tiles, write_tiles
from opendino.features.extract import extract
from opendino.files import exclusive, write_json
from opendino.monitor.metrics import read_rows
from opendino.monitor.verdict import judge
from opendino.pages.charts import Bar
from opendino.pages.demo_page import DemoResults, write_demo_page
from opendino.pages.neighbours import Found, Neighbours
from opendino.pages.record import read_record
from opendino.pages.training_figure import training_figure
from opendino.train.run import RunDirectory
from opendino.weights import load

KS = (5, 10, 20)
SHOWN_QUERIES = 8
STEPS = 900
"""28,800 tiles, two minutes on two quiet cores. A number of steps, not of minutes: a busy machine takes longer and
still gets the same result.
"""
INVARIANCE = (
    *("--data.color.brightness", "0.4", "--data.color.contrast", "0.4", "--data.color.saturation", "0.4"),
    *("--data.color.hue", "0.1", "--data.color.grey-prob", "0.4", "--data.color.channel-gain", "0.4"),
)
"""Strong colour changes in training, since the task is one in which colour misleads: chosen knowing the task."""
WATCHING = ("--watch.knn-every", "0.34", "--watch.picture-every", "0.25", "--watch.health-every", "0.1")
"""Looking costs time that a run of two minutes does not have."""


@dataclass(frozen=True)
class DemoResult:
    """page: to look at; results: results.json; scores: percent with interval by name; gain: trained minus random,
    paired, in points.
    """

    page: Path
    results: Path
    scores: dict[str, Estimate]
    gain: Estimate
    seconds: float


def demo(
    *,
    out: Path | str = "opendino-demo",
    images: Path | str | None = None,
    seed: int = 0,
    steps: int = STEPS,
    model: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> DemoResult:
    """Pretrain a small network on tiles of photographs and score it against its own random start and simple methods.

    The task: from which photograph is a tile? Training tiles come from the left part of each photograph, scored tiles
    from the right part with their colours changed, so colour alone does not solve it. Every method gets the best of
    the same nine k-NN settings (k 5, 10, 20; raw, centred, standardised).

    Args:
        out: folder for page, results.json, tiles and the run.
        images: folder of one's own photographs (at least 2) instead of those that installed packages ship.
        seed: of tiles, weights and training.
        steps: of training.
    Raises:
        UsageError: the photographs' packages are missing. DataError: too few photographs.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpendinoError(folder, f"cannot be made ({error.strerror})", "choose another --out") from None
    # A second demo would write its tiles over those that the first one learns from.
    with exclusive(folder / "demo.lock"):
        return _demo(folder, Path(images) if images is not None else None, seed, steps, model, device, quiet)


def _demo(
    folder: Path, images: Path | None, seed: int, steps: int, model: str | None, device: str, quiet: bool
) -> DemoResult:
    started = time.monotonic()
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    task = build_tiles(seed, images)
    write_tiles(task, folder / "tiles")
    console.print(
        f"{len(task.names)} photographs, {len(task.bank):,} training tiles, {len(task.queries)} others to score on"
    )
    trained = pretrain(
        folder / "tiles" / "train",
        val=folder / "tiles" / "queries",
        steps=steps,
        model=model,
        out=folder / f"run-{seed}" if model is None else folder / f"run-{model}-{seed}",
        device=device,
        fields=[
            *("--seed", str(seed), "--data.seed", str(seed), *INVARIANCE, *WATCHING),
            *("--watch.picture-dir", str(folder / "tiles" / "shown"), "--watch.picture-px", "256"),
        ],
        quiet=quiet,
    )
    run = RunDirectory(trained.run)
    features = {
        "trained": _features(run.model, folder / "tiles"),
        "random": _features(run.path / "model-start", folder / "tiles"),
        "pixels": (pixels(task.bank), pixels(task.queries)),
        "colour": (colour_histogram(task.bank), colour_histogram(task.queries)),
        "hog": (hog(task.bank), hog(task.queries)),
    }
    best = {name: _best(task, bank, queries) for name, (bank, queries) in features.items()}
    scores = {name: bootstrap(100 * score.correct) for name, score in best.items()}
    gain = paired_bootstrap(100 * best["random"].correct, 100 * best["trained"].correct)
    rows = read_rows(run.metrics_file)
    config = run.config()
    assert config is not None
    seconds = time.monotonic() - started
    results = {f"knn_{name}": estimate.value for name, estimate in scores.items()}
    write_json(
        folder / "results.json",
        {
            **results,
            "ci95": {f"knn_{name}": [estimate.low, estimate.high] for name, estimate in scores.items()},
            "gain": {"value": gain.value, "ci95": [gain.low, gain.high], "paired": True},
            "seconds": round(seconds, 1),
            "seed": seed,
            "steps": trained.steps,
            "pictures_seen": trained.steps * config.data.batch_size,
            "model": config.model.name,
            "settings": {name: f"{score.readout}, k {score.k}" for name, score in best.items()},
        },
    )
    figure = folder / "pca.png"
    training_figure(read_record(run.path)).save(figure)
    page = write_demo_page(
        folder,
        DemoResults(
            verdict=_sentence(scores, gain),
            kind=judge(rows, config.steps).kind,
            bars=[
                Bar("trained", *_triple(scores["trained"]), ours=True),
                Bar("HOG (edges by hand)", *_triple(scores["hog"])),
                Bar("the same network, untrained", *_triple(scores["random"])),
                Bar("pixels", *_triple(scores["pixels"])),
                Bar("colour histogram", *_triple(scores["colour"])),
            ],
            chance=task.chance,
            seconds=trained.seconds,
            steps=trained.steps,
            images_seen=trained.steps * config.data.batch_size,
            train_tiles=len(task.bank),
            test_tiles=len(task.queries),
            photographs=len(task.names),
            model=config.model.name,
            device=str(choose_device(device)),
            run=run.path,
        ),
        rows,
        figure,
        _neighbours(task, features["random"], features["trained"], best["trained"], seed),
    )
    console.print(_table(scores, task.chance))
    console.print(f"[bold]{_sentence(scores, gain)}[/bold] ({seconds:.0f} s)")
    console.print(f"page:    {page}\nresults: {folder / 'results.json'}\nmodel:   {run.model}")
    console.print(
        f"next:    opendino pretrain PICTURES/  (or: opendino show pca IMAGE --model {shlex.quote(str(run.path))})"
    )
    return DemoResult(page, folder / "results.json", scores, gain, seconds)


def _features(model: Path, tiles: Path) -> tuple[Tensor, Tensor]:
    """CLS of training tiles and of queries."""
    network: Any = load(model)
    train, queries = (extract(network, open_source(tiles / part), network.transform) for part in ("train", "queries"))
    return train.cls, queries.cls


def _best(task: TileTask, bank: Tensor, queries: Tensor) -> KnnScore:
    """The best of the nine settings, the same nine for every method: slightly favourable to all alike."""
    labels = torch.from_numpy(task.bank_labels), torch.from_numpy(task.query_labels)
    scores = score_knn(bank, labels[0], queries, labels[1], ks=KS, readouts=READOUTS)
    return max(scores, key=lambda score: score.percent)


def _triple(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _sentence(scores: dict[str, Estimate], gain: Estimate) -> str:
    """What the numbers say, no more."""
    trained = scores["trained"]
    interval = f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}], paired"
    gained = f"{scores['random'].value:.1f} -> {trained.value:.1f} % ({interval})"
    if gain.low <= 0:
        return f"no gain that can be told from chance: k-NN {gained}"
    beaten = [words for name, words in _RIVALS.items() if scores[name].high < trained.low]
    level = [words for name, words in _RIVALS.items() if words not in beaten and scores[name].low <= trained.high]
    ahead = [words for words in _RIVALS.values() if words not in beaten + level]
    parts = [f"above {' and '.join(beaten)}"] if beaten else []
    parts += [f"level with {' and '.join(level)}"] if level else []
    parts += [f"below {' and '.join(ahead)}"] if ahead else []
    return f"it learned: k-NN {gained}; {', '.join(parts)}"


_RIVALS = {"pixels": "pixels", "colour": "colour", "hog": "HOG"}
_NAMES = {"trained": "trained", "random": "untrained", "pixels": "pixels", "colour": "colour histogram", "hog": "HOG"}


def _table(scores: dict[str, Estimate], chance: float) -> Table:
    table = Table(title=f"k-NN: which photograph is the tile from? (chance {chance:.0f} %)", title_justify="left")
    for heading in ("features", "right %", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "features" else "right")
    for name, estimate in scores.items():
        table.add_row(_NAMES[name], f"{estimate.value:.1f}", f"{estimate.low:.1f} to {estimate.high:.1f}")
    return table


def _neighbours(
    task: TileTask,
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    score: KnnScore,
    seed: int,
) -> list[Neighbours]:
    """Queries drawn at random (not chosen for their success) with their five nearest tiles, before and after."""
    chosen = np.random.default_rng(seed).choice(len(task.queries), SHOWN_QUERIES, replace=False)

    def found(features: tuple[Tensor, Tensor], query: int) -> Found:
        bank, queries = read_out(features[0], features[1][query : query + 1], score.readout)
        nearest: NDArray[Any] = (queries @ bank.T)[0].topk(5).indices.numpy()
        return Found(task.bank[nearest], (task.bank_labels[nearest] == task.query_labels[query]).tolist())

    return [
        Neighbours(task.queries[q], task.names[task.query_labels[q]], found(before, int(q)), found(after, int(q)))
        for q in chosen
    ]


@dataclass(frozen=True)
class _Arguments:
    """See it learn: pretrains a small network on real photographs and scores it. Under 3 minutes on 2 cores.

    Example: opendino demo

    No network, no account, no GPU. Writes a page, results.json and the model.
    """

    out: Path = Path("opendino-demo")
    """Folder to write."""
    images: OptionalPath = None
    """Your own photographs (2 to 20) instead of those that installed packages ship."""
    seed: int = 0
    """Of tiles, weights and training."""
    steps: int = STEPS
    """Of training."""
    model: OptionalText = None
    """Another student, such as vit_tiny."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    open: Switch = False
    """Open the page in the browser at the end."""
    json: Switch = False
    """Print results.json instead of words."""


def run(argv: Sequence[str]) -> int:
    """Parse, run, print."""
    arguments = parse_arguments(_Arguments, argv, "demo")
    named = {key: value for key, value in vars(arguments).items() if key not in ("open", "json")}
    result = demo(quiet=arguments.json, **named)
    if arguments.json:
        json.dump(json.loads(result.results.read_text()), sys.stdout)
        print()
    if arguments.open:
        webbrowser.open(result.page.resolve().as_uri())
    return 0
