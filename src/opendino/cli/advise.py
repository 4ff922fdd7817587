"""`opendino advise DIR --model MODEL`: take a model as it is, adapt it, or train anew? By short runs, measured here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from opendino.cli.adapt import adapt
from opendino.cli.arguments import OptionalCount, OptionalPath, Switch, parse_arguments
from opendino.cli.model import ModelArgs, as_flags, choose_model, model_changes, require_family
from opendino.cli.pretrain import pretrain
from opendino.data.sources import open_source, why_unscored
from opendino.errors import UsageError
from opendino.evaluation.advice import Advice, Course, Option, Way, advise_from
from opendino.evaluation.probes import unpack
from opendino.files import write_json
from opendino.monitor.metrics import read_rows
from opendino.pages.results_page import Cell, Line, write_results_page

LOOKS = ("--watch.knn-every", "0.5", "--watch.health-every", "1.0", "--watch.picture-every", "1.0")
"""Halfway and at the end, and nothing else that takes time."""


@dataclass(frozen=True)
class AdviseResult:
    """advice: what to do with the table behind it; command: to run next; out: folder of the short runs; page: the
    table to look at.
    """

    advice: Advice
    command: str
    out: Path
    page: Path


def advise(
    dir: Path | str,
    *,
    model: Path | str | None,
    val: Path | str | None = None,
    minutes: float = 10.0,
    hours: float = 1.0,
    steps: int | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    quiet: bool = False,
    **opening: Any,
) -> AdviseResult:
    """Compare the frozen model, a short adaptation and a short training from scratch on the pictures in `dir`.

    Args:
        dir: folder of pictures with class folders: without labels nothing can be compared.
        model: what `opendino.load` opens.
        val: labelled pictures to score on; without it a fixed fifth of `dir`.
        minutes: to spend on both short runs together. steps: of each, instead of minutes.
        hours: what a long run may take; gains are expected for it.
        out: folder for the runs; by default it follows from the other arguments. The same call goes on with its runs.
        opening: changes to the model as it is opened, as for `choose_model`.
    Raises:
        UsageError: no model, no class folders. Else as `adapt` and `pretrain`.
    """
    folder = Path(dir)
    if model is None:
        raise UsageError("opendino advise", "no model to ask about", "add --model MODEL; opendino models lists names")
    if not (minutes > 0 and hours > 0):
        raise UsageError("--minutes, --hours", "must be above 0")
    if why := why_unscored(open_source(folder)):
        fix = "put some pictures into one folder per class; a few dozen of each are enough"
        raise UsageError(folder, f"{why}, and without labels no way can be called better", fix)
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    chosen = choose_model(model, **opening)
    require_family(chosen.model)
    out = Path(out) if out is not None else Path("runs") / f"{folder.resolve().name}-advise"
    length: Mapping[str, Any] = {"steps": steps} if steps is not None else {"minutes": minutes / 2}
    shared: dict[str, Any] = {"val": val, "device": device, "quiet": quiet, **length}
    console.print(f"[bold]1 of 2: adapting {chosen.named}[/bold]")
    guard = ("--adapt.patience", "0", "--adapt.max-loss", "100", "--adapt.least-agreement", "0")
    adapted = adapt(folder, model=chosen.model, out=out / "adapt", fields=(*LOOKS, *guard), **shared)
    console.print("[bold]2 of 2: training from random weights[/bold]")
    trained = pretrain(folder, out=out / "pretrain", fields=LOOKS, **shared)
    frozen = unpack(_looks(adapted.run)[0]["correct"])
    courses = [_course(way, run, hours) for way, run in (("adapt", adapted.run), ("pretrain", trained.run))]
    advice = advise_from(frozen, courses)
    flags = as_flags(chosen.named, ModelArgs(model=str(model), **opening))
    command = _command(advice.way, folder, flags, 60 * hours, "" if val is None else f" --val {shlex.quote(str(val))}")
    write_json(out / "advice.json", {**asdict(advice), "command": command})
    untrained = unpack(_looks(trained.run)[0]["correct"])
    beneath = _beneath(untrained, len(frozen), val is None)
    page = _write_page(out / "advice.html", advice, folder.resolve().name, hours, len(frozen), beneath, command)
    for line in [*table(advice.options), beneath, "", advice.words, f"page:   {page}", f"next:   {command}"]:
        console.print(line)
    return AdviseResult(advice, command, out, page)


def table(options: Sequence[Option]) -> list[str]:
    """The options in letters of one width."""
    lines = [f"{'':<10}{'k-NN of a short run':<24}{'expected gain':<24}{'hours here':<12}"]
    for one in options:
        measured = f"{one.measured.value:.1f} % [{one.measured.low:.1f}, {one.measured.high:.1f}]"
        gain = "" if one.gain is None else f"{one.gain.value:+.1f} [{one.gain.low:.1f}, {one.gain.high:.1f}]"
        lines.append(f"{one.way:<10}{measured:<24}{gain:<24}{one.hours:<12.2g}".rstrip())
    return lines


def _beneath(untrained: NDArray[np.bool_], scored: int, held_out: bool) -> str:
    """What a reader of the table must know."""
    start = f"the network of pretrain has {100 * untrained.mean():.1f} % untrained"
    seen = "; it learns from the scored pictures too, without labels, which favours it a little" if held_out else ""
    return f"on {scored:,} pictures; {start}{seen}"


def _write_page(
    path: Path, advice: Advice, pictures: str, hours: float, scored: int, beneath: str, command: str
) -> Path:
    measured: dict[str, Cell] = {
        one.way: Cell(one.measured.value, one.measured.low, one.measured.high) for one in advice.options
    }
    gains: dict[str, Cell] = {
        one.way: Cell(one.gain.value, one.gain.low, one.gain.high) for one in advice.options if one.gain
    }
    lines = [
        Line("k-NN", pictures, "accuracy after a short run, %", scored, "picture", measured),
        Line("k-NN", pictures, f"expected gain over frozen after {hours:g} h, points", scored, "picture", gains),
    ]
    where = ", ".join(f"{one.way} {one.hours:.2g} h" for one in advice.options)
    return write_results_page(
        path,
        lines,
        [one.way for one in advice.options],
        title=advice.words,
        lead=f"Take the model as it is, adapt it, or train anew? Time that the long run takes here: {where}. "
        f"All {beneath}.",
        about={"k-NN": "class by the nearest pictures, no training"},
        command=command,
    )


def _looks(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "knn"]


def _course(way: Any, run: Path, hours: float) -> Course:
    """What a short run's log says: answers halfway and at the end, and its pace."""
    looks = _looks(run)
    last = looks[-1]
    middle = [row for row in looks if 0 < row["step"] < last["step"]]
    timed = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "step"]
    # The first steps warm up; what is looked at between is not training time, but it is part of a long run too.
    first, end = (timed[0], timed[-1]) if len(timed) > 1 else ({"time_s": 0.0, "step": 0}, timed[-1])
    pace = max(1e-6, (end["time_s"] - first["time_s"]) / max(1, end["step"] - first["step"]))
    halfway = unpack(middle[-1]["correct"]) if middle else None
    return Course(way, halfway, unpack(last["correct"]), last["step"], pace, max(1, round(3600 * hours / pace)))


def _command(way: Way, folder: Path, flags: str, minutes: float, val: str) -> str:
    pictures = shlex.quote(str(folder))
    if way == "frozen":
        return f"opendino embed {pictures} {flags} --out STORE"
    if way == "adapt":
        return f"opendino adapt {pictures} {flags} --minutes {minutes:g}{val}"
    return f"opendino pretrain {pictures} --minutes {minutes:g}{val}"


@dataclass(frozen=True)
class _Arguments(ModelArgs):
    """Take a model as it is, adapt it, or train anew? Short runs, measured here, with intervals.

    Example: opendino advise photos/ --model dinov2_vits14 --hours 2

    All three are scored by k-NN on the same held-out pictures of your class folders. Where intervals do not tell, it
    says so, and the answer is the cheapest: take the model as it is.
    """

    dir: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of pictures in class folders, a .tar of it, or a folder of .tar files."""
    val: OptionalPath = None
    """Folder with class subfolders to score on; else a fixed fifth of DIR."""
    minutes: float = 10.0
    """To spend on the two short runs together."""
    hours: float = 1.0
    """What a long run may take: gains are expected for it."""
    steps: OptionalCount = None
    """Of each short run, instead of minutes."""
    out: OptionalPath = None
    """Folder for the short runs and advice.json; by default it follows from DIR."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as one JSON object."""


def run(argv: Sequence[str]) -> int:
    arguments = parse_arguments(_Arguments, argv, "advise")
    if arguments.dir is None:
        example = "for example: opendino advise photos/ --model dinov2_vits14"
        raise UsageError("opendino advise", "no pictures given", example)
    named = {name: getattr(arguments, name) for name in ("model", "val", "minutes", "hours", "steps", "out", "device")}
    result = advise(arguments.dir, quiet=arguments.json, **named, **model_changes(arguments))
    if arguments.json:
        said = {"command": result.command, "out": str(result.out), "page": str(result.page)}
        print(json.dumps({**asdict(result.advice), **said}))
    return 0
