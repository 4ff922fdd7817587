"""A training run on the terminal: what the bar shows while the loop runs; several runs have a bar each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from opendino.cli.watchers import Watch
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig
from opendino.train.loop import Outcome, StepResult, train
from opendino.train.method import BackboneMethod, Batches
from opendino.train.run import RunDirectory
from opendino.train.together import Training

W = TypeVar("W", bound=Watch)


def training_bars(console: Console) -> Progress:
    """For `add_training`; to be entered with `with`."""
    columns = (
        TextColumn("[bold]{task.description}{task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Into a file or a pipe a bar is written once, cut at 80 letters: the lines above it say more.
    return Progress(*columns, console=console, disable=console.quiet or not console.is_terminal)


def add_training(
    progress: Progress,
    config: RunConfig,
    method: BackboneMethod,
    loader: Batches[Any],
    run: RunDirectory,
    make_watch: Callable[[Callable[[str], None]], W],
    *,
    name: str = "",
) -> tuple[W, Training[Any]]:
    """A bar for a run, its watchers, and what the loop takes.

    Args:
        make_watch: from what prints a line above the bars to the watchers of the run.
        name: before the run's bar and lines, where there are several.
    """
    prefix = f"{name} " if name else ""

    def say(line: str) -> None:
        progress.console.print(prefix + line)

    reached = max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)
    if reached >= config.steps:
        say(f"{run.path} is complete: step {reached:,} of {config.steps:,}")
    elif reached:
        say(f"going on from step {reached:,} of {config.steps:,}")
    watch = make_watch(say)
    say(watch.measure_colours())
    task = progress.add_task(prefix, total=config.steps, completed=reached, words="starting")

    def on_step(step: int, result: StepResult, images_per_s: float) -> None:
        watch.on_step(step, result.loss, result.grad_norm)
        terms = " ".join(f"{name} {value:.3f}" for name, value in result.values.items())
        words = f"loss {result.loss:.3f} ({terms}) grad {result.grad_norm:.2f} {images_per_s:,.0f} images/s"
        progress.update(task, completed=step, words=" ".join([*watch.shown(), words]))

    return watch, Training(config, method, loader, run, watch.watchers(), on_step, watch.carry)


def train_with_progress(
    config: RunConfig,
    method: BackboneMethod,
    loader: Batches[Any],
    run: RunDirectory,
    console: Console,
    make_watch: Callable[[Callable[[str], None]], W],
) -> tuple[W, Outcome]:
    """Train to the end, or from where `run` stands, with one bar; `make_watch` as for `add_training`."""
    with training_bars(console) as progress:
        watch, it = add_training(progress, config, method, loader, run, make_watch)
        return watch, train(config, method, loader, run, watchers=it.watchers, on_step=it.on_step, carry=it.carry)
