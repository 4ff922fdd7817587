"""What a weights file that ends too early was to hold, so that a download that broke off is called that."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opendino.errors import WeightsError

_READ_BYTES = 2**26  # the list of tensors, which comes first in an archive; released ones have some 100 kB
_LOCAL_HEADER_BYTES = 30
_ITEM_BYTES = {
    "torch DoubleStorage": 8,
    "torch LongStorage": 8,
    "torch FloatStorage": 4,
    "torch IntStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}


def cut_file(path: Path, expected: int, about: str = "") -> WeightsError:
    """The error of a file that ends too early. expected: bytes that it states, 0 where nothing tells; `about` is put
    before the number where it leaves small parts out."""
    found = path.stat().st_size
    if expected > found:
        cause = f"is cut: it has {found:,} of {about}{expected:,} bytes ({found / expected:.0%})"
    else:
        cause = f"is cut: it has {found:,} bytes, and its end is not there"
    return WeightsError(path, cause, "download or copy it again")


def cut_archive(path: Path) -> WeightsError:
    """The error of a zip archive of torch that has lost its end. Its list of tensors is read as text, not run."""
    with open(path, "rb") as file:
        head = file.read(_READ_BYTES)
    name, extra = (int.from_bytes(head[place : place + 2], "little") for place in (26, 28))
    return cut_file(path, _stated_bytes(head[_LOCAL_HEADER_BYTES + name + extra :]), "about ")


def require_whole(path: Path, header_bytes: int, header: Mapping[str, Any]) -> None:
    """Raise WeightsError for a safetensors file that is shorter than its header says."""
    end = 0
    for name, entry in header.items():
        match entry.get("data_offsets"):
            case [int(), int(last)] if name != "__metadata__":
                end = max(end, last)
    if path.stat().st_size < 8 + header_bytes + end:
        raise cut_file(path, 8 + header_bytes + end)


def _stated_bytes(stream: bytes) -> int:
    """Bytes of all storages that a pickle of torch names, those of a stream that ends too early as far as it goes."""
    memo: dict[Any, Any] = {}
    pushed: list[Any] = []
    storages: dict[str, int] = {}
    try:
        for operation, argument, _ in pickletools.genops(io.BytesIO(stream)):
            if operation.name == "MARK":
                pushed = []
            elif operation.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = pushed[-1] if pushed else None
            elif operation.name in ("BINGET", "LONG_BINGET"):
                pushed.append(memo.get(argument))
            elif operation.name == "BINPERSID":
                match pushed:
                    case ["storage", str(kind), str(key), _, int(count)] if kind in _ITEM_BYTES:
                        storages[key] = count * _ITEM_BYTES[kind]
            elif argument is not None:
                pushed.append(argument)
    except ValueError:
        pass
    return sum(storages.values())
