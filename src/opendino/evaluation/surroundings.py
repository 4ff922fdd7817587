"""What stands around a number: the model, the data and what the model was shown, in the words of results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from opendino.evaluation.protocol import Dataset, Entry, Job, Outcome, Subject, to_results
from opendino.evaluation.results import Result
from opendino.evaluation.stored import StoredFeatures


@dataclass(frozen=True)
class Scored:
    """The results of one protocol for one model; model, data, features: what stands around them; defaults: settings of
    the protocol, others than which do not compare with the paper.
    """

    results: Sequence[Result]
    outcome: Outcome
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def scored(entry: Entry, subject: Subject, data: Dataset, job: Job, outcome: Outcome) -> Scored:
    """Raises DataError when a number is not finite or nothing was scored."""
    edges = {score.choice.edge_words(): None for score in outcome.scores if score.choice is not None}
    told = [f"{entry.id}: {words}" for words in edges if words]
    outcome = replace(outcome, warnings=[*outcome.warnings, *told])
    return Scored(
        to_results(entry, subject, data, job, outcome),
        outcome,
        subject.describe(),
        describe_data(data, outcome),
        describe_features(entry, subject, job),
        entry.settings,
    )


def describe_data(data: Dataset, outcome: Outcome) -> dict[str, Any]:
    """Name, part, how many units the first number stands on, what was left out, and the hash of the listing."""
    return {
        "name": data.name,
        "split": data.split,
        "n": outcome.scores[0].n,
        "n_skipped": len(outcome.skipped),
        "skipped": [{"unit": item.id, "reason": item.reason} for item in outcome.skipped],
        "listing_sha256": data.split_hash,
        "class_names": list(getattr(data, "class_names", ())),
    }


def describe_features(entry: Entry, subject: Subject, job: Job) -> dict[str, Any]:
    """What the backbone was shown and which of its tokens were scored; size in pixels, layers from 0."""
    transform = subject.transform
    size, resize, crop = _geometry(subject, job)
    layer = int(job.settings.get("layer", -1)) % subject.model.num_layers
    layers = None if isinstance(subject.model, StoredFeatures) else [layer]  # a store does not say
    return {
        "size": size,
        "resize": resize,
        "crop": crop,
        "interpolation": transform.filter,
        "antialias": True,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "layers": layers,
        "final_norm": True,
        "pooling": entry.reads,
        **entry.shown,
    }


def _geometry(subject: Subject, job: Job) -> tuple[int | None, str, str | None]:
    """Size, resize and crop: of whole pictures where the protocol counts rows of patches, else the transform's."""
    transform, rows = subject.transform, job.settings.get("rows")
    if rows is not None and int(rows) == 0:
        return None, "none: full resolution, zeros up to whole patches", None
    whole = "short side to size, the long one to the nearest multiple of the patch"
    if rows is not None:
        return int(rows) * subject.model.patch, whole, None
    resize = {
        "square": "both sides to size",
        "center": f"short side to {transform.short_side}",
        "whole": whole,
        "padded": "short side to size, the long one reflected up to whole patches",
    }
    return transform.size, resize[transform.mode], "middle square" if transform.mode == "center" else None
