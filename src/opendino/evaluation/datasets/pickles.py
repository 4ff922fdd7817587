"""Pickles of published sets, opened without running anything: a pickle is data here, never code."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.errors import DataError

MAX_PICKLE_BYTES = 64 << 20
"""No list of pictures is larger, and CIFAR's largest file (100 classes, train) has 148 MiB: it asks for more."""
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    TypeError,
    UnicodeDecodeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@dataclass
class Stub:
    """What stands for an instance of a class that a pickle names: its arguments and state as written, no behaviour.

    The classes themselves are never looked up; `path` of the instance's type is "module.name".
    """

    path = ""
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args, self.state, self.items = args, None, {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __hash__(self) -> int:
        return id(self)


class _Plain(pickle.Unpickler):
    """Opens lists, dicts, texts and numbers; the one thing that runs code in a pickle, finding a class, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


class _Stubbed(pickle.Unpickler):
    """Gives a `Stub` of its own for every class or function that is named."""

    def find_class(self, module: str, name: str) -> Any:
        return type("Stub", (Stub,), {"path": f"{module}.{name}"})


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain values alone. Raises DataError for anything else."""
    try:
        return _Plain(io.BytesIO(_bytes(path, MAX_PICKLE_BYTES))).load()
    except _BROKEN as error:
        raise DataError(
            path, f"holds more than lists, texts and numbers ({error})", "only plain ones are opened"
        ) from None


def read_stubbed_pickle(data: bytes, name: str, *, encoding: str = "ASCII") -> Any:
    """Any pickle, with a `Stub` wherever it names a class or calls a function. Raises DataError for a broken one.

    encoding: of texts of Python 2; "bytes" leaves them as bytes.
    """
    try:
        return _Stubbed(io.BytesIO(data), encoding=encoding).load()
    except _BROKEN as error:
        raise DataError(name, f"is a broken pickle ({type(error).__name__}: {error})") from None


def read_byte_array(stub: Any, name: str) -> NDArray[np.uint8]:
    """The uint8 array that a stub of numpy's pickled arrays describes; built here from its bytes. Raises DataError."""
    try:
        _, shape, _, by_columns, raw = stub.state
        array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(name, f"does not hold the array of bytes that was expected ({error})") from None
    return array


def read_file(path: Path, limit: int = MAX_PICKLE_BYTES) -> bytes:
    """All bytes of a file that may not be larger than `limit`."""
    return _bytes(path, limit)


def _bytes(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise DataError(path, f"is larger than {limit >> 20} MiB, which no such list is")
    return path.read_bytes()
