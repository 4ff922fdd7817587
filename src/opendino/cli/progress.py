"""A training run on the terminal: what the bar shows while the loop runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from opendino.cli.watchers import Watch
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig
from opendino.train.loop import Outcome, StepResult, train
from opendino.train.method import BackboneMethod, Batches
from opendino.train.run import RunDirectory


def train_with_progress(
    config: RunConfig,
    method: BackboneMethod,
    loader: Batches[Any],
    run: RunDirectory,
    console: Console,
    make_watch: Callable[[Callable[[str], None]], Watch],
) -> tuple[Watch, Outcome]:
    """Train to the end, or from where `run` stands.

    Args:
        make_watch: from what prints a line above the bar to the watchers of the run.
    """
    columns = (
        TextColumn("[bold]{task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    reached = max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)
    if reached >= config.steps:
        console.print(f"{run.path} is complete: step {reached:,} of {config.steps:,}")
    elif reached:
        console.print(f"going on from step {reached:,} of {config.steps:,}")
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        watch = make_watch(progress.console.print)
        console.print(watch.measure_colours())
        task = progress.add_task("", total=config.steps, completed=reached, words="starting")

        def on_step(step: int, result: StepResult, images_per_s: float) -> None:
            watch.on_step(step, result.loss, result.grad_norm)
            terms = " ".join(f"{name} {value:.3f}" for name, value in result.values.items())
            words = f"loss {result.loss:.3f} ({terms}) grad {result.grad_norm:.2f} {images_per_s:,.0f} images/s"
            progress.update(task, completed=step, words=" ".join([*watch.shown(), words]))

        outcome = train(config, method, loader, run, watchers=watch.watchers(), on_step=on_step, carry=watch.carry)
    return watch, outcome
