"""Results of several models side by side: the lines of every table, with paired differences over the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from opendino.evaluation.examples import Example
from opendino.evaluation.metrics.interval import Estimate, paired_bootstrap, paired_draws
from opendino.evaluation.published import published
from opendino.evaluation.record import Key, Record, key_of
from opendino.evaluation.results import Result
from opendino.evaluation.surroundings import Scored
from opendino.pages.results_page import Cell, Drawn, Gallery, Line, short

Found = Mapping[str, tuple[Record, Result]]
"""By model, the result and the record that holds its units."""


def to_lines(records: Sequence[Record]) -> tuple[list[Line], list[str]]:
    """Table lines and model names of all records together, in the order met.

    Two models of one name are told apart by the start of their weights' hashes. A line with two models or more and
    values of the same units says the paired difference of each to the first, one of a layer that to the last layer.
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
    last = _last_layers(grouped)
    lines = [_line(key, found, last.get(key, {})) for key, found in grouped.items()]
    return lines, list(dict.fromkeys(names.values()))


def to_galleries(scored: Sequence[Scored]) -> list[Gallery]:
    """The drawn pictures of each protocol and data set, models side by side; of a sweep those of its last layer."""
    grouped: dict[tuple[str, str], dict[str, Sequence[Example]]] = {}
    for one in scored:
        if one.outcome.examples:
            first = one.results[0]
            models = grouped.setdefault((first.protocol, first.dataset), {})
            models[str(first.config["model"])] = one.outcome.examples
    galleries = []
    for (protocol, dataset), models in grouped.items():
        truths = {example.id: example.truth for examples in models.values() for example in examples}
        pictures = [
            Drawn(
                name,
                truth,
                {
                    model: (example.found, example.says)
                    for model, examples in models.items()
                    for example in examples
                    if example.id == name
                },
            )
            for name, truth in truths.items()
        ]
        galleries.append(Gallery(f"{protocol} on {dataset}: what was found", list(models), pictures))
    return galleries


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
        gains=_to_first(found),
        of_layer=_to_last(found, last),
        limit=first.config.get("limit"),
        note="" if same else "not the same pictures: do not compare",
    )


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
    elif here in one.draws and there in other.draws and one.draws[here][0] == other.draws[there][0]:
        numbers = ((first, one.draws[here][1]), (second, other.draws[there][1]))
        gain = paired_draws(*(Estimate(result.value, np.nan, np.nan, drawn) for result, drawn in numbers))
    else:
        return None
    return Cell(gain.value, gain.low, gain.high)


def _where(result: Result) -> tuple[Key, str]:
    return key_of(result), str(result.config["model"])
