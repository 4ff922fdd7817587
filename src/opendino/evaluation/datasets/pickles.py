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


def read_array(stub: Any, name: str) -> NDArray[Any]:
    """The numbers that a stub of numpy's pickled arrays or scalars describes, built here from their bytes.

    A plain number is an array of no dimensions. Raises DataError for other objects, and for arrays of objects.
    """
    if isinstance(stub, int | float):
        return np.asarray(stub)
    try:
        if stub.path.endswith(".scalar"):
            (kind, raw), shape, by_columns = stub.args, (), False
        else:
            _, shape, kind, by_columns, raw = stub.state
        return np.frombuffer(raw, _numbers(kind)).reshape(shape, order="F" if by_columns else "C")
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise DataError(name, f"does not hold the array of numbers that was expected ({error})") from None


def _numbers(stub: Any) -> np.dtype[Any]:
    """Of the stub of a dtype. Raises ValueError for one that is not of plain numbers."""
    code = stub.args[0] if isinstance(stub.args[0], str) else stub.args[0].decode()
    order = "|" if stub.state is None else stub.state[1]
    if code[:1] not in tuple("biuf"):
        raise ValueError(f"its elements are {code}")
    return np.dtype(f"{order if isinstance(order, str) else order.decode()}{code}")


def read_file(path: Path, limit: int = MAX_PICKLE_BYTES) -> bytes:
    """All bytes of a file that may not be larger than `limit`."""
    return _bytes(path, limit)


def _bytes(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise DataError(path, f"is larger than {limit >> 20} MiB, which no such list is")
    return path.read_bytes()
