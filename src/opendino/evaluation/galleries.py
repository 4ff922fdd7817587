"""The drawn pictures of an evaluation, sorted for its page: one gallery a protocol and data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opendino.evaluation.examples import Example
from opendino.evaluation.surroundings import Scored
from opendino.pages.results_page import Drawn, Gallery


def to_galleries(scored: Sequence[Scored]) -> list[Gallery]:
    """Models side by side; of a sweep of layers the pictures of the last one that was scored."""
    grouped: dict[tuple[str, str], dict[str, Scored]] = {}
    for one in scored:
        if one.outcome.examples:
            first = one.results[0]
            grouped.setdefault((first.protocol, first.dataset), {})[str(first.config["model"])] = one
    return [_gallery(models) for models in grouped.values()]


def _gallery(models: Mapping[str, Scored]) -> Gallery:
    one = next(iter(models.values()))
    first = one.results[0]
    layer = first.config.get("layer")
    at = f" at layer {layer}" if first.metric.endswith(f"_layer_{layer}") else ""
    truths = {example.id: example for each in models.values() for example in each.outcome.examples}
    found = {model: {example.id: example for example in each.outcome.examples} for model, each in models.items()}
    return Gallery(
        f"{first.protocol} on {first.dataset}: what was found{at}",
        list(models),
        [_drawn(example, found) for example in truths.values()],
        one.outcome.legend,
    )


def _drawn(example: Example, found: Mapping[str, Mapping[str, Example]]) -> Drawn:
    here = {model: examples[example.id] for model, examples in found.items() if example.id in examples}
    return Drawn(example.id, example.truth, {model: (one.found, one.says) for model, one in here.items()})
