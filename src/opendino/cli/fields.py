"""Config fields as command-line flags: laid over a recipe's values, refused by name with the nearest one."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
from collections.abc import Sequence
from typing import TypeVar

import tyro

from opendino.errors import UsageError
from opendino.train.config import RunConfig, flatten, to_dict

T = TypeVar("T")


def parse_fields(config: RunConfig, flags: Sequence[str]) -> RunConfig:
    """Lay flags like ["--optim.lr", "1e-3"] over a config.

    Raises UsageError for an unknown field (with the nearest one), a value of the wrong kind, or one out of range.
    """
    known = {name.replace("_", "-") for name, _ in flatten(to_dict(config))}
    for flag in flags:
        name = flag[2:].split("=")[0].replace("_", "-")
        if flag.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean --{near[0]}?" if near else "list them: opendino pretrain DIR --fields"
            raise UsageError(flag.split("=")[0], "no such flag or config field", fix)
    # Without its reasons, a mapping whose every key would become a flag.
    changed = quiet_cli(RunConfig, flags, default=dataclasses.replace(config, reasons={}))
    return dataclasses.replace(changed, reasons=config.reasons)


def quiet_cli(kind: type[T], flags: Sequence[str], default: T) -> T:
    """tyro.cli whose complaint is one UsageError line instead of a box and an exit."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            # Booleans take a value, like every other field: --compile True.
            return tyro.cli(kind, default=default, args=list(flags), config=(tyro.conf.FlagConversionOff,))
    except SystemExit:
        words = " ".join(line.strip("│╭╰╮╯─ ") for line in said.getvalue().splitlines())
        words = " ".join(words.split()).split(" For full helptext")[0].removeprefix("Parsing error").strip()
        raise UsageError("command line", words or "not understood") from None


def describe_fields(config: RunConfig) -> str:
    """All fields with their values, one a line, as they would be typed."""
    lines = []
    for name, value in flatten(to_dict(config)):
        if name != "reasons":
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
            lines.append(
                f"--{name.replace('_', '-')} {shown}"
                + (f"    {config.reasons[name]}" if name in config.reasons else "")
            )
    return "\n".join(lines)
