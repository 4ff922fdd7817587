"""The fields of results.json, as `docs/evaluate.md` states them: what each place must hold, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELDS: Mapping[str, str] = {
    "": "schema run units_file draws_file evaluations failures",
    "run": "command version device seconds peak_bytes seed utc",
    "evaluations": "protocol model data features metrics breakdown selected grid reference warnings",
    "evaluations.protocol": "id variant settings",
    "evaluations.model": "name params patch weights_sha256 dtype licence",
    "evaluations.data": "name split n n_skipped skipped listing_sha256 class_names",
    "evaluations.features": "size resize crop interpolation antialias mean std layers final_norm pooling transform",
    "evaluations.metrics": (
        "name variant value unit higher_is_better ci_low ci_high ci_method ci_unit n settings selected? grid?"
    ),
    "evaluations.grid": "points scores",
    "evaluations.metrics.grid": "points scores",
    "evaluations.data.skipped": "unit reason",
    "evaluations.reference": "metric model value table comparable why_not",
}
"""Place -> names; "?" marks those that may be missing. A place that is null or empty holds none."""


def check(record: Mapping[str, Any]) -> None:
    """Raise AssertionError naming the place whose fields are others."""
    for place, text in FIELDS.items():
        names = text.split()
        for found in _at([record], place.split(".") if place else []):
            needed = {name for name in names if not name.endswith("?")}
            assert needed <= set(found) <= {name.rstrip("?") for name in names}, (place, sorted(found))


def _at(values: list[Any], path: list[str]) -> list[Any]:
    for name in path:
        nested = [value[name] for value in values if value.get(name) is not None]
        values = [one for value in nested for one in (value if isinstance(value, list) else [value])]
    return values
