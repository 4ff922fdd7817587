"""What a protocol is: how its data are opened, how a frozen backbone is scored on them, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from opendino.data.sources import Skipped
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.evaluation.examples import Example
from opendino.evaluation.metrics.interval import Estimate, bootstrap, cluster_bootstrap, set_bootstrap
from opendino.evaluation.results import Result
from opendino.pages.words import unit_words

Statistic = Callable[[NDArray[np.int64]], float]
"""From how often each unit was drawn, [units], to the number."""


@dataclass(frozen=True)
class Subject:
    """The frozen backbone that is scored: a `models.contract.Backbone` in eval mode on its device.

    transform: what its pictures go through; name, hash, licence: of its weights, for the results.
    """

    model: Any
    transform: Transform
    name: str
    hash: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    licence: str = "not stated"

    def describe(self) -> dict[str, Any]:
        """What results.json says about the model."""
        parameters = list(self.model.parameters())
        return {
            "name": self.name,
            "params": sum(parameter.numel() for parameter in parameters),
            "patch": self.model.patch,
            "weights_sha256": self.hash,
            "dtype": str(parameters[0].dtype).removeprefix("torch.") if parameters else "",
            "licence": self.licence,
        }


class Dataset(Protocol):
    """Opened data of a protocol: files were listed, no pixel was read.

    name: a published set's name, else the folder's; split_hash: SHA-256 of the listing of what is scored against what;
    split: the part that is scored; those with classes have `class_names` too.
    """

    name: str
    split_hash: str
    split: str

    def words(self) -> str:
        """What is in it, in one line."""
        ...


@dataclass(frozen=True)
class Job:
    """One evaluation to do.

    data: root in the published layout or a plain one; limit: at most so many pictures a part; cache: folder for
    features, None for none; settings: the protocol's own, complete; progress: (what, done, total) now and then.
    """

    data: Path
    limit: int | None = None
    seed: int = 0
    cache: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit}", "must be at least 1")


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen among several by their scores.

    values: of the setting; on: the pictures that decided, "held-out train", "valid", "val", "test", or "other half",
    where each half of them decided for the other; points, scores:
    the settings that were tried and what each scored there, empty where they are told elsewhere.
    """

    values: Mapping[str, Any]
    on: str
    points: Sequence[Mapping[str, Any]] = ()
    scores: Sequence[float] = ()

    def edge_words(self) -> str:
        """What to think of the choice where all scored alike, or a rate at the end was best; else ""."""
        rates = sorted({float(point["lr"]) for point in self.points if "lr" in point})
        if len(self.scores) > 1 and len(set(self.scores)) == 1:
            return "nothing told the settings apart, so the first one was taken"
        if len(rates) < 3 or self.values.get("lr") not in (rates[0], rates[-1]):
            return ""
        end = "smallest" if self.values["lr"] == rates[0] else "largest"
        return f"the {end} of the learning rates that were tried is the best: others, or more steps, may score higher"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a score that is no number is null."""
        scores = [float(score) if np.isfinite(score) else None for score in self.scores]
        tried = {"tried": {"points": [dict(point) for point in self.points], "scores": scores}} if scores else {}
        return {"selected": {**self.values, "on": self.on}, **tried}


@dataclass(frozen=True)
class Score:
    """One number of a protocol.

    estimate: value and 95 % interval, its bounds NaN where drawing units again means nothing; n units of kind `unit`
    were drawn again; values [n]: what each scored, None where the number is no mean of such; ids: their names;
    groups: the group of each, where groups were drawn again before their units; measure: unit of the value, "1" for
    plain numbers; drawn: how units were drawn again, in words; choice: what was chosen for it; config: what this number
    alone depends on.
    """

    metric: str
    estimate: Estimate
    n: int
    unit: str
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    values: NDArray[np.float64] | None = None
    high_is_good: bool = True
    variant: str = "ours"
    measure: str = "%"
    drawn: str = ""
    choice: Choice | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Everything that a protocol found.

    breakdown: a number a class, sequence or domain, by name; examples: a few scored pictures, drawn; legend: what is
    painted in them, with its colour as #rrggbb.
    """

    scores: Sequence[Score]
    skipped: Sequence[Skipped] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    breakdown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    examples: Sequence[Example] = ()
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Entry:
    """A row of the suite table. `open` and `score` are None when the protocol is not built; `not_built` says why.

    datasets: published sets that are read; layout: the files that they need; source: where to get them; settings: every
    setting and its default; reads: tokens of the backbone that are scored; shown: how its input differs from whole
    pictures (those with the setting `rows`) or the model's own transform (the others), in the fields of results.json.
    """

    id: str
    about: str
    datasets: str
    layout: str
    variant: str = "ours"
    suites: tuple[str, ...] = ("full",)
    open: Callable[[Job], Any] | None = None
    score: Callable[[Subject, Any, Job], Outcome] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reads: str = "CLS"
    shown: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    not_built: str = ""


def mean_score(
    metric: str,
    values: ArrayLike,
    ids: Sequence[str],
    *,
    unit: str = "image",
    groups: Sequence[str] = (),
    **other: Any,
) -> Score:
    """A score that is the mean of one value a unit, with the bootstrap over units; groups: of units that are alike."""
    array = np.asarray(values, np.float64)
    estimate = cluster_bootstrap(array, groups) if groups else bootstrap(array)
    drawn = f"groups, then {unit_words(unit)} inside them" if groups else unit_words(unit)
    return Score(metric, estimate, len(array), unit, tuple(ids), tuple(groups), array, drawn=drawn, **other)


def set_score(
    metric: str,
    statistic: Statistic,
    ids: Sequence[str],
    *,
    unit: str = "image",
    sizes: Sequence[int] | None = None,
    **other: Any,
) -> Score:
    """A score that is no mean: `statistic` gets how often each unit was drawn; sizes: of groups that stay as they are,
    units being drawn again inside each.
    """
    estimate = set_bootstrap(statistic, len(ids) if sizes is None else sizes)
    drawn = unit_words(unit) if sizes is None else f"{unit_words(unit)} inside each group"
    return Score(metric, estimate, len(ids), unit, tuple(ids), drawn=drawn, **other)


def to_results(entry: Entry, subject: Subject, dataset: Dataset, job: Job, outcome: Outcome) -> list[Result]:
    """Scores with their surroundings. Raises DataError when a number is not finite or nothing was scored."""
    results = []
    for score in outcome.scores:
        if not score.n or not np.isfinite(score.estimate.value):
            raise DataError(f"{entry.id} {score.metric}", f"is {score.estimate.value} over {score.n} {score.unit}s")
        config = {
            "model": subject.name,
            "licence": subject.licence,
            "unit": score.unit,
            "measure": score.measure,
            "high_is_good": score.high_is_good,
            "skipped": len(outcome.skipped),
            "limit": job.limit,
            "seed": job.seed,
            "transform": subject.transform.to_dict(),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in job.settings.items()},
            **outcome.config,
            **score.config,
            **(score.choice.to_dict() if score.choice is not None else {}),
        }
        results.append(
            Result(
                protocol=entry.id,
                variant=score.variant,
                dataset=dataset.name,
                split_hash=dataset.split_hash,
                n=score.n,
                metric=score.metric,
                value=score.estimate.value,
                interval=None if np.isnan(score.estimate.low) else (score.estimate.low, score.estimate.high),
                model_hash=subject.hash,
                config=config,
            )
        )
    return results


def resolve_settings(entry: Entry, given: Mapping[str, str]) -> dict[str, Any]:
    """The protocol's settings with text from the command line in place of defaults, in the defaults' types.

    Keys that belong to another protocol of the same command are left to it by the caller.
    """
    settings = dict(entry.settings)
    for key, text in given.items():
        settings[key] = parse_setting(entry.id, key, text, entry.settings[key])
    return settings


RANGES: Mapping[str, tuple[float, float]] = {
    "tau": (-1, 1),
    "taus": (-1, 1),
    "rows": (0, math.inf),
    "window": (-1, math.inf),
    "layer": (-math.inf, math.inf),
    "ignore": (-1, 255),
    **dict.fromkeys(("temperature", "epochs", "scale", "high_m", "C"), (1e-9, math.inf)),
}
"""Smallest and largest value of settings by name; those of other names are counts, 1 at least."""


def parse_setting(protocol: str, key: str, text: str, default: Any) -> Any:
    """Text to the type of the default: a number, true or false, or a comma-separated list of numbers.

    Raises UsageError for another type, and out of the setting's range.
    """
    name = f"{protocol} {key}"
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            values = value = tuple(type(default[0])(part) for part in text.split(","))
        else:
            value = type(default)(text)
            values = (value,)
    except (KeyError, ValueError):
        raise UsageError(f"--set {name}={text}", f"must be like {default}") from None
    low, high = RANGES.get(key, (1, math.inf))
    if key == "rows" and default != 0:  # 0 is full resolution, where a protocol has it
        low = 1
    if isinstance(values[0], int | float) and not all(low <= one <= high for one in values):
        least = "above 0" if low == 1e-9 else f"{low} at least" if high == math.inf else f"from {low} to {high}"
        raise UsageError(f"--set {name}={text}", f"must be {least}")
    return value
