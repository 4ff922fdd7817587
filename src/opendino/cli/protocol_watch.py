"""Protocols of the evaluation on a backbone that still trains: the same functions that `opendino evaluate` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opendino.data.transform import Transform
from opendino.errors import DataError, StoppedError, UsageError
from opendino.evaluation.planning import Planned, open_data
from opendino.evaluation.protocol import Job, Subject, resolve_settings, to_results
from opendino.evaluation.suite import find
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog


def plan_protocols(text: str, limit: int, seed: int) -> tuple[Planned, ...]:
    """Open the data of "seg-linear=CAMVID,vos=DAVIS" before a run begins.

    Raises UsageError for a protocol that is not known or built, DataError for data that are not there.
    """
    planned = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, folder = part.partition("=")
        if not sign or not folder:
            raise UsageError(f"watch.protocols {part}", "must be PROTOCOL=DATA", "as in seg-linear=CAMVID,vos=DAVIS")
        for entry in find(name):
            job = Job(Path(folder), limit or None, seed, settings=resolve_settings(entry, {}))
            planned.append(open_data(entry, Path(folder), job))
    return tuple(planned)


def score_protocols(
    planned: Sequence[Planned],
    model: nn.Module,
    transform: Transform,
    step: int,
    device: torch.device,
    metrics: MetricsLog,
    incidents: IncidentLog,
    say: Callable[[str], None],
) -> None:
    """Score a backbone by each protocol: rows of kind "protocol" in `metrics`, a line for its first number.

    One that cannot be scored is an incident, and so is a stop that was asked for in the middle of it: the training
    loop then saves and ends.
    """
    subject = Subject(model.eval(), transform, f"step {step}", "", device)
    for one in planned:
        try:
            with torch.no_grad():
                outcome = one.entry.score(subject, one.data, one.job)  # type: ignore[misc]
            results = to_results(one.entry, subject, one.data, one.job, outcome)
        except (DataError, StoppedError) as error:
            incidents.append("protocol not scored", step, f"{one.entry.id}: {error}")
            say(f"step {step:,}: {one.entry.id} was not scored: {error}")
            continue
        for result in results:
            low, high = result.interval or (None, None)
            row: Mapping[str, Any] = {
                "protocol": result.protocol,
                "dataset": result.dataset,
                "metric": result.metric,
                "value": result.value,
                "low": low,
                "high": high,
                "n": result.n,
                "measure": result.config["measure"],
                "high_is_good": result.config["high_is_good"],
            }
            metrics.append("protocol", step, **row)
        first = results[0]
        span = f" [{first.interval[0]:.1f}, {first.interval[1]:.1f}]" if first.interval else ""
        say(f"step {step:,}: {first.protocol} {first.metric} {first.value:.1f}{span} on {first.dataset}")
