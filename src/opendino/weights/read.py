"""Tensors from disk, treated as untrusted: safetensors with a checked header; pickles are refused by content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from opendino.errors import WeightsError

MAX_HEADER_BYTES = 100_000_000  # the reference reader's own cap
MAX_TENSORS, MAX_RANK, MAX_NAME = 100_000, 8, 512
INDEX = "model.safetensors.index.json"
_NOT_SAFETENSORS = {
    b"PK\x03\x04": "a PyTorch pickle (zip)",
    b"\x80": "a pickle",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves",
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file, or of the shards that an index file names, on the CPU.

    Raises WeightsError in one line for anything else; nothing in the file is ever executed.
    """
    if not path.name.endswith(".index.json"):
        return _read_file(path)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(_shards(path)):
        for name, tensor in _read_file(path.parent / shard).items():
            if name in tensors:
                raise WeightsError(path, f"tensor {name[:60]} stands in two shards")
            tensors[name] = tensor
    return tensors


def refuse_by_content(path: Path) -> None:
    """Raise WeightsError naming what a file is when its first bytes are those of a format that we do not open."""
    with open(path, "rb") as file:
        start = file.read(32)
    if start[8:9] == b"{":
        return  # a safetensors header; its length, which comes first, may look like any magic number
    for magic, what in _NOT_SAFETENSORS.items():
        if start.startswith(magic):
            fix = "convert it to safetensors where it came from"
            why = ", which can run code when it is opened" if "pickle" in what else ""
            raise WeightsError(path, f"is {what}{why}: refused", fix)


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        refuse_by_content(path)
        _check_header(path)
        return load_file(path)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(path, f"cannot be read as safetensors ({error})", "copy or download it again") from None


def _check_header(path: Path) -> None:
    """What the safetensors library leaves open: our caps, and names that occur twice. It checks the offsets itself."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"header of {length} bytes in a file of {size} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_without_twins)
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ValueError(f"header is no object of at most {MAX_TENSORS} tensors")
    for name, entry in header.items():
        if len(name) > MAX_NAME:
            raise ValueError(f"a tensor name of {len(name)} characters")
        if name != "__metadata__" and not (isinstance(entry, dict) and len(entry.get("shape", ())) <= MAX_RANK):
            raise ValueError(f"tensor {name[:60]} has more than {MAX_RANK} dimensions or no shape")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the header names something twice")
    return found


def _shards(path: Path) -> set[str]:
    try:
        index = json.loads(path.read_text())
        shards = set(index["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(path, "is no index of safetensors shards", "copy or download it again") from None
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise WeightsError(path, f"shard name {str(shard)[:60]!r} is no plain .safetensors name: refused")
    return shards
