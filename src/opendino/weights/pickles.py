"""Tensors from PyTorch pickles (.pth, .pt, .bin, .ckpt), treated as hostile: nothing in them is ever executed.

This is what `apart` runs in a process of its own: `torch.load(weights_only=True)` alone, never anything else when that
fails; before it the archive is checked, after it only plain tensors are kept.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opendino.errors import WeightsError
from opendino.weights.cut import cut_archive, cut_file

MAX_TENSORS, MAX_NAME, MAX_DEPTH, MAX_VALUES, MAX_RANK = 100_000, 512, 8, 1_000_000, 8
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
FIX = "take a .safetensors file, or save the state_dict alone where it came from"


def read_pickle(path: Path) -> dict[str, Tensor]:
    """All tensors of a PyTorch file, memory-mapped where the format allows, nested names joined by dots.

    Values that are no tensors (step counters, settings) are left out.

    Raises WeightsError in one line: code to run, an archive that torch does not write, damage, no tensor.
    """
    try:
        zipped = zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:  # it raises for archives over several disks
        raise WeightsError(path, f"is a damaged zip archive ({_first_line(error)})", FIX) from None
    if zipped:
        _check_archive(path)
    elif _starts_as_archive(path):
        raise cut_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own about old protocols; what counts is refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        cause = f"asks to run {named.group(1)[:80]}" if named else "holds more than tensors"
        raise WeightsError(path, f"is a pickle that {cause}: refused, nothing was run", FIX) from None
    except MemoryError:
        raise WeightsError(path, "asks for more memory than there is: refused", FIX) from None
    except Exception as error:  # a damaged or hostile stream makes torch's reader raise almost anything
        if isinstance(error, EOFError) or "unexpected EOF" in str(error):
            raise cut_file(path, 0) from None
        raise WeightsError(
            path, f"is a pickle that cannot be read safely ({_first_line(error)}): refused", FIX
        ) from None
    tensors = dict(_tensors(content, path))
    if not tensors:
        raise WeightsError(path, "is a PyTorch file without tensors", FIX)
    return tensors


def _starts_as_archive(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_archive(path: Path) -> None:
    """torch stores members uncompressed and once: anything else is no work of torch, or a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(path, f"is a damaged zip archive ({_first_line(error)})", FIX) from None
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise WeightsError(path, "is a TorchScript archive, which holds code: refused", FIX)
    if not any(name.endswith("data.pkl") for name in names):
        raise WeightsError(path, "is a zip archive without weights", "give a file that torch.save wrote, or unpack it")
    size = path.stat().st_size
    if any(member.compress_type != zipfile.ZIP_STORED or member.file_size > size for member in members):
        raise WeightsError(path, "is an archive with compressed members, which torch does not write: refused", FIX)
    if len(set(names)) != len(names) or any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise WeightsError(path, "is an archive with members of one name, or with paths: refused", FIX)


def _tensors(content: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Walk nested dicts. The walk is bounded: a few bytes of pickle can hold a dict that unfolds without end."""
    left, found = MAX_VALUES, 0
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    while stack:
        name, value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise WeightsError(path, "nests without end: refused", FIX)
        if isinstance(value, Tensor):
            found += 1
            _check_tensor(name, value, found, path)
            yield name, value.detach()
        elif isinstance(value, dict):
            inner = [(key, item) for key, item in value.items() if isinstance(key, str)]
            if len(inner) > left:
                raise WeightsError(path, "nests without end: refused", FIX)
            stack.extend((f"{name}.{key}" if name else key, item, depth + 1) for key, item in reversed(inner))


def _check_tensor(name: str, tensor: Tensor, count: int, path: Path) -> None:
    if count > MAX_TENSORS or len(name) > MAX_NAME or tensor.ndim > MAX_RANK:
        raise WeightsError(path, f"tensor {name[:60]}: more than {MAX_TENSORS} tensors, a long name or many dimensions")
    plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.device.type != "cpu" or tensor.is_quantized:
        raise WeightsError(path, f"tensor {name[:60]} is no plain tensor: refused", FIX)
    if tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise WeightsError(path, f"tensor {name[:60]} of {list(tensor.shape)} is larger than the file: refused", FIX)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:120]}" if text else type(error).__name__
