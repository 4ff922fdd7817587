"""What an evaluation is going to do: protocols with their opened data, and a job for each layer that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opendino.errors import DataError, UsageError
from opendino.evaluation.protocol import Entry, Job, Outcome, Subject, resolve_settings

_GET = "; get it: "
"""Ends what is said of data that are not there."""


@dataclass(frozen=True)
class Planned:
    """A protocol with its opened data and its job."""

    entry: Entry
    data: Any
    job: Job


def plan(
    entries: Sequence[Entry], data: Path | str | Mapping[str, Path | str], job: Job, settings: Mapping[str, str]
) -> tuple[list[Planned], dict[str, str]]:
    """Open the data of every protocol; one that lacks its data is left to the others.

    Args:
        data: root of all, or one for each protocol by its id, with "" for the others.
        job: what is common to all.
        settings: as text, "rows" for every protocol that has it, "vos.rows" for one.
    Returns:
        What can be scored, and by protocol why another one cannot.
    Raises:
        UsageError: no data, or a setting that no protocol has. DataError: not one protocol has its data.
    """
    known = {name for entry in entries for key in entry.settings for name in (key, f"{entry.id}.{key}")}
    if unknown := sorted(settings.keys() - known):
        raise UsageError(f"--set {unknown[0]}", "no such setting", f"here: {', '.join(sorted(known)) or 'none'}")
    if not data:
        raise UsageError(entries[0].id, "no data given", "add --data DIR; --list shows what each protocol reads")
    planned, failures = [], {}
    for entry in entries:
        general = {key: text for key, text in settings.items() if key in entry.settings}
        special = {key: settings[name] for key in entry.settings if (name := f"{entry.id}.{key}") in settings}
        own = resolve_settings(entry, general | special)
        root = data.get(entry.id, data.get("")) if isinstance(data, Mapping) else data
        try:
            planned.append(open_data(entry, None if root is None else Path(root), replace(job, settings=own)))
        except DataError as error:
            failures[entry.id] = str(error)
    if not planned:
        raise DataError("data", "; ".join(failure_words(failures)))
    return planned, failures


def failure_words(failures: Mapping[str, str]) -> list[str]:
    """A line for each protocol that was not scored; three or more that lack their data, as in a suite, share one."""
    lack = [name for name, text in failures.items() if _GET in text]
    if len(lack) < 3:
        return [f"{name}: {text}" for name, text in failures.items()]
    together = f"no data for {', '.join(lack)}; --data PROTOCOL=DIR gives one its own, --list says what each reads"
    return [together, *(f"{name}: {text}" for name, text in failures.items() if name not in lack)]


def open_data(entry: Entry, root: Path | None, job: Job) -> Planned:
    """A built protocol with the data at `root`. Raises DataError saying what is expected there and where to get it."""
    if root is None or not root.is_dir() or not any(root.iterdir()):
        if root is None:
            cause = "no --data given"
        elif not root.exists():
            cause = "no such folder"
        else:
            cause = "holds nothing" if root.is_dir() else "is a file"
        raise DataError(root or entry.id, cause, f"expected: {entry.layout}{_GET}{entry.source}")
    job = replace(job, data=root)
    try:
        return Planned(entry, entry.open(job), job)  # type: ignore[misc]
    except DataError as error:
        if not error.fix.startswith("expected:"):
            raise
        raise DataError(error.thing, error.cause, f"{error.fix}{_GET}{entry.source}") from None


def layer_jobs(planned: Planned, layers: str | None, subject: Subject) -> list[Job]:
    """The job as it is, or one for each layer that was asked for where the protocol reads a layer.

    layers: "all", or numbers from 0 with commas between. Raises UsageError for others, and for a setting `layer` that
    the model lacks.
    """
    if "layer" not in planned.job.settings:
        return [planned.job]
    count, own = subject.model.num_layers, int(planned.job.settings["layer"])
    if not -count <= own < count:
        raise UsageError(f"--set layer={own}", f"{subject.name} has layers 0 to {count - 1}; -1 is the last")
    if layers is None:
        return [planned.job]
    try:
        wanted = range(count) if layers == "all" else sorted({int(text) for text in layers.split(",")})
    except ValueError:
        raise UsageError(f"--layers {layers}", "must be all, or numbers with commas between") from None
    if outside := [layer for layer in wanted if not 0 <= layer < count]:
        raise UsageError(f"--layers {outside[0]}", f"{subject.name} has layers 0 to {count - 1}")
    return [replace(planned.job, settings={**planned.job.settings, "layer": layer}) for layer in wanted]


def named_by_layer(outcome: Outcome, layer: int) -> Outcome:
    """With the layer in the name of every metric, so that layers stand on lines of their own."""
    return replace(outcome, scores=[replace(score, metric=f"{score.metric}_layer_{layer}") for score in outcome.scores])
