"""Whose run a directory holds: a new one begins, the same one goes on, another one is refused with its differences."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, get_args

from opendino.cli.pictures import reading_words
from opendino.data.sources import Source
from opendino.errors import UsageError
from opendino.files import read_json
from opendino.monitor.incidents import IncidentLog
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig, differences
from opendino.train.run import RunDirectory

DataChanged = Literal["continue", "restart-epoch"]

MAX_LISTED = 5_000_000
"""Of more pictures no names are kept, since memory would not hold them twice: changes are then said without counts."""


def check_policy(policy: str | None) -> None:
    """Raise UsageError unless it is None or one of `DataChanged`."""
    names = get_args(DataChanged)
    if policy is not None and policy not in names:
        near = difflib.get_close_matches(policy, names, n=1)
        fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"
        raise UsageError(f"--data-changed {policy}", "not among its values", fix)


def claim(
    run: RunDirectory,
    config: RunConfig,
    source: Source,
    *,
    allow: bool,
    data_changed: str | None,
    say: Callable[[str], None],
) -> RunConfig:
    """Make the directory this run's and return the config to train with; call only while holding it.

    Args:
        config: what the command asks for.
        allow: go on under another length, optimizer setting, precision or micro-batch.
        data_changed: what to do when pictures came or went since the run began; None refuses.
    Raises:
        UsageError: the run there was made with other settings or pictures, or with pictures read otherwise; names them
            and the way out.
    """
    saved = run.config()
    if saved is None:
        run.write_listing(_names(source))
        run.write_config(config)
        return config
    config = replace(config, data_ahead_steps=saved.data_ahead_steps)
    changed = differences(saved, config)
    if changed.identity or (changed.allowed and not allow):
        named = changed.identity or changed.allowed
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        ways = "repeat its command to go on, or start anew with another --out"
        if not changed.identity:
            ways = f"add --allow to go on with them, {ways}"
        raise UsageError(run.path, f"holds a run with other settings ({', '.join(named[:3])}{more})", ways)
    if saved.reading and saved.reading != config.reading:
        before, now = (reading_words(json.loads(text)) for text in (saved.reading, config.reading))
        cause = f"was begun with pictures read with {before}; now they would be read with {now}"
        raise UsageError(run.path, cause, "read them as before, or start anew with another --out")
    words = list(changed.allowed)
    if saved.pictures != config.pictures:
        pictures = _changes(run.listing(), source)
        if data_changed is None:
            ways = "add --data-changed continue or --data-changed restart-epoch, or start anew with another --out"
            raise UsageError(run.path, f"was begun with other pictures ({pictures})", ways)
        words.append(f"other pictures ({pictures}; {data_changed})")
        if data_changed == "restart-epoch":
            config = replace(config, data_ahead_steps=_next_epoch(run, saved, len(source)))
        run.write_listing(_names(source))
    if words:
        step = max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)
        sentence = f"goes on with {', '.join(words)}"
        IncidentLog(run.incidents_file).append("settings changed", step, sentence)
        say(f"from step {step:,}: {sentence}")
        run.write_config(config)
    return config


def _names(source: Source) -> Iterable[str]:
    return map(source.id, range(len(source) if len(source) <= MAX_LISTED else 0))


def _changes(before: list[str], source: Source) -> str:
    """What happened to the pictures, counted by name."""
    old, new = set(before), set(_names(source))
    if not old or not new:
        return "which ones is not known"
    counts = {"added": len(new - old), "removed": len(old - new)}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "the same names, other sizes"


def _next_epoch(run: RunDirectory, saved: RunConfig, images: int) -> int:
    """How far data must run ahead of steps so that the newest checkpoint goes on with a new pass over `images`, at the
    first batch that lies in it as a whole.
    """
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        return saved.data_ahead_steps
    step, path = checkpoints[-1]
    rolled_back = read_json(path / "MANIFEST.json")["extra"]["passed_over"]
    batch = saved.data.batch_size
    position = (step + rolled_back + saved.data_ahead_steps) * batch
    epoch_start = math.ceil(position / images) * images
    return math.ceil(epoch_start / batch) - step - rolled_back
