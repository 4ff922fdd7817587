"""What every command that trains on a folder asks, checks and answers alike."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from opendino.cli.arguments import OptionalCount, OptionalNumber, OptionalPath, OptionalText, Switch
from opendino.cli.pictures import PictureArgs
from opendino.data.sources import Source, open_source
from opendino.data.transform import Transform
from opendino.errors import StoppedError, UsageError
from opendino.evaluation.probes import KnnProbe, baseline_from_rows
from opendino.monitor.incidents import IncidentLog
from opendino.train.config import WatchConfig
from opendino.train.run import RunDirectory


@dataclass(frozen=True)
class TrainingArgs(PictureArgs):
    """Pictures, length, run directory and how it is gone on with."""

    dir: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of pictures (searched through), a .tar of pictures, or a folder of .tar files."""
    steps: OptionalCount = None
    """Optimizer updates."""
    epochs: OptionalNumber = None
    """Passes over the pictures."""
    minutes: OptionalNumber = None
    """Time to spend; measured once, then a fixed number of steps. 30 when no length is given."""
    val: OptionalPath = None
    """Folder with class subfolders to score on; else a fixed fifth of DIR is."""
    out: OptionalPath = None
    """Directory to write to; by default it follows from the command."""
    save_minutes: OptionalNumber = None
    """Save every so many minutes; 10 by default."""
    save_steps: OptionalCount = None
    """Save every so many steps."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    allow: Switch = False
    """Go on with the run in --out although length, optimizer, precision or micro-batch changed; it is recorded."""
    data_changed: OptionalText = None
    """Go on although pictures came or went: continue (same place in the order) or restart-epoch (a new pass)."""
    grace: OptionalNumber = None
    """Seconds from a signal to the end, 60 by default; what cannot be saved by then is left."""
    take_over: Switch = False
    """Of a run directory that another machine holds and was not heard of for ten minutes."""
    json: Switch = False
    """Print the result as one JSON object."""
    fields: Switch = False
    """List every config field with the value it would have here and its reason, and stop."""


def save_fields(minutes: float | None, steps: int | None, grace: float | None) -> dict[str, Any]:
    """What a command says of saving, as fields of `SaveConfig`."""
    said = {"minutes": minutes, "steps": steps, "grace_s": grace}
    return {name: value for name, value in said.items() if value is not None}


def open_labelled(val: Path | str | None, source: Source, folder: Path, *, skip: bool) -> Source | None:
    """The pictures to score on, read as those of `folder`. Raises UsageError unless both have classes."""
    if val is None:
        return None
    labelled = open_source(Path(val), skip=skip, reading=source.reading)
    if not (labelled.classes and source.classes):
        lacking = val if not labelled.classes else folder
        raise UsageError(f"--val {val}", f"{lacking} has no class subfolders to score by", "leave --val out")
    return labelled


def note_skipped(run: RunDirectory, source: Source) -> None:
    """List what the scan left out among the incidents of a run that begins."""
    incidents = IncidentLog(run.incidents_file)
    if not incidents.rows():
        for skipped in source.skipped:
            incidents.append("skipped picture", 0, skipped.reason, ids=[skipped.id])


def build_probe(
    bank: Source,
    queries: Source,
    watch: WatchConfig,
    transform: Transform,
    device: torch.device,
    dataset: str,
    rows: Iterable[Mapping[str, Any]],
) -> KnnProbe:
    """k-NN within the limits of `watch`; its baseline is the first score of `rows` where a run is resumed."""
    return KnnProbe(
        bank,
        queries,
        transform,
        device=device,
        bank_limit=watch.knn_bank,
        query_limit=watch.knn_queries,
        dataset=dataset,
        baseline=baseline_from_rows(rows),
    )


def require_apart(out: Path, folder: Path) -> None:
    """Raise UsageError for output among the pictures."""
    if folder.is_dir() and folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out}", "lies among the pictures, so they would be learned from too", "choose another")


def answer(train: Callable[[], Any], *, as_json: bool, where: str = "run") -> None:
    """Train; with `as_json` print the result, or, under the key `where`, what was stopped, as one JSON object."""
    try:
        result = train()
    except StoppedError as stopped:
        if as_json:
            print(json.dumps({where: str(stopped.thing), "stopped": stopped.cause}))
        raise
    if as_json:
        json.dump(dataclasses.asdict(result), sys.stdout, default=str)
        print()
