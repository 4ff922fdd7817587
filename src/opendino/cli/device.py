"""Choosing the device that a command runs on."""

from __future__ import annotations

import resource
import sys

import torch

from opendino.errors import UsageError


def choose_device(name: str) -> torch.device:
    """`auto` takes cuda, then mps, then cpu; a named device that is absent is refused with the ones that exist."""
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    if name.split(":")[0] not in present:
        raise UsageError(f"--device {name}", "not on this machine", f"here: {', '.join(present)}, or auto")
    return torch.device(name)


def peak_bytes() -> int:
    """Most memory that this process has held so far; Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
