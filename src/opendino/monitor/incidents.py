"""What went wrong and was survived: skipped pictures, non-finite steps, failed saves; one JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opendino.monitor.metrics import append_or_warn, read_rows


class IncidentLog:
    """Writer and reader of incidents.jsonl. Never cut back: what happened in an abandoned stretch happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, step: int, words: str, ids: Sequence[str] = ()) -> None:
        """Write {"kind", "step", "words", "ids"}; `ids` are the pictures concerned."""
        append_or_warn(self.path, {"kind": kind, "step": step, "words": words, "ids": list(ids)})

    def rows(self) -> list[dict[str, Any]]:
        """All incidents so far, in order of writing."""
        return read_rows(self.path)
