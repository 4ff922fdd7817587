"""What an evaluation leaves on disk: results.json for every reader, units.csv and draws.csv for paired comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.errors import DataError
from opendino.evaluation.datasets.units import hash_ids
from opendino.evaluation.metrics.interval import RESAMPLES
from opendino.evaluation.protocol import Score
from opendino.evaluation.published import published
from opendino.evaluation.results import Result
from opendino.evaluation.surroundings import Scored
from opendino.files import read_json, write_atomic, write_json

SCHEMA = 2
RESULTS, UNITS, DRAWS = "results.json", "units.csv", "draws.csv"
_COLUMNS = ("protocol", "dataset", "metric", "model", "unit", "group", "value")
_DRAWN = ("protocol", "dataset", "metric", "model", "units_sha256", "values")
_CHOICE = {"selected": "selected", "tried": "grid"}
"""Key of `Result.config` -> where results.json has it."""
_ELSEWHERE = {"model", "licence", "skipped", "transform", "unit", "measure", "high_is_good", *_CHOICE}
"""Keys of `Result.config` that results.json has under other names."""

Key = tuple[str, str, str]
"""protocol, dataset, metric."""


@dataclass(frozen=True)
class Record:
    """A results folder read back: results, and by (key, model) the value of each unit and its group, if it has one.

    draws: by (key, model) of a number that is no mean of such, the hash of the units that were drawn again and what it
    was on every draw, [B] float64. name: of the folder; lacks: tables that are not there.
    """

    results: Sequence[Result]
    units: Mapping[tuple[Key, str], Mapping[str, float]] = field(default_factory=dict)
    groups: Mapping[tuple[Key, str], Mapping[str, str]] = field(default_factory=dict)
    draws: Mapping[tuple[Key, str], tuple[str, NDArray[np.float64]]] = field(default_factory=dict)
    name: str = ""
    lacks: tuple[str, ...] = ()


def key_of(result: Result) -> Key:
    """What two models' results must share to stand on one line."""
    return result.protocol, result.dataset, result.metric


def write_record(folder: Path, scored: Sequence[Scored], failures: Mapping[str, str], run: Mapping[str, Any]) -> Path:
    """Write the three files; returns the path of results.json.

    failures: what was asked and could not be scored, with its reason; run: command, version, device, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    units, draws = [_COLUMNS], [_DRAWN]
    for one in scored:
        for result, score in zip(one.results, one.outcome.scores, strict=True):
            where = (*key_of(result), str(result.config["model"]))
            if score.values is not None:
                groups = score.groups or ("",) * len(score.ids)
                for unit, group, value in zip(score.ids, groups, score.values.tolist(), strict=True):
                    units.append((*where, unit, group, repr(value)))
            elif score.estimate.draws is not None:
                values = " ".join(f"{value:.6g}" for value in score.estimate.draws)
                draws.append((*where, hash_ids(score.ids), values))
    _write_table(folder / UNITS, units)
    _write_table(folder / DRAWS, draws)
    evaluations = [_to_dict(one) for one in scored if one.results]
    record = {"schema": SCHEMA, "run": dict(run), "units_file": UNITS, "draws_file": DRAWS, "evaluations": evaluations}
    write_json(folder / RESULTS, {**record, "failures": dict(failures)})
    return folder / RESULTS


def _write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    # File names may hold bytes that are no text; they are kept as Python's escapes.
    write_atomic(path, table.getvalue().encode("utf-8", "backslashreplace"))


def _to_dict(one: Scored) -> dict[str, Any]:
    """One protocol of one model. What all its numbers share stands once, what is a number's own beside it."""
    first = one.results[0]
    shared = {
        key: value
        for key, value in first.config.items()
        if all(key in result.config and result.config[key] == value for result in one.results)
    }
    return {
        "protocol": {"id": first.protocol, "variant": first.variant, "settings": _settings(shared)},
        "model": {
            "name": first.config["model"],
            "weights_sha256": first.model_hash,
            "licence": first.config.get("licence", ""),
            **one.model,
        },
        "data": {
            "name": first.dataset,
            "listing_sha256": first.split_hash,
            "n_skipped": len(one.outcome.skipped),
            **one.data,
        },
        "features": {**one.features, "transform": first.config.get("transform", {})},
        "metrics": [
            _metric(result, score, shared) for result, score in zip(one.results, one.outcome.scores, strict=True)
        ],
        "breakdown": {name: dict(values) for name, values in one.outcome.breakdown.items()},
        **{there: shared.get(here) for here, there in _CHOICE.items()},
        "reference": _reference(one),
        "warnings": list(one.outcome.warnings),
    }


def _metric(result: Result, score: Score, shared: Mapping[str, Any]) -> dict[str, Any]:
    low, high = result.interval or (None, None)
    own = {key: value for key, value in result.config.items() if key not in shared}
    return {
        "name": result.metric,
        "variant": result.variant,
        "value": result.value,
        "unit": score.measure,
        "higher_is_better": score.high_is_good,
        "ci_low": low,
        "ci_high": high,
        "ci_method": "none" if low is None else f"percentile bootstrap, {RESAMPLES} draws of {score.drawn}",
        "ci_unit": score.unit,
        "n": result.n,
        "settings": _settings(own),
        **{there: own[here] for here, there in _CHOICE.items() if here in own},
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _ELSEWHERE}


def _reference(one: Scored) -> list[dict[str, Any]]:
    """The published numbers beside these, and why they do not compare where they do not."""
    found = []
    for result in one.results:
        if (reference := published(*key_of(result))) is None:
            continue
        reasons = [f"variant {result.variant}"] if result.variant == "ours" else []
        reasons += ["limited"] if result.config.get("limit") is not None else []
        changed = [name for name, value in one.defaults.items() if result.config.get(name) not in (value, None)]
        # Lists come as tuples from the table; their elements are metrics of their own.
        reasons += [f"{name} {result.config[name]}" for name in changed if not isinstance(one.defaults[name], tuple)]
        reasons += one.outcome.warnings
        found.append(
            {
                "metric": result.metric,
                "model": reference.model,
                "value": reference.value,
                "table": reference.table,
                "comparable": not reasons,
                "why_not": ", ".join(reasons),
            }
        )
    return found


def read_record(path: Path) -> Record:
    """Read a results folder or its results.json; both tables may lack. Raises DataError for what it does not know."""
    file = path / RESULTS if path.is_dir() else path
    raw = read_json(file)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise DataError(file, f"is no results file of schema {SCHEMA}", "give what opendino evaluate wrote")
    try:
        results = [_from_dict(one, metric) for one in raw["evaluations"] for metric in one["metrics"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(file, f"is no whole results file ({type(error).__name__} {error})", "evaluate again") from None
    if not results:
        raise DataError(file, "holds no result", "evaluate again")
    units: dict[tuple[Key, str], dict[str, float]] = {}
    groups: dict[tuple[Key, str], dict[str, str]] = {}
    draws: dict[tuple[Key, str], tuple[str, NDArray[np.float64]]] = {}
    for where, row in _read_table(file.parent / UNITS):
        units.setdefault(where, {})[row["unit"]] = float(row["value"])
        if row["group"]:
            groups.setdefault(where, {})[row["unit"]] = row["group"]
    for where, row in _read_table(file.parent / DRAWS):
        draws[where] = row["units_sha256"], np.array(row["values"].split(), np.float64)
    lacks = tuple(name for name in (UNITS, DRAWS) if not (file.parent / name).is_file())
    return Record(results, units, groups, draws, file.resolve().parent.name, lacks)


def _read_table(path: Path) -> Iterator[tuple[tuple[Key, str], Mapping[str, str]]]:
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                yield ((row["protocol"], row["dataset"], row["metric"]), row["model"]), row


def _from_dict(one: Mapping[str, Any], metric: Mapping[str, Any]) -> Result:
    model, data, low, high = one["model"], one["data"], metric["ci_low"], metric["ci_high"]
    choice = {here: metric.get(there, one.get(there)) for here, there in _CHOICE.items()}
    return Result(
        protocol=one["protocol"]["id"],
        variant=metric["variant"],
        dataset=data["name"],
        split_hash=data["listing_sha256"],
        n=metric["n"],
        metric=metric["name"],
        value=float(metric["value"]),
        interval=None if low is None else (low, high),
        model_hash=model["weights_sha256"],
        config={
            "model": model["name"],
            "licence": model["licence"],
            "skipped": data["n_skipped"],
            "transform": one["features"]["transform"],
            "unit": metric["ci_unit"],
            "measure": metric["unit"],
            "high_is_good": metric["higher_is_better"],
            **one["protocol"]["settings"],
            **metric["settings"],
            **{key: value for key, value in choice.items() if value is not None},
        },
    )
