"""What the machine had too little of, in a line, with what to lower: memory of a device or the host, open files."""

from __future__ import annotations

import errno
import re

_ASKED = re.compile(r"tried to allocate ([\d.,]+ ?(?:bytes|[KMGT]i?B))", re.IGNORECASE)
_FREE = re.compile(r"([\d.]+ [KMGT]iB) is free", re.IGNORECASE)
_TRAINING = (
    "the same command with --checkpoint (a third more compute) or --method.micro-batch N --allow (the same batch in "
    "parts) goes on from its last save; or begin another run with a smaller --data.batch-size"
)
FIXES = {
    **dict.fromkeys(("pretrain", "distill"), _TRAINING),
    "adapt": "begin another run with a smaller --data.batch-size, or with --lora",
    "evaluate": "lower --size, --set rows= or --set bank=, or take --device cpu",
    "embed": "take --tile for large pictures, a smaller model, or --device cpu",
}
"""What to lower, by verb."""


def shortage(error: Exception, verb: str) -> str | None:
    """One line for an error that says that memory or open files ran out, None for any other."""
    text = str(error)
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or text.startswith("Too many open files"):
        return "too many open files; raise the limit (ulimit -n 4096), or lower --data.workers"
    # torch has a type of its own for devices; its allocator for the host raises a plain RuntimeError.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not named and not (isinstance(error, RuntimeError) and "can't allocate memory" in text):
        return None
    where = "GPU memory" if "CUDA" in text else "memory"
    asked, free = _ASKED.search(text), _FREE.search(text)
    much = f": {_readable(asked[1])} more were needed" if asked else ""
    much += f", {free[1]} are free" if asked and free else ""
    return f"out of {where}{much}; {FIXES.get(verb, 'close other programs, or take smaller pictures')}"


def _readable(amount: str) -> str:
    """ "40000000000 bytes" -> "37.3 GiB", "4000000 bytes" -> "3.8 MiB"; other units as they are."""
    number, _, unit = amount.partition(" ")
    if unit != "bytes":
        return amount
    mebibytes = int(number.replace(",", "")) / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.1f} MiB"
