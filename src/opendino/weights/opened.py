"""A weights file, read and recognised, before a model is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from opendino.errors import WeightsError
from opendino.models.conv_mini import ConvMiniConfig
from opendino.models.family import Config, build_from_config
from opendino.weights.config_hf import MAX_WIDTH, config_from_json, states_model
from opendino.weights.coverage import Coverage, measure
from opendino.weights.folder import find_weights, read_config
from opendino.weights.keys import Layout, Rule
from opendino.weights.keys_hf import TRANSFORMERS
from opendino.weights.keys_official import OWN
from opendino.weights.read import read_tensors
from opendino.weights.recognise import plain_names, recognise
from opendino.weights.shapes import Depth, count_blocks, heads_are_assumed, infer_config, missing_blocks, names_of


@dataclass(frozen=True)
class Opened:
    """A weights file that was read and recognised, before a model is made of it.

    tensors: under plain names; prefix: what was taken off in front of most.
    raw: parsed config.json, or None; folder: where it and the preprocessor's lie, for a checkpoint that of a model of
    its run. names: family members of this shape.
    """

    file: Path
    folder: Path
    layout: Layout
    config: Config
    tensors: dict[str, Tensor]
    rules: list[Rule]
    coverage: Coverage
    raw: Any
    ignored: list[str]
    names: tuple[str, ...]
    prefix: str


def open_weights(path: Path, heads: int | None = None, depth: Depth | None = None) -> Opened:
    """Read and recognise a weights file; no model is made. Raises WeightsError for what is unsafe or unknown.

    Args:
        heads, depth: as `infer_config` takes them, for a file beside which no config.json says it.
    """
    file = find_weights(path)
    found = plain_names(read_tensors(file), file)
    names = frozenset(found.tensors)
    beside = read_config(file)
    known = recognise(names)
    ignored: list[str] = []
    if beside is not None and (known is None or states_model(beside[0])):
        config, ignored = config_from_json(*beside, names)
        layout = known[0] if known else OWN if isinstance(config, ConvMiniConfig) else TRANSFORMERS
    elif known is not None:
        layout = known[0]
        heads = _stated_heads(beside) if heads is None else heads
        config = infer_config(*known, found.tensors, file, heads=heads, depth=depth)
        if heads is None and heads_are_assumed(config, found.tensors):
            ignored = [f"heads: {config.heads} assumed, of 64 features each; --heads N (heads=N) says otherwise"]  # type: ignore[union-attr]
    else:
        some = ", ".join(name[:60] for name in sorted(names)[:2])
        cause = f"keys look like {some}: no layout that is known"
        fix = (
            "known: official, transformers, timm and opendino names of DINOv3 and DINOv2; other models: timm:NAME=FILE"
        )
        raise WeightsError(file, cause, fix)
    rules = layout.rules(config, names)
    ours = empty_model(config).state_dict()
    coverage = measure(layout, rules, config, ours, found.tensors, found.left_out)
    raw, folder = (beside[0], beside[1].parent) if beside is not None else (None, file.parent)
    return Opened(
        file, folder, layout, config, found.tensors, rules, coverage, raw, ignored, names_of(config), found.prefix
    )


def _stated_heads(beside: tuple[Any, Path] | None) -> int | None:
    """What timm's config.json says where a model was built with its own arguments."""
    arguments = beside[0].get("model_args") if beside is not None and isinstance(beside[0], dict) else None
    heads = arguments.get("num_heads") if isinstance(arguments, dict) else None
    return heads if isinstance(heads, int) and 0 < heads <= MAX_WIDTH else None


def probably(opened: Opened) -> str:
    """In words, which model a file that does not fit seems to hold."""
    known = recognise(frozenset(opened.tensors))
    if known is None:
        return ""
    try:
        config = infer_config(*known, opened.tensors, opened.file)
    except WeightsError:
        return ""
    names = names_of(config)
    if names:
        looks = f"the tensors look like {' or '.join(names)} in {known[0].name} names"
        counts = count_blocks(*known, opened.tensors)
        missing = missing_blocks(config, counts)
        return f"{looks}, without {missing}{_as_it_is(counts, opened.raw)}" if missing else looks
    together = "; weights and config.json must belong together" if opened.raw is not None else ""
    return f"the tensors have {known[0].name} names, of no model of the family{together}"


def _as_it_is(counts: tuple[int, ...], raw: Any) -> str:
    """How to say that a file of fewer blocks is whole."""
    if raw is not None and states_model(raw):
        return ""  # its config.json is what must be changed
    how = f"depth={counts[0]} (--depth {counts[0]})" if len(counts) == 1 else f"depths={counts}"
    return f"; {how} takes it for a whole model of its own size"


def empty_model(config: Config) -> nn.Module:
    """The module of a config on the meta device: shapes without memory."""
    with torch.device("meta"), _Undrawn():
        return build_from_config(config)


class _Undrawn(TorchFunctionMode):
    """Leaves normal draws out: for one on the meta device torch imports its compiler, for two seconds of CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
