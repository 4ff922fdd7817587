"""Several runs side by side in one process: the same loop for each, a step of one after a step of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from opendino.errors import StoppedError
from opendino.train.config import LoopConfig
from opendino.train.loop import Outcome, StepResult, Watcher, updates
from opendino.train.method import B, Batches, Method
from opendino.train.run import RunDirectory
from opendino.train.stopping import stop_request


@dataclass(frozen=True)
class Training(Generic[B]):
    """One of the runs: what `loop.train` takes."""

    config: LoopConfig
    method: Method[B]
    loader: Batches[B]
    run: RunDirectory
    watchers: Sequence[Watcher[Any]] = ()
    on_step: Callable[[int, StepResult, float], None] = lambda step, result, images_per_s: None
    carry: dict[str, Any] = field(default_factory=dict)


def train_together(trainings: Sequence[Training[B]], job: Path) -> list[Outcome]:
    """Train all runs to their ends; whoever has done the fewest steps goes next, so that they share batches.

    Every run draws, saves and resumes as it would alone: a step starts torch's generator anew, and nothing else is
    shared. A run that was saved earlier than the others, or is new, catches up first.

    Args:
        job: what a stop is reported for.
    Returns:
        Outcomes in the order of `trainings`.
    Raises:
        StoppedError: on Ctrl-C, TERM or USR1, with every run saved.
        OpendinoError: what one run raised, once the others are saved.
    """
    outcomes: dict[int, Outcome] = {}
    failure: Exception | None = None
    with stop_request(job, max(training.config.save.grace_s for training in trainings)) as stop:
        loops = {
            place: updates(
                *(one.config, one.method, one.loader, one.run, stop),
                watchers=one.watchers,
                on_step=one.on_step,
                carry=one.carry,
            )
            for place, one in enumerate(trainings)
        }
        done = dict.fromkeys(loops, -1)
        while done:
            place = min(done, key=lambda one: (done[one], one))
            try:
                done[place] = next(loops[place])
            except StopIteration as end:
                outcomes[place] = end.value
                del done[place]
            except Exception as error:
                # The others stop at their next pause, saved.
                del done[place]
                stop.asked = stop.asked or f"the end of {trainings[place].run.path.name}"
                if failure is None or isinstance(failure, StoppedError):
                    failure = error
    if isinstance(failure, StoppedError):
        raise StoppedError(job, f"stopped by {stop.asked}, every student saved", failure.fix)
    if failure is not None:
        raise failure
    return [outcomes[place] for place in range(len(trainings))]
