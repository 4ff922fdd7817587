"""Results of several models side by side: the lines of every table, with paired differences over the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from opendino.evaluation.metrics.interval import Estimate, paired_bootstrap, paired_draws
from opendino.evaluation.published import published
from opendino.evaluation.record import Key, Record, key_of
from opendino.evaluation.results import Result
from opendino.evaluation.suite import PROTOCOLS
from opendino.pages.results_page import Cell, Line, short

Found = Mapping[str, tuple[Record, Result]]
"""By model, the result and the record that holds its units."""


def to_lines(records: Sequence[Record]) -> tuple[list[Line], list[str]]:
    """Table lines and column names of all records together, in the order met.

    A column is a model by its name and weights. Two of one name are told apart by the start of their weights' hashes;
    one that several records scored anew (at other settings, on other pictures) by the records' names. A line with two
    columns or more and values of the same units says the paired difference of each to the first, one of a layer that to
    the last layer.
    """
    columns = _columns(records)
    grouped: dict[Key, dict[str, tuple[Record, Result]]] = {}
    for number, record in enumerate(records):
        for result in record.results:
            grouped.setdefault(key_of(result), {})[columns[number, _identity(result)]] = (record, result)
    last = _last_layers(grouped)
    lines = [_line(key, found, last.get(key, {})) for key, found in grouped.items()]
    return lines, list(dict.fromkeys(columns.values()))


def _identity(result: Result) -> tuple[str, str]:
    return result.model_hash, str(result.config["model"])


def _columns(records: Sequence[Record]) -> dict[tuple[int, tuple[str, str]], str]:
    """The column of each model of each record."""
    scored: dict[tuple[str, str], dict[int, set[Key]]] = {}
    for number, record in enumerate(records):
        for result in record.results:
            scored.setdefault(_identity(result), {}).setdefault(number, set()).add(key_of(result))
    names, folders = [name for _, name in scored], [record.name for record in records]
    told = [name if folders.count(name) == 1 else f"{name} {number}" for number, name in enumerate(folders, 1)]
    columns = {}
    for (digest, name), keys in scored.items():
        known = name if names.count(name) == 1 else f"{name} ({digest[:6]})"
        again = sum(map(len, keys.values())) > len(set().union(*keys.values()))
        for number in keys:
            columns[number, (digest, name)] = f"{known}, {told[number]}" if again else known
    return columns


def _last_layers(grouped: Mapping[Key, Found]) -> dict[Key, Found]:
    """For each key of a layer, what was found of the same metric at the last layer that was scored."""
    sweeps: dict[Key, dict[int, Key]] = {}
    for key in grouped:
        protocol, dataset, metric = key
        name, sign, layer = metric.rpartition("_layer_")
        if sign and layer.isdigit():
            sweeps.setdefault((protocol, dataset, name), {})[int(layer)] = key
    return {
        key: grouped[sweep[max(sweep)]]
        for sweep in sweeps.values()
        for layer, key in sweep.items()
        if layer < max(sweep)
    }


def _line(key: Key, found: Found, last: Found) -> Line:
    results = [result for _, result in found.values()]
    first = results[0]
    reference = published(*key)
    words = ""
    if reference is not None:
        words = f"{short(reference.value)} ({reference.model}"
        words += f"; DINOv2 g {short(reference.dinov2)}" if reference.dinov2 is not None else ""
        words += f"; {reference.table})"
    notes = []
    if len({result.split_hash for result in results}) > 1:
        counts = " and ".join(f"{result.n:,}" for result in results)
        notes.append(f"not the same pictures ({counts}): do not compare")
    if others := _other_settings(first.protocol, results):
        notes.append(f"not at the same settings ({others})")
    limits = [result.config["limit"] for result in results if result.config.get("limit") is not None]
    return Line(
        *key,
        n=first.n,
        unit=str(first.config.get("unit", "unit")),
        cells={model: Cell(result.value, *(result.interval or (None, None))) for model, (_, result) in found.items()},
        high_is_good=bool(first.config.get("high_is_good", True)),
        published=words,
        gains=_to_first(found),
        of_layer=_to_last(found, last),
        limit=min(limits, default=None),
        note="; ".join(notes),
    )


def _other_settings(protocol: str, results: Sequence[Result]) -> str:
    """Settings of the protocol that differ, as "k 3 / 9, rows 32 / 8"; "" where none does."""
    known = PROTOCOLS[protocol].settings if protocol in PROTOCOLS else {}
    values = {name: list(dict.fromkeys(str(result.config.get(name)) for result in results)) for name in known}
    return ", ".join(f"{name} {' / '.join(each)}" for name, each in values.items() if len(each) > 1)


def _to_first(found: Found) -> dict[str, Cell]:
    """Every other model minus the first, over the same units; none where there is nothing to pair."""
    before, *others = found.items()
    gains = {name: _difference(before[1], after) for name, after in others}
    return {name: gain for name, gain in gains.items() if gain is not None}


def _to_last(found: Found, last: Found) -> dict[str, Cell]:
    """Every model at this layer minus the same one at the last layer."""
    gains = {name: _difference(last[name], here) for name, here in found.items() if name in last}
    return {name: gain for name, gain in gains.items() if gain is not None}


def _difference(before: tuple[Record, Result], after: tuple[Record, Result]) -> Cell | None:
    """After minus before over the same units, by their values or by draws of them; None where they are others."""
    (one, first), (other, second) = before, after
    here, there = _where(first), _where(second)
    left, right = one.units.get(here), other.units.get(there)
    if left and right and left.keys() == right.keys():
        of_unit = one.groups.get(here)
        groups = None if of_unit is None else [of_unit[unit] for unit in left]
        gain = paired_bootstrap(list(left.values()), [right[unit] for unit in left], groups=groups)
    elif here in one.draws and there in other.draws and _alike(one.draws[here], other.draws[there]):
        numbers = ((first, one.draws[here][1]), (second, other.draws[there][1]))
        gain = paired_draws(*(Estimate(result.value, np.nan, np.nan, drawn) for result, drawn in numbers))
    else:
        return None
    return Cell(gain.value, gain.low, gain.high)


def _alike(before: tuple[str, NDArray[np.float64]], after: tuple[str, NDArray[np.float64]]) -> bool:
    """Whether the same units were drawn as often."""
    return before[0] == after[0] and before[1].shape == after[1].shape


def _where(result: Result) -> tuple[Key, str]:
    return key_of(result), str(result.config["model"])
