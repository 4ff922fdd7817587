"""When a run is saved, what a save holds beside the weights, and the ways back to one: resume and roll-back."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from opendino.errors import OpendinoError
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog
from opendino.train.checkpoint import expected_bytes, lack_of_space, load_checkpoint, prune, save_checkpoint
from opendino.train.config import LoopConfig
from opendino.train.method import Method
from opendino.train.run import RunDirectory

_log = logging.getLogger("opendino")

MAX_UNSAVED_MINUTES = 60.0
"""A run whose checkpoints cannot be written stops after so long, rather than lose more."""


class Saves:
    """The saves of one run.

    Attributes:
        carry: small JSON state of the watchers (best score so far). skipped: unreadable pictures, reason by id.
        passed_over: steps of data that a roll-back left out; positions in the order run ahead of steps by so much.
    """

    def __init__(
        self,
        config: LoopConfig,
        run: RunDirectory,
        method: Method[Any],
        optimizer: torch.optim.Optimizer,
        metrics: MetricsLog,
        incidents: IncidentLog,
        carry: dict[str, Any],
    ) -> None:
        self.carry, self.passed_over = carry, 0
        self.skipped: dict[str, str] = {}
        self._config, self._run, self._method, self._optimizer = config, run, method, optimizer
        self._metrics, self._incidents = metrics, incidents
        count = config.save.milestones
        self._milestones = frozenset(round(config.steps * i / count) for i in range(1, count + 1))
        self._last_try = self._last_save = time.monotonic()

    def resume(self) -> int:
        """Load the newest whole checkpoint; returns the steps done, 0 without one.

        Raises OpendinoError when there is no room for the next checkpoint.
        """
        found = load_checkpoint(self._run.checkpoints, self._method, self._optimizer)
        step = 0
        if found is None:
            self._metrics.truncate(0)
        else:
            step = found.step
            self._take(found.extra)
            self.skipped.update(found.extra["skipped"])
            self.passed_over = found.extra["passed_over"]
            for words in found.damaged:
                self._incidents.append("damaged checkpoint", step, words)
                _log.warning("damaged checkpoint set aside, %s; going on from step %d", words, step)
        if lack := lack_of_space(self._run.checkpoints, expected_bytes(self._method)):
            raise OpendinoError(self._run.checkpoints, lack, "free some space, or choose another --out")
        return step

    def is_due(self, done: int) -> bool:
        """Whether the interval of steps or minutes is over, or a milestone is reached."""
        save = self._config.save
        return bool(
            (save.steps and done % save.steps == 0)
            or (save.minutes and time.monotonic() - self._last_try >= 60 * save.minutes)
            or done in self._milestones
        )

    def save(self, done: int, *, last: bool) -> None:
        """Write a checkpoint. A full disk must not end the run: the last good checkpoint is untouched and the next
        interval tries again, unless this was the `last` chance or an hour went by unsaved: then OpendinoError.
        """
        self._run.check_held()
        extra = {
            "metrics_offset": self._metrics.offset,
            "carry": self.carry,
            "skipped": self.skipped,
            "passed_over": self.passed_over,
        }
        self._last_try = time.monotonic()
        try:
            save_checkpoint(self._run.checkpoints, done, self._method, self._optimizer, extra)
            prune(self._run.checkpoints, self._config.save.keep, self._milestones)
            self._last_save = self._last_try
        except OSError as error:
            cause = error.strerror or error
            self._incidents.append("save failed", done, f"checkpoint not saved ({cause})")
            if last or self._last_try - self._last_save > 60 * MAX_UNSAVED_MINUTES:
                fix = "free some space and run again"
                raise OpendinoError(self._run.checkpoints, f"cannot save ({cause})", fix) from None
            _log.warning("step %d: checkpoint not saved (%s); training goes on and tries again", done, cause)

    def roll_back(self, step: int, why: str, values: Mapping[str, float]) -> int:
        """Go to the last checkpoint, past the pictures since, once in a run; returns its step.

        Raises OpendinoError with `why` and the loss terms when there is none, or the run was rolled back before.
        """
        last = None if self.passed_over else load_checkpoint(self._run.checkpoints, self._method, self._optimizer)
        if last is None:
            fix = f"lower optim.lr or use precision fp32; pictures are listed in {self._run.incidents_file}"
            raise OpendinoError(f"step {step}", f"{why} ({dict(values)})", fix)
        words = f"back to step {last.step}; the pictures of steps {last.step} to {step} are passed over"
        self._incidents.append("rolled back", step, words)
        self.passed_over = step - last.step
        self._take(last.extra)
        return last.step

    def _take(self, extra: Mapping[str, Any]) -> None:
        self.carry.update(extra["carry"])
        self._metrics.truncate(extra["metrics_offset"])
