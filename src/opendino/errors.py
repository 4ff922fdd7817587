"""The one error type: what went wrong, why, and what to do, in one line, with an exit code."""

from __future__ import annotations


class OpendinoError(Exception):
    """A failure that a person can act on. Printed as `thing: cause; fix`.

    Args:
        thing: what it is about: a path, a config key, a model name.
        cause: what is wrong with it.
        fix: what to type or change; empty where nothing helps.
    """

    exit_code = 1

    def __init__(self, thing: object, cause: str, fix: str = "") -> None:
        self.thing, self.cause, self.fix = str(thing), cause, fix
        line = f"{self.thing}: {cause}" + (f"; {fix}" if fix else "")
        super().__init__(" ".join(line.split()))


class UsageError(OpendinoError):
    """Wrong command line or configuration."""

    exit_code = 2


class DataError(OpendinoError):
    """Input pictures that cannot be used."""

    exit_code = 3


class WeightsError(OpendinoError):
    """Weights or a model folder that cannot be used."""

    exit_code = 3


class ShapeError(OpendinoError):
    """Tensors whose sizes do not fit together."""


class StoppedError(OpendinoError):
    """Stopped on request with everything saved; the same command goes on."""

    exit_code = 75
