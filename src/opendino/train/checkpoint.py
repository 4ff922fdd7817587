"""Checkpoints: the whole state of a run as plain tensors, committed whole, checked when read.

`checkpoints/step-00001000/` holds `state.safetensors` (method and optimizer, by name) and `MANIFEST.json` (step,
hashes, log position). Nothing in it executes when read.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from opendino.errors import DataError, OpendinoError
from opendino.files import check_directory, commit_directory, fault_point, free_bytes, read_json
from opendino.train.method import Method

_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Resumed:
    """step: updates done; extra: what the loop stored beside; damaged: newer checkpoints that were set aside, why."""

    step: int
    extra: dict[str, Any]
    damaged: tuple[str, ...]


def _tensors(method: Method[Any], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def save_checkpoint(
    folder: Path, step: int, method: Method[Any], optimizer: torch.optim.Optimizer, extra: Mapping[str, Any]
) -> Path:
    """Write `folder/step-N` and read it back. Raises OSError (disk full, other bytes came back than were written) with
    everything that was there before untouched.

    Raises OpendinoError when a trained tensor is not finite: such a state must never become the newest good one.
    """
    tensors = _tensors(method, optimizer)
    for name, value in tensors.items():
        if name.startswith("method.") and "queue" not in name and not torch.isfinite(value).all():
            raise OpendinoError(name, f"holds NaN or infinity at step {step}", "not saved; the last checkpoint stays")
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if lack := lack_of_space(folder, size):
        raise OSError(errno.ENOSPC, lack)
    final = folder / f"step-{step:08d}"
    with commit_directory(final, {"step": step, "extra": dict(extra)}) as temporary:
        fault_point("checkpoint.before_tensors")
        try:
            save_file(tensors, temporary / "state.safetensors")
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(errno.EIO, str(error)) from None
        fault_point("checkpoint.after_tensors")
    if problem := check_directory(final):
        final.rename(final.with_name(f"{final.name}.damaged"))
        raise OSError(errno.EIO, f"read back otherwise than written: {problem}")
    return final


def lack_of_space(folder: Path, size: int) -> str | None:
    """None when `folder` has room for a checkpoint of `size` bytes and a fifth more; else a sentence."""
    free = free_bytes(folder)
    if free >= 1.2 * size:
        return None
    return f"a checkpoint needs {1.2 * size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free"


def expected_bytes(method: Method[Any]) -> int:
    """About the size of a checkpoint: the method's state, and two moments of what is trained."""
    state = sum(value.numel() * value.element_size() for value in method.state_dict().values())
    trained = [parameter for module in method.trained().values() for parameter in module.parameters()]
    return state + 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of committed checkpoints, oldest first."""
    found = [(int(match.group(1)), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def load_checkpoint(folder: Path, method: Method[Any], optimizer: torch.optim.Optimizer) -> Resumed | None:
    """Load the newest whole checkpoint into `method` and `optimizer`; None when there is none.

    A damaged one is renamed to `step-N.damaged` and the one before is taken. Raises DataError when all are damaged.
    """
    damaged = []
    checkpoints = list_checkpoints(folder)
    for step, path in reversed(checkpoints):
        problem = check_directory(path)
        if problem:
            damaged.append(f"{path.name}: {problem}")
            path.rename(path.with_name(path.name + ".damaged"))
            continue
        fault_point("checkpoint.before_load")
        tensors = load_file(path / "state.safetensors")
        method.load_state_dict({k.removeprefix("method."): v for k, v in tensors.items() if k.startswith("method.")})
        load_optimizer(optimizer, tensors)
        return Resumed(step, read_json(path / "MANIFEST.json")["extra"], tuple(damaged))
    if checkpoints:
        raise DataError(folder, "every checkpoint is damaged: " + ", ".join(damaged), "start again with another --out")
    return None


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer the moments of a checkpoint, by the names of its parameters."""
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, kind, name = key.split(".", 2)
            state.setdefault(name, {})[kind] = value
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name in state:
                optimizer.state[parameter] = {kind: _like(parameter, value) for kind, value in state[name].items()}


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """On the parameter's device, in its layout: the fused AdamW pairs numbers by where they lie in memory."""
    if value.shape != parameter.shape:
        return value.to(parameter.device) if value.ndim else value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def prune(folder: Path, keep: int, milestones: frozenset[int]) -> None:
    """Remove checkpoints but the newest `keep` (at least 2) and those at milestone steps."""
    checkpoints = list_checkpoints(folder)
    for step, path in checkpoints[: -max(keep, 2)]:
        if step not in milestones:
            # Renamed first: a half-removed folder must not carry a checkpoint's name.
            doomed = path.with_name(f"{path.name}.tmp-pruned")
            path.rename(doomed)
            fault_point("prune.after_rename")
            shutil.rmtree(doomed)
