"""`opendino models`: the model family as a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from opendino.cli.arguments import Switch, parse_arguments
from opendino.models.conv_mini import ConvMini
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.family import FAMILY, ModelSpec
from opendino.models.vit import ViTConfig


@dataclass(frozen=True)
class ModelsArgs:
    """List the models that can be trained by name.

    Example: opendino models --json
    """

    json: Switch = False
    """One JSON list, with each model's whole config."""


def list_models() -> tuple[ModelSpec, ...]:
    """Every model of the family: name, config, number of parameters, licence, source, and whether it is the paper's."""
    return tuple(FAMILY.values())


def run(argv: Sequence[str]) -> int:
    """Parse and print; returns the exit code."""
    args = parse_arguments(ModelsArgs, argv, "models")
    specs = list_models()
    if args.json:
        print(json.dumps([{**asdict(spec), **_shape(spec)} for spec in specs], indent=2))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140)  # a pipe has no width, and no row should break
    table = Table(box=None, pad_edge=False)
    for column in ("name", "params", "dim", "layers", "patch", "paper", "licence"):
        table.add_column(
            column, justify="right" if column in ("params", "dim", "layers", "patch") else "left", no_wrap=True
        )
    table.add_column("note", overflow="fold")
    for spec in specs:
        shape = _shape(spec)
        table.add_row(
            spec.name,
            _in_words(spec.params),
            *(str(shape[key]) for key in ("dim", "layers", "patch")),
            "yes" if spec.from_paper else "no",
            spec.licence.removesuffix(" License"),
            spec.note,
        )
    console.print(table)
    console.print("\nThe licence is that of released weights; weights that you train from scratch are yours.")
    console.print("next: opendino pretrain PICTURES/ --model vit_tiny")
    return 0


def _shape(spec: ModelSpec) -> dict[str, Any]:
    """Width, number of layers or stages, and pixels per feature of a spec, without building it."""
    config = spec.config
    if isinstance(config, ViTConfig):
        return {"dim": config.dim, "layers": config.depth, "patch": config.patch}
    if isinstance(config, ConvNeXtConfig):
        return {"dim": config.dims[-1], "layers": len(config.depths), "patch": 32}
    return {"dim": config.dim, "layers": ConvMini.num_layers, "patch": ConvMini.patch}


def _in_words(params: int) -> str:
    return f"{params / 1e9:.2f} B" if params >= 1e9 else f"{params / 1e6:.1f} M"
