"""Tensors from disk, treated as untrusted and told by content: safetensors with a checked header, PyTorch pickles.

A pickle is opened in another process (`apart`); this one only ever opens safetensors.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from opendino.errors import WeightsError
from opendino.weights.apart import read_apart
from opendino.weights.cut import cut_file, require_whole

MAX_HEADER_BYTES = 100_000_000  # the reference reader's own cap
MAX_TENSORS, MAX_RANK, MAX_NAME = 100_000, 8, 512
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_NOT_WEIGHTS = {
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves",
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, or of the shards that an index file names, on the CPU.

    Raises WeightsError in one line for anything else; nothing in the file is ever executed.
    """
    if not path.name.endswith(".index.json"):
        return _read_file(path)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(_shards(path)):
        # Links are followed, since Hugging Face's cache is made of them, but only to a regular file.
        if not (path.parent / shard).is_file():
            raise WeightsError(path, f"shard {shard[:60]} is missing, or no regular file", "copy or download it again")
        for name, tensor in _read_file(path.parent / shard).items():
            if name in tensors:
                raise WeightsError(path, f"tensor {name[:60]} stands in two shards")
            tensors[name] = tensor
    return tensors


def file_kind(path: Path) -> str:
    """`safetensors` or `pickle`, told by the first bytes.

    Raises WeightsError naming what a file is when it has a format that we do not open.
    """
    with open(path, "rb") as file:
        start = file.read(32)
    if start[8:9] == b"{":
        return "safetensors"  # its length, which comes first, may look like any magic number
    if start.lstrip().startswith(b"<"):
        raise WeightsError(path, *_web_page(path))
    for magic, what in _NOT_WEIGHTS.items():
        if start.startswith(magic):
            raise WeightsError(path, f"is {what}: refused", "convert it to safetensors where it came from")
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "pickle"
    if path.suffix in PICKLES:
        what = "is empty" if not start else "is no file that torch.save writes"
        raise WeightsError(path, f"{what}: refused", "copy or download it again")
    if path.suffix == ".safetensors":
        return "safetensors"
    if path.name in ("config.json", "preprocessor_config.json"):
        raise WeightsError(path, "is a file of a model folder, not the weights", f"give the folder: {path.parent}")
    raise WeightsError(path, "is no model", "give a run directory, a model folder, a .safetensors or a .pth file")


def _web_page(path: Path) -> tuple[str, str]:
    """What a browser or curl keeps when a link does not give the weights."""
    with open(path, "rb") as file:
        text = file.read(4096).lower()
    if b"expired" in text:
        return "is a web page that says that the link has expired", "ask for a new link on the page that gave it"
    if b"denied" in text or b"forbidden" in text:
        fix = "wait for the approval, or take the open mirror: opendino weights NAME --accept-licence"
        return "is a web page that denies access: the link is not approved, or was cut", fix
    return "is a web page or XML, not weights", "download it again"


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if file_kind(path) == "pickle":
            # What is mapped into memory stays readable when its file is gone.
            with tempfile.TemporaryDirectory(prefix="opendino-", ignore_cleanup_errors=True) as folder:
                return _read_safetensors(read_apart(path, Path(folder)))
        return _read_safetensors(path)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(path, f"cannot be read as safetensors ({error})", "copy or download it again") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    _check_header(path)
    return load_file(path)


def _check_header(path: Path) -> None:
    """What the safetensors library leaves open: our caps, and names that occur twice. It checks the offsets itself."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size - 8 < length <= MAX_HEADER_BYTES and file.read(1) == b"{":
            raise cut_file(path, 8 + length, "more than ")
        if size < 10 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"header of {length} bytes in a file of {size} bytes")
        text = file.read(length)
    header = json.loads(text, object_pairs_hook=_without_twins) if text.startswith(b"{") else None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ValueError(f"header is no object of at most {MAX_TENSORS} tensors")
    for name, entry in header.items():
        if len(name) > MAX_NAME:
            raise ValueError(f"a tensor name of {len(name)} characters")
        if name != "__metadata__" and not (isinstance(entry, dict) and len(entry.get("shape", ())) <= MAX_RANK):
            raise ValueError(f"tensor {name[:60]} has more than {MAX_RANK} dimensions or no shape")
    require_whole(path, length, header)


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
        raise WeightsError(path, "is no index of shards", "copy or download it again") from None
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith((".safetensors", ".bin")):
            raise WeightsError(path, f"shard name {str(shard)[:60]!r} is no plain .safetensors or .bin name: refused")
    return shards
