"""THE loop: next batch, losses, backward, clip, step, average, log; at intervals save, probe, draw.

It knows nothing of the objective nor of what a batch holds: heads on frozen features run through it too. One process
runs the same lines as many would. Everything random in a step comes from (seed, step), so a resumed run repeats an
unbroken one bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch

from opendino.errors import DataError, OpendinoError, StoppedError
from opendino.files import fault_point
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog
from opendino.train.checkpoint import expected_bytes, lack_of_space, load_checkpoint, prune, save_checkpoint
from opendino.train.config import SaveConfig, WatchConfig
from opendino.train.method import B, Batches, Method
from opendino.train.optim import OptimConfig, Rate, build_optimizer, clip_gradients, set_hyperparameters
from opendino.train.run import RunDirectory
from opendino.train.stopping import stop_request

_log = logging.getLogger("opendino")

MAX_BAD_STEPS, BAD_WINDOW = 10, 1000
"""So many non-finite steps among the last 1,000 are no accident: the run goes back to its last checkpoint, once."""
MAX_UNSAVED_MINUTES = 60.0
"""A run whose checkpoints cannot be written stops after so long, rather than lose more."""


M = TypeVar("M", bound=Method[Any])


class LoopConfig(Protocol):
    """What the loop reads of a config; `RunConfig` is one, heads on features have a smaller one."""

    @property
    def steps(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def precision(self) -> Literal["fp32", "bf16"]: ...
    @property
    def data_ahead_steps(self) -> int: ...
    @property
    def optim(self) -> OptimConfig: ...
    @property
    def save(self) -> SaveConfig: ...
    @property
    def watch(self) -> WatchConfig: ...


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
    """Train to `config.steps`, from the newest checkpoint of `run` or from the start.

    Args:
        rates: learning rates and decays of single parameters, by "module.name", as multipliers.
        on_step: called after every step with (steps done, result, images per second) for progress display.
        carry: small JSON state of the watchers (best score so far); saved and restored with each checkpoint.
    Raises:
        StoppedError: on Ctrl-C, TERM or USR1, with everything saved unless the time for it was too short.
        OpendinoError: when there is no room for a checkpoint at the start; when MAX_BAD_STEPS of the last 1,000 steps
            were not finite and there is no checkpoint to go back to, or going back (past the pictures since) did not
            help; when no checkpoint could be written for an hour.
        DataError: when nothing can be read any more.
    """
    carry = {} if carry is None else carry
    optimizer = build_optimizer(method.trained(), config.optim, rates)
    metrics, incidents = MetricsLog(run.metrics_file), IncidentLog(run.incidents_file)
    skipped: dict[str, str] = {}
    step = 0
    passed_over = 0  # steps of data that a roll-back left out: positions run ahead of steps by so much
    resumed = load_checkpoint(run.checkpoints, method, optimizer)
    if resumed is not None:
        step = resumed.step
        carry.update(resumed.extra["carry"])
        skipped.update(resumed.extra["skipped"])
        passed_over = resumed.extra["passed_over"]
        metrics.truncate(resumed.extra["metrics_offset"])
        for words in resumed.damaged:
            incidents.append("damaged checkpoint", step, words)
            _log.warning("damaged checkpoint set aside, %s; going on from step %d", words, step)
    else:
        metrics.truncate(0)
    if lack := lack_of_space(run.checkpoints, expected_bytes(method)):
        raise OpendinoError(run.checkpoints, lack, "free some space, or choose another --out")
    milestones = frozenset(
        round(config.steps * i / config.save.milestones) for i in range(1, config.save.milestones + 1)
    )
    recent: deque[tuple[float, int]] = deque(maxlen=50)
    bad_steps: deque[int] = deque(maxlen=MAX_BAD_STEPS)
    started = last_try = last_save = time.monotonic()

    def batches_from(step: int) -> Iterator[B]:
        ahead = passed_over + config.data_ahead_steps
        return loader.batches(step + ahead, config.steps + ahead)

    def watch(done: int) -> None:
        for watcher in watchers:
            if done % watcher.every == 0 or done == config.steps:
                watcher.call(done, method)

    def save(done: int) -> None:
        nonlocal last_try, last_save
        run.check_held()
        extra = {"metrics_offset": metrics.offset, "carry": carry, "skipped": skipped, "passed_over": passed_over}
        last_try = time.monotonic()
        try:
            save_checkpoint(run.checkpoints, done, method, optimizer, extra)
            prune(run.checkpoints, config.save.keep, milestones)
            last_save = last_try
        except OSError as error:
            # A full disk must not end the run: the last good checkpoint is untouched and the next interval tries again.
            words = f"checkpoint not saved ({error.strerror or error})"
            incidents.append("save failed", done, words)
            if stop.asked or done == config.steps or last_try - last_save > 60 * MAX_UNSAVED_MINUTES:
                raise OpendinoError(
                    run.checkpoints, f"cannot save ({error.strerror or error})", "free some space and run again"
                ) from None
            _log.warning("step %d: %s; training goes on and tries again", done, words)

    def roll_back(values: Mapping[str, float]) -> None:
        """To the last checkpoint, past the pictures since; once in a run."""
        nonlocal step, passed_over
        last = None if passed_over else load_checkpoint(run.checkpoints, method, optimizer)
        if last is None:
            raise OpendinoError(
                f"step {step}",
                f"loss or gradient was not finite in {MAX_BAD_STEPS} of the last {BAD_WINDOW:,} steps ({dict(values)})",
                f"lower optim.lr or use precision fp32; pictures are listed in {run.incidents_file}",
            )
        words = f"back to step {last.step}; the pictures of steps {last.step} to {step} are passed over"
        incidents.append("rolled back", step, words)
        passed_over, step = step - last.step, last.step
        carry.update(last.extra["carry"])
        metrics.truncate(last.extra["metrics_offset"])
        recent.clear()
        bad_steps.clear()

    with stop_request(run.path, config.save.grace_s) as stop:
        if step == 0:
            watch(0)
        batches = batches_from(step)
        recent.append((time.monotonic(), step))
        while step < config.steps:
            batch = next(batches, None)
            if batch is None:
                raise DataError("training data", f"ran out at step {step} of {config.steps}")
            for bad in batch.bad:
                if bad.id not in skipped:
                    skipped[bad.id] = bad.reason
                    incidents.append("skipped picture", step, bad.reason, ids=[bad.id])
            result = train_step(config, method, optimizer, batch, step)
            fault_point("loop.after_step")
            step += 1
            if not result.finite:
                incidents.append("non-finite step", step, f"loss {result.loss}, {result.values}", ids=list(batch.ids))
                bad_steps.append(step)
                if len(bad_steps) == MAX_BAD_STEPS and step - bad_steps[0] < BAD_WINDOW:
                    roll_back(result.values)
                    batches = batches_from(step)
                    continue
            recent.append((time.monotonic(), step))
            elapsed, steps_seen = recent[-1][0] - recent[0][0], recent[-1][1] - recent[0][1]
            images_per_s = steps_seen * len(batch.ids) / max(elapsed, 1e-9)
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
            watched = time.monotonic()
            watch(step)
            # Time spent looking is not training time: shift the window so that images/s stays the training speed.
            pause = time.monotonic() - watched
            recent = deque(((t + pause, s) for t, s in recent), maxlen=recent.maxlen)
            due = (config.save.steps and step % config.save.steps == 0) or (
                config.save.minutes and time.monotonic() - last_try >= 60 * config.save.minutes
            )
            # Not amid steps that failed: what a roll-back goes to should be from before them.
            due = result.finite and (due or step in milestones or stop.save)
            if due or stop.asked or step == config.steps:
                stop.save = False
                save(step)
            if stop.asked and step < config.steps:
                cause = f"stopped at step {step} of {config.steps} by {stop.asked}, saved"
                raise StoppedError(run.path, cause, "the same command goes on")
    return Outcome(step, time.monotonic() - started, skipped)
