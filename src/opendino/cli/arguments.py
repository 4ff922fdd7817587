"""Command lines into dataclasses: tyro parses and helps; every complaint is one line with its way out."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from opendino.errors import UsageError

T = TypeVar("T")

OptionalCount = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
OptionalNumber = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


def parse_arguments(kind: type[T], argv: Sequence[str], verb: str) -> T:
    """The arguments of `opendino VERB` as a `kind`; `--help` prints and exits.

    Raises UsageError, one line: an unknown flag (with the nearest one), a wrong, missing or superfluous value.
    """
    command = f"opendino {verb}"
    known = flag_names(kind)
    for flag in flags_in(argv):
        if flag not in known:
            raise unknown_flag(flag, known, f"see {command} --help")
    return quiet_cli(kind, argv, command, config=(tyro.conf.FlagCreatePairsOff,))


def flag_names(kind: Any) -> set[str]:
    """The flags of a dataclass without nesting, and those of help."""
    return {"-h", "--help"} | {f"--{field.name.rstrip('_').replace('_', '-')}" for field in dataclasses.fields(kind)}


def flags_in(argv: Sequence[str]) -> list[str]:
    """What starts with two dashes, without values: --optim.warmup_steps=3 -> --optim.warmup-steps."""
    return [item.split("=")[0].replace("_", "-") for item in argv if item.startswith("--")]


def unknown_flag(flag: str, known: Iterable[str], otherwise: str) -> UsageError:
    """The complaint about a flag that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(flag, sorted(known), n=1)
    return UsageError(flag, "no such flag", f"did you mean {near[0]}?" if near else otherwise)


def quiet_cli(kind: type[T], argv: Sequence[str], command: str, **options: Any) -> T:
    """tyro.cli whose complaint is one UsageError line instead of a box and an exit."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(argv), prog=command, **options)
    except SystemExit as stopped:
        if not stopped.code:  # --help has been printed
            raise
        raise _complaint(said.getvalue(), argv, command) from None


def _complaint(box: str, argv: Sequence[str], command: str) -> UsageError:
    """tyro's box in one line. Its wording is known for these cases; another one is passed on as it is."""
    words = " ".join(" ".join(line.strip("│╭╰╮╯─ ") for line in box.splitlines()).split())
    fix = f"see {command} --help"
    if found := re.search(r"Error parsing (\S+): (.*?)(?: [-─]* ?Argument helptext|$)", words):
        flag, why = found.groups()
        if several := re.match(r"no type matching \{None\}\|\{(.*?)\} could be", why):
            return UsageError(_as_typed(flag, argv), f"must be {_numbers_in(several.group(1))}", fix)
        wanted = "a number" if "to float" in why else "a whole number" if "int()" in why else ""
        return UsageError(_as_typed(flag, argv), f"not {wanted}" if wanted else why, fix)
    if found := re.search(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*?)\)", words):
        value, flag, choices = found.groups()
        names = re.findall(r"'(.*?)'", choices)
        near = difflib.get_close_matches(value, names, n=1)
        fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"
        return UsageError(_as_typed(flag, argv), "not among its values", fix)
    if found := re.search(r"Missing value for argument '(.*?)'\. Expected (\d+) values", words):
        flag, count = found.groups()
        return UsageError(_as_typed(flag, argv), "needs a value" if count == "1" else f"needs {count} values", fix)
    if found := re.search(r"Missing from .*?: (--\S+|\S+)", words):
        return UsageError(found.group(1), "is missing", fix)
    if found := re.search(r"Unrecognized options: (\S+)", words):
        return UsageError(found.group(1), "not expected here", fix)
    return UsageError(command, words or "not understood", fix)


def _numbers_in(pattern: str) -> str:
    """What tyro calls INT [INT ...] or FLOAT FLOAT, in words."""
    kinds = re.findall(r"INT|FLOAT", pattern)
    noun = "whole number" if "INT" in kinds else "number"
    return f"one {noun} or more" if "..." in pattern else f"{len(kinds)} {noun}s" if len(kinds) > 1 else f"a {noun}"


def _as_typed(flag: str, argv: Sequence[str]) -> str:
    """A flag with the value that followed it on the command line."""
    for index, item in enumerate(argv):
        name, equals, value = item.partition("=")
        if name.replace("_", "-") == flag:
            following = argv[index + 1] if index + 1 < len(argv) else ""
            value = value if equals else "" if following.startswith("--") else following
            return f"{flag} {value}".strip()
    return flag
