"""What a run directory says, read for a page: tolerant of a line cut short, of missing files and of foreign rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
RECENT = 50
"""Logged steps over which the speed for the time left is taken."""


@dataclass(frozen=True)
class Picture:
    """The maps drawn at a step, as PNG bytes."""

    step: int
    png: bytes


@dataclass(frozen=True)
class RunRecord:
    """config: config.json or {}; rows, incidents: of the two logs, in order, each with `kind` and `step`."""

    path: Path
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    incidents: Sequence[Mapping[str, Any]]

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Rows of one kind: step, health, knn, picture."""
        return [row for row in self.rows if row["kind"] == kind]

    @property
    def step(self) -> int:
        """Steps done as far as the log knows."""
        return max((row["step"] for row in self.rows), default=0)

    @property
    def total_steps(self) -> int:
        """Planned steps; 0 when config.json is missing."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else 0

    def seconds(self) -> float:
        """Training time over all sittings: `time_s` starts at 0 again when a run is resumed."""
        times = [row["time_s"] for row in self.of_kind("step") if number(row.get("time_s")) is not None]
        ends = [now for now, after in zip(times, [*times, 0.0][1:], strict=True) if after < now]
        return float(sum(ends))

    def seconds_left(self) -> float | None:
        """Time to the end at the pace of the last logged steps of this sitting, looking and saving included."""
        recent = [row for row in self.of_kind("step") if number(row.get("time_s")) is not None][-RECENT:]
        start = len(recent) - 1
        while start > 0 and recent[start - 1]["time_s"] < recent[start]["time_s"]:
            start -= 1
        if len(recent) - start < 2:
            return None
        first, last = recent[start], recent[-1]
        pace = (last["time_s"] - first["time_s"]) / max(1, last["step"] - first["step"])
        return max(0.0, pace * (self.total_steps - self.step))

    def pictures(self, limit: int) -> list[Picture]:
        """At most `limit` of the maps, evenly spaced, first and last among them. Nothing outside the run is opened."""
        found = []
        for row in self.of_kind("picture"):
            path = (self.path / str(row.get("path", ""))).resolve()
            if path.is_relative_to(self.path.resolve()) and _is_png(path):
                found.append((row["step"], path))
        if len(found) > limit:
            found = [found[round(i * (len(found) - 1) / (limit - 1))] for i in range(limit)]
        return [Picture(step, path.read_bytes()) for step, path in found]

    def photos(self) -> bytes | None:
        """The photographs that the maps belong to, in the same columns."""
        path = self.path / "pictures" / "photos.png"
        return path.read_bytes() if _is_png(path) else None


def read_record(path: Path) -> RunRecord:
    """Read what is there. Never fails because of what a file holds."""
    try:
        config = json.loads((path / "config.json").read_bytes(), parse_constant=_not_finite)
    except (OSError, ValueError):
        config = {}
    return RunRecord(
        path,
        config if isinstance(config, dict) else {},
        _read_rows(path / "metrics.jsonl"),
        _read_rows(path / "incidents.jsonl"),
    )


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    rows: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line, parse_constant=_not_finite)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _is_png(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(PNG_MAGIC)) == PNG_MAGIC
    except OSError:
        return False


def _not_finite(_: str) -> None:
    return None
