"""`opendino pretrain DIR`: learn from a folder of pictures without labels, and say whether it learned."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console

from opendino.cli.device import choose_device
from opendino.data.loader import Loader
from opendino.data.sources import Source, open_source, split_stratified, subset
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.files import write_json
from opendino.models.family import FAMILY, build_model
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import read_rows
from opendino.monitor.verdict import verdict
from opendino.pages.report import write_report
from opendino.recipes import find_recipe
from opendino.recipes.situation import Situation
from opendino.train.config import RunConfig, identity_differences
from opendino.train.loop import Outcome, measure_seconds_per_step, train
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.run import RunDirectory, open_run
from opendino.weights import write_model


@dataclass(frozen=True)
class PretrainArgs:
    """Learn from pictures without labels.

    Example: opendino pretrain photos/ --minutes 30

    DIR is a folder of pictures (searched through), a .tar of pictures, or a folder of .tar files. Class subfolders are
    used to score (k-NN), never to train. Any field of the config is a flag too: --optim.lr 1e-3 --model.name vit_tiny
    (list them: opendino pretrain DIR --fields). The same command again goes on where it stopped.
    """

    dir: tyro.conf.Positional[Path]
    recipe: str = "small"
    """Name of a recipe, or a Python file with a function `recipe`."""
    steps: int | None = None
    """Optimizer updates."""
    epochs: float | None = None
    """Passes over the pictures."""
    minutes: float | None = None
    """Time to spend; becomes a number of steps after about twenty measured ones. Default, if no length is given: 30."""
    val: Path | None = None
    """Folder of class subfolders whose pictures are the k-NN queries; DIR's pictures are then the bank."""
    out: Path | None = None
    """Run directory; default: runs/NAME, which follows from the command."""
    save_minutes: float | None = None
    """Save every so many minutes (default 10)."""
    save_steps: int | None = None
    """Save every so many steps."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: bool = False
    """Print the result as one JSON object instead of words."""
    fields: Annotated[bool, tyro.conf.arg(help="List every config field and stop.")] = False


@dataclass(frozen=True)
class PretrainResult:
    """run: its directory; model: the folder to load; verdict: one sentence; knn: percent at the end, None without
    labels; skipped: pictures that could not be read, with reasons.
    """

    run: Path
    model: Path
    steps: int
    seconds: float
    verdict: str
    knn: float | None
    skipped: dict[str, str]


def pretrain(
    dir: Path | str,
    *,
    recipe: str = "small",
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    val: Path | str | None = None,
    out: Path | str | None = None,
    save_minutes: float | None = None,
    save_steps: int | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> PretrainResult:
    """Train a backbone on the pictures in `dir` and write it, its report and its checkpoints to `out`.

    Args:
        overrides: config fields as on the command line: ["--optim.lr", "1e-3"].
    Raises:
        UsageError, DataError: bad arguments or pictures, in one line. StoppedError: on Ctrl-C, with everything saved.
    """
    if sum(length is not None for length in (steps, epochs, minutes)) > 1:
        raise UsageError("--steps, --epochs, --minutes", "more than one length given", "choose one")
    for name, value in (("--steps", steps), ("--epochs", epochs), ("--minutes", minutes)):
        if value is not None and value <= 0:
            raise UsageError(f"{name} {value}", "must be above 0")
    if steps is None and epochs is None and minutes is None and recipe == "small":
        minutes = 30.0
    console = Console(quiet=quiet, stderr=True, highlight=False)
    where = choose_device(device)
    source = open_source(Path(dir))
    if len(source) < 2:
        raise DataError(dir, f"holds {len(source)} readable picture", "self-distillation compares pictures: give at least 2")
    console.print(f"{len(source):,} pictures in {dir}" + _skipped_words(source))

    situation = Situation(len(source), _short_side(source), steps or 0, where.type)
    config = _configure(recipe, situation, overrides)
    if epochs is not None:
        steps = max(1, math.ceil(epochs * len(source) / config.data.batch_size))
        config = _configure(recipe, dataclasses.replace(situation, steps=steps), overrides)
    path = Path(out) if out is not None else _default_out(Path(dir), recipe, steps, minutes, overrides)
    config = _finish(config, Path(dir), minutes, save_minutes, save_steps)

    with open_run(path) as run:
        saved = run.config()
        if saved is not None and minutes is not None and saved.minutes == minutes:
            # The steps that the first start measured stay: a slower machine today must not change the schedule.
            situation = dataclasses.replace(situation, steps=saved.steps)
            config = _configure(recipe, situation, overrides)
            config = _finish(config, Path(dir), minutes, save_minutes, save_steps)
        loader = _loader(config, source, where)
        if config.steps == 0:
            if minutes is None:
                raise UsageError("--steps", f"recipe {recipe} needs a length", "add --steps, --epochs or --minutes")
            console.print("measuring the speed on 20 steps ...")
            seconds = measure_seconds_per_step(
                dataclasses.replace(config, steps=1000), _method(config, source, where), loader
            )
            # A twelfth of the time is for looking and saving.
            situation = dataclasses.replace(situation, steps=max(20, round(minutes * 60 * 11 / 12 / seconds)))
            config = _configure(recipe, situation, overrides)
            config = _finish(config, Path(dir), minutes, save_minutes, save_steps)
            loader = _loader(config, source, where)
            console.print(f"{config.data.batch_size / seconds:.0f} images/s: {minutes:g} minutes are {config.steps:,} steps")
        _claim(run, saved, config, source)
        return _run(config, source, Path(val) if val else None, where, loader, run, console, quiet)
