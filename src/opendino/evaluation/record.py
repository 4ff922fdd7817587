"""What an evaluation leaves on disk: results.json for every reader, units.csv for paired comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opendino.errors import DataError
from opendino.evaluation.metrics.interval import paired_bootstrap
from opendino.evaluation.protocol import Outcome
from opendino.evaluation.published import published
from opendino.evaluation.results import Result, from_dict, to_dict
from opendino.files import read_json, write_atomic, write_json
from opendino.pages.results_page import Cell, Line, short

SCHEMA = 1
RESULTS, UNITS = "results.json", "units.csv"
_COLUMNS = ("protocol", "dataset", "metric", "model", "unit", "group", "value")

Key = tuple[str, str, str]
"""protocol, dataset, metric."""


@dataclass(frozen=True)
class Scored:
    """The results of one protocol for one model, with all that the table does not hold; model: what it is."""

    results: Sequence[Result]
    outcome: Outcome
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A results folder read back: results, and by (key, model) the value of each unit and its group, if it has one."""

    results: Sequence[Result]
    units: Mapping[tuple[Key, str], Mapping[str, float]] = field(default_factory=dict)
    groups: Mapping[tuple[Key, str], Mapping[str, str]] = field(default_factory=dict)


def key_of(result: Result) -> Key:
    """What two models' results must share to stand on one line."""
    return result.protocol, result.dataset, result.metric


def write_record(folder: Path, scored: Sequence[Scored], failures: Mapping[str, str], run: Mapping[str, Any]) -> Path:
    """Write both files; returns the path of results.json.

    failures: what was asked and could not be scored, with its reason; run: command, version, device, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in scored:
        for result, score in zip(one.results, one.outcome.scores, strict=True):
            if score.values is not None:
                groups = score.groups or ("",) * len(score.ids)
                for unit, group, value in zip(score.ids, groups, score.values.tolist(), strict=True):
                    writer.writerow([*key_of(result), result.config["model"], unit, group, repr(value)])
    # File names may hold bytes that are no text; they are kept as Python's escapes.
    write_atomic(folder / UNITS, table.getvalue().encode("utf-8", "backslashreplace"))
    details: list[dict[str, Any]] = [
        {
            "protocol": one.results[0].protocol,
            "model": {"name": one.results[0].config["model"], **dict(one.model)},
            "data": {
                "name": one.results[0].dataset,
                "split_hash": one.results[0].split_hash,
                "n_skipped": len(one.outcome.skipped),
            },
            "reference": _reference(one.results),
            "skipped": [[item.id, item.reason] for item in one.outcome.skipped],
            "breakdown": {name: dict(values) for name, values in one.outcome.breakdown.items()},
            "warnings": list(one.outcome.warnings),
        }
        for one in scored
        if one.results
    ]
    results = [to_dict(result) for one in scored for result in one.results]
    write_json(
        folder / RESULTS,
        {
            "schema": SCHEMA,
            "run": dict(run),
            "units_file": UNITS,
            "results": results,
            "details": details,
            "failures": dict(failures),
        },
    )
    return folder / RESULTS


def _reference(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The published numbers beside these, and why they do not compare where they do not."""
    found = []
    for result in results:
        if (reference := published(*key_of(result))) is None:
            continue
        reasons = [f"variant {result.variant}"] if result.variant == "ours" else []
        reasons += ["limited"] if result.config.get("limit") is not None else []
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
    """Read a results folder or its results.json; units.csv is optional. Raises DataError for what it does not know."""
    file = path / RESULTS if path.is_dir() else path
    raw = read_json(file)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise DataError(file, f"is no results file of schema {SCHEMA}", "give what opendino evaluate wrote")
    results = [from_dict(one) for one in raw["results"]]
    units: dict[tuple[Key, str], dict[str, float]] = {}
    groups: dict[tuple[Key, str], dict[str, str]] = {}
    table = file.parent / UNITS
    if table.is_file():
        with open(table, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                where = ((row["protocol"], row["dataset"], row["metric"]), row["model"])
                units.setdefault(where, {})[row["unit"]] = float(row["value"])
                if row["group"]:
                    groups.setdefault(where, {})[row["unit"]] = row["group"]
    return Record(results, units, groups)


def to_lines(records: Sequence[Record]) -> tuple[list[Line], list[str]]:
    """Table lines and model names of all records together, in the order met.

    Two models of one name are told apart by the start of their weights' hashes. A line with two models or more and
    values of the same units says the paired difference of each to the first.
    """
    by_hash = {result.model_hash: str(result.config["model"]) for record in records for result in record.results}
    names = {
        digest: name if list(by_hash.values()).count(name) == 1 else f"{name} ({digest[:6]})"
        for digest, name in by_hash.items()
    }
    grouped: dict[Key, dict[str, tuple[Record, Result]]] = {}
    for record in records:
        for result in record.results:
            grouped.setdefault(key_of(result), {})[names[result.model_hash]] = (record, result)
    return [_line(key, found) for key, found in grouped.items()], list(dict.fromkeys(names.values()))


def _line(key: Key, found: Mapping[str, tuple[Record, Result]]) -> Line:
    first = next(iter(found.values()))[1]
    reference = published(*key)
    words = ""
    if reference is not None:
        words = f"{short(reference.value)} ({reference.model}"
        words += f"; DINOv2 g {short(reference.dinov2)}" if reference.dinov2 is not None else ""
        words += f"; {reference.table})"
    same = len({result.split_hash for _, result in found.values()}) == 1
    return Line(
        *key,
        n=first.n,
        unit=str(first.config.get("unit", "unit")),
        cells={model: Cell(result.value, *(result.interval or (None, None))) for model, (_, result) in found.items()},
        high_is_good=bool(first.config.get("high_is_good", True)),
        published=words,
        gains=_paired(key, found),
        limit=first.config.get("limit"),
        note="" if same else "not the same pictures: do not compare",
    )


def _paired(key: Key, found: Mapping[str, tuple[Record, Result]]) -> dict[str, Cell]:
    """Every other model minus the first, over the same units; none where there is nothing to pair."""
    (_, (one, before)), *others = found.items()
    where = (key, str(before.config["model"]))
    left, of_unit = one.units.get(where), one.groups.get(where)
    gains = {}
    for name, (other, after) in others:
        right = other.units.get((key, str(after.config["model"])))
        if left and right and left.keys() == right.keys():
            groups = None if of_unit is None else [of_unit[unit] for unit in left]
            gain = paired_bootstrap(list(left.values()), [right[unit] for unit in left], groups=groups)
            gains[name] = Cell(gain.value, gain.low, gain.high)
    return gains
