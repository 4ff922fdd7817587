"""THE loop: next batch, losses, backward, clip, step, average, log; at intervals save, probe, draw.

It knows nothing of the objective nor of what a batch holds: heads on frozen features run through it too. One process
runs the same lines as many would. Everything random in a step comes from (seed, step), so a resumed run repeats an
unbroken one bit for bit. `updates` are the lines, one pause after each step; `train` runs them to the end, and
`together.train_together` several of them side by side.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from opendino.errors import DataError, StoppedError
from opendino.files import fault_point
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog
from opendino.train.config import LoopConfig
from opendino.train.method import B, Batches, Method
from opendino.train.optim import Rate, build_optimizer, clip_gradients, set_hyperparameters
from opendino.train.run import RunDirectory
from opendino.train.saves import Saves
from opendino.train.speed import Speed
from opendino.train.stopping import StopRequest, stop_request

MAX_BAD_STEPS, BAD_WINDOW = 10, 1000
"""So many non-finite steps among the last 1,000 are no accident: the run goes back to its last checkpoint, once."""
ENDED = "ended"
"""In `carry`: why a run ended before its last step."""


M = TypeVar("M", bound=Method[Any])


@dataclass(frozen=True)
class Watcher(Generic[M]):
    """Something to call at step 0, every `every` steps and at the end: a probe, an evaluation, a picture."""

    every: int
    call: Callable[[int, M], None]


@dataclass(frozen=True)
class StepResult:
    """values: loss terms; grad_norm: before clipping; finite: whether the step was taken."""

    loss: float
    values: Mapping[str, float]
    grad_norm: float
    lr: float
    finite: bool


@dataclass(frozen=True)
class Outcome:
    """What a finished run tells: steps done, seconds of this process, skipped pictures by id."""

    steps: int
    seconds: float
    skipped: Mapping[str, str]


def train_step(
    config: LoopConfig, method: Method[B], optimizer: torch.optim.Optimizer, batch: B, step: int
) -> StepResult:
    """One update. A non-finite loss or gradient leaves weights, moments and teacher untouched."""
    # Drop path and RoPE augmentation draw from torch's generator: it starts anew in each step, whatever ran before.
    torch.manual_seed(config.seed * 1_000_003 + step)
    lr = set_hyperparameters(optimizer, config.optim, step, config.steps)
    optimizer.zero_grad(set_to_none=True)
    loss, values = 0.0, dict[str, float]()
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        for terms in method.losses(batch, step):
            terms.total.backward()
            loss += float(terms.total.detach())
            for name, value in terms.values.items():
                values[name] = values.get(name, 0.0) + float(value)
    grad_norm = clip_gradients(method.trained(), config.optim.clip)
    finite = math.isfinite(loss) and math.isfinite(grad_norm)
    if finite:
        optimizer.step()
        method.after_step(step)
    return StepResult(loss, values, grad_norm, lr, finite)


def measure_seconds_per_step(config: LoopConfig, method: Method[B], loader: Batches[B], steps: int = 20) -> float:
    """Median seconds of `steps` steps. The method's weights are spent: build it anew before training."""
    optimizer = build_optimizer(method.trained(), config.optim)
    seconds, before = [], time.monotonic()
    for offset, batch in enumerate(loader.batches(0, steps)):
        train_step(config, method, optimizer, batch, offset)
        now = time.monotonic()
        seconds.append(now - before)
        before = now
    return sorted(seconds[1:])[len(seconds[1:]) // 2] if len(seconds) > 1 else seconds[0]


def train(
    config: LoopConfig,
    method: Method[B],
    loader: Batches[B],
    run: RunDirectory,
    *,
    rates: Mapping[str, Rate] | None = None,
    watchers: Sequence[Watcher[Any]] = (),
    on_step: Callable[[int, StepResult, float], None] = lambda step, result, images_per_s: None,
    carry: dict[str, Any] | None = None,
) -> Outcome:
    """Train to `config.steps`, or until a watcher has enough, from the newest checkpoint of `run` or from the start.

    Args:
        rates: learning rates and decays of single parameters, by "module.name", as multipliers.
        on_step: called after every step with (steps done, result, images per second) for progress display.
        carry: small JSON state of the watchers (best score so far); saved and restored with each checkpoint. A watcher
            that puts the reason under `ENDED` ends the run after its step, with a save: a resume finds it ended.
    Raises:
        StoppedError: on Ctrl-C, TERM or USR1, with everything saved unless the time for it was too short.
        OpendinoError: when there is no room for a checkpoint at the start; when MAX_BAD_STEPS of the last 1,000 steps
            were not finite and there is no checkpoint to go back to, or going back (past the pictures since) did not
            help; when no checkpoint could be written for an hour.
        DataError: when nothing can be read any more.
    """
    with stop_request(run.path, config.save.grace_s) as stop:
        steps = updates(config, method, loader, run, stop, rates=rates, watchers=watchers, on_step=on_step, carry=carry)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome


def updates(
    config: LoopConfig,
    method: Method[B],
    loader: Batches[B],
    run: RunDirectory,
    stop: StopRequest,
    *,
    rates: Mapping[str, Rate] | None = None,
    watchers: Sequence[Watcher[Any]] = (),
    on_step: Callable[[int, StepResult, float], None] = lambda step, result, images_per_s: None,
    carry: dict[str, Any] | None = None,
) -> Generator[int, None, Outcome]:
    """The loop of `train` with a pause before each step, in which another run may go on.

    Yields the number of steps done. A stop that was asked for, here or in a pause, is followed right after the pause:
    saved, and StoppedError.
    """
    carry = {} if carry is None else carry
    optimizer = build_optimizer(method.trained(), config.optim, rates)
    metrics, incidents = MetricsLog(run.metrics_file), IncidentLog(run.incidents_file)
    saves = Saves(config, run, method, optimizer, metrics, incidents, carry)
    step = saves.resume()
    bad_steps: deque[int] = deque(maxlen=MAX_BAD_STEPS)
    started = time.monotonic()

    def batches_from(step: int) -> Iterator[B]:
        ahead = saves.passed_over + config.data_ahead_steps
        return loader.batches(step + ahead, config.steps + ahead)

    def watch(done: int) -> None:
        for watcher in watchers:
            if done % watcher.every == 0 or done == config.steps:
                watcher.call(done, method)

    if step == 0:
        watch(0)
    batches, speed, saved, saves_asked = batches_from(step), Speed(), step, stop.saves
    while step < config.steps and ENDED not in carry:
        with speed.paused():
            yield step
        if stop.asked:
            if step > saved:
                saves.save(step, last=True)
            cause = f"stopped at step {step} of {config.steps} by {stop.asked}, saved"
            raise StoppedError(run.path, cause, "the same command goes on")
        batch = next(batches, None)
        if batch is None:
            raise DataError("training data", f"ran out at step {step} of {config.steps}")
        for bad in batch.bad:
            if bad.id not in saves.skipped:
                saves.skipped[bad.id] = bad.reason
                incidents.append("skipped picture", step, bad.reason, ids=[bad.id])
        result = train_step(config, method, optimizer, batch, step)
        fault_point("loop.after_step")
        step += 1
        if not result.finite:
            incidents.append("non-finite step", step, f"loss {result.loss}, {result.values}", ids=list(batch.ids))
            bad_steps.append(step)
            if len(bad_steps) == MAX_BAD_STEPS and step - bad_steps[0] < BAD_WINDOW:
                why = f"loss or gradient was not finite in {MAX_BAD_STEPS} of the last {BAD_WINDOW:,} steps"
                step = saves.roll_back(step, why, result.values)
                batches, speed = batches_from(step), Speed()
                bad_steps.clear()
                continue
        images_per_s = speed.after(len(batch.ids))
        if step % config.watch.log_every == 0 or step == config.steps:
            metrics.append(
                "step",
                step,
                time_s=round(time.monotonic() - started, 3),
                images_per_s=round(images_per_s, 1),
                loss=result.loss,
                losses=dict(result.values),
                grad_norm=result.grad_norm,
                lr=result.lr,
                **method.scalars(step - 1),
            )
        on_step(step, result, images_per_s)
        if not stop.asked or step == config.steps:  # who wants to stop does not wait for a look
            with speed.paused():
                watch(step)
        # Not amid steps that failed: what a roll-back goes to should be from before them.
        wanted = result.finite and (stop.saves > saves_asked or saves.is_due(step))
        done = step == config.steps or ENDED in carry
        if wanted or done:
            saves.save(step, last=done)
            saved, saves_asked = step, stop.saves
    return Outcome(step, time.monotonic() - started, saves.skipped)
