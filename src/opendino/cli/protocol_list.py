"""What `opendino evaluate --list` and `--dry-run` print: protocols, their data and settings, and what would be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from opendino.evaluation.planning import Planned
from opendino.evaluation.suite import ENTRIES


def print_protocols(as_json: bool) -> None:
    """All rows of the suite table, those that are not built with their reason."""
    if as_json:
        fields = ("id", "about", "datasets", "layout", "source", "variant", "suites", "not_built")
        rows = [{**{name: getattr(e, name) for name in fields}, "settings": dict(e.settings)} for e in ENTRIES]
        print(json.dumps(rows, indent=2))
        return
    for entry in ENTRIES:
        if entry.score is not None:
            print(f"{entry.id:<16} {entry.about}\n{'':16} sets: {entry.datasets}\n{'':16} files: {entry.layout}")
            print(f"{'':16} get it: {entry.source}")
            if entry.settings:
                print(f"{'':16} --set: " + ", ".join(f"{key}={_text(value)}" for key, value in entry.settings.items()))
    print("\nnot built:")
    for entry in ENTRIES:
        if entry.score is None:
            print(f"{entry.id:<16} {entry.about} ({entry.datasets}): {entry.not_built}")


def print_plan(planned: Sequence[Planned], failures: Mapping[str, str], as_json: bool) -> None:
    """What was opened and would be scored; failures go into the JSON alone."""
    plan = [
        {
            "protocol": one.entry.id,
            "data": str(one.job.data),
            "dataset": one.data.name,
            "holds": one.data.words(),
            "settings": dict(one.job.settings),
        }
        for one in planned
    ]
    if as_json:
        print(json.dumps({"plan": plan, "failures": dict(failures)}, indent=2))
        return
    for row in plan:
        settings = ", ".join(f"{key}={_text(value)}" for key, value in row["settings"].items())
        print(f"{row['protocol']}: {row['dataset']}, {row['holds']}{'; ' * bool(row['settings'])}{settings}")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
