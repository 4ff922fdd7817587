"""Licences of downloaded weights: shown, accepted once, remembered in a small file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from opendino.errors import DataError
from opendino.files import read_json, write_json

PAGES = {"DINOv3 License": "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"}


def memory() -> Path:
    """The file that remembers; remove it to be asked again."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "opendino" / "licences.json"


def accepted(licence: str, *, ask: str, given: bool = False) -> bool:
    """Whether a licence was accepted before, is accepted now (`given`, or OPENDINO_ACCEPT_LICENCE=1), or, where a
    person sits at the terminal, is accepted on being asked."""
    before = _remembered()
    if licence in before:
        return True
    if not given and os.environ.get("OPENDINO_ACCEPT_LICENCE") != "1" and not _asked(licence, ask):
        return False
    memory().parent.mkdir(parents=True, exist_ok=True)
    write_json(memory(), {"accepted": sorted({*before, licence})})
    print(f"opendino: {licence} accepted ({PAGES.get(licence, '')}); remembered in {memory()}", file=sys.stderr)
    return True


def _remembered() -> set[str]:
    try:
        return set(read_json(memory())["accepted"])
    except (DataError, OSError, KeyError, TypeError):
        return set()


def _asked(licence: str, ask: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"opendino: {ask}, under the {licence}: {PAGES.get(licence, '')}", file=sys.stderr)
    print("Accept it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
