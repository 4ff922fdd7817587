"""Results of several models side by side: the lines of every table, with paired differences over the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opendino.evaluation.metrics.interval import paired_bootstrap
from opendino.evaluation.published import published
from opendino.evaluation.record import Key, Record, key_of
from opendino.evaluation.results import Result
from opendino.pages.results_page import Cell, Line, short


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
