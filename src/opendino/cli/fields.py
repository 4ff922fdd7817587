"""Config fields as command-line flags: laid over a recipe's values, refused by name with the nearest one, listed."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import tyro

from opendino.cli.arguments import flags_in, quiet_cli, unknown_flag
from opendino.train.config import RunConfig, flatten, to_dict


def split_fields(argv: Sequence[str], own: set[str]) -> tuple[list[str], list[str]]:
    """Part a command line into what the command itself knows (`own` flags) and config fields with their values.

    A field that is on or off may stand alone: --compile is --compile True.

    Raises UsageError for a flag that is neither, with the nearest of both.
    """
    values = {_flag(name): value for name, value in flatten(to_dict(RunConfig())) if name != "reasons"}
    mine, fields = list[str](), list[str]()
    items = list(argv)
    while items:
        item = items.pop(0)
        (flag,) = flags_in([item]) or [""]
        if not flag or flag in own:
            mine.append(item)
        elif flag in values:
            value = values[flag]
            if isinstance(value, bool) and "=" not in item and (not items or items[0] not in ("True", "False")):
                items.insert(0, "True")
            count = 0 if "=" in item else len(value) if isinstance(value, list | tuple) else 1
            fields += [item, *items[:count]]
            del items[:count]
        else:
            raise unknown_flag(flag, own | values.keys(), "list them: opendino pretrain --fields")
    return mine, fields


def parse_fields(config: RunConfig, flags: Sequence[str]) -> RunConfig:
    """Lay flags like ["--optim.lr", "1e-3"] over a config.

    Raises UsageError for an unknown field (with the nearest one), a value of the wrong kind, or one out of range.
    """
    _, flags = split_fields(flags, set())
    # Without its reasons, a mapping whose every key would become a flag. To tyro booleans take a value, as others do.
    changed = quiet_cli(
        RunConfig,
        flags,
        "opendino pretrain",
        default=dataclasses.replace(config, reasons={}),
        config=(tyro.conf.FlagConversionOff,),
    )
    return dataclasses.replace(changed, reasons=config.reasons)


@dataclass(frozen=True)
class Field:
    """One field of a config: dotted name, type in words, value, what it is, and why it has this value ("" if it is
    simply the default).
    """

    name: str
    type: str
    default: Any
    meaning: str
    reason: str


def list_fields(config: RunConfig) -> list[Field]:
    """Every field of `config`, nested ones by dotted name, in the order of the file."""
    return [
        Field(name, kind, value, meaning, config.reasons.get(name, ""))
        for name, kind, value, meaning in _walk(config, "")
        if name != "reasons"
    ]


def describe_fields(fields: Iterable[Field]) -> str:
    """Fields as they would be typed, one a line, with the reason of the value or else what the field is."""
    lines = []
    for field in fields:
        value = " ".join(map(str, field.default)) if isinstance(field.default, list | tuple) else field.default
        lines.append(f"{_flag(field.name)} {value}    {field.reason or field.meaning}".rstrip())
    return "\n".join(lines)


def _walk(config: Any, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    meanings, kinds = _meanings(type(config)), get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{field.name}.")
        else:
            kind = kinds[field.name]
            words = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            yield f"{prefix}{field.name}", words, value, meanings.get(field.name, "")


def _meanings(kind: type) -> dict[str, str]:
    """The string that follows each field in the source of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for line, after in zip(definition.body, definition.body[1:], strict=False):
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and documented:
            found[line.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
