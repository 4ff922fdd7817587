"""`opendino adapt DIR --model MODEL`: go on from trained weights on one's own pictures, and keep what they knew."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from torch import nn

from opendino.cli.adapt_plan import AdaptPlan, build_adaptation
from opendino.cli.arguments import (
    OptionalPath,
    flag_names,
    parse_arguments,
)
from opendino.cli.claim import check_policy, claim
from opendino.cli.device import choose_device
from opendino.cli.fields import split_fields
from opendino.cli.guarded_watch import GuardedWatch, decision_of
from opendino.cli.model import ModelArgs, choose_model, model_changes, require_family
from opendino.cli.plan import build_loader, choose_length
from opendino.cli.pretrain import left_out, print_fields
from opendino.cli.progress import train_with_progress
from opendino.cli.training import (
    TrainingArgs,
    answer,
    build_probe,
    note_skipped,
    open_labelled,
    require_apart,
    save_fields,
)
from opendino.cli.watchers import export_model, replace_folder
from opendino.data.beside import stated_fields
from opendino.data.images import Reading
from opendino.data.sources import Source, hold_out, open_source, why_unscored
from opendino.errors import DataError, UsageError
from opendino.evaluation.agreement import AgreementProbe
from opendino.monitor.guard import Change, change_lines, changes, guard_verdict, looks_of
from opendino.monitor.metrics import read_rows
from opendino.pages.report import write_report
from opendino.train.config import RunConfig
from opendino.train.loop import ENDED
from opendino.train.run import RunDirectory, open_run


@dataclass(frozen=True)
class AdaptResult:
    """run: its directory; model: the folder to load, which holds the start's weights when nothing better was found.

    best_step: the look that was kept, 0 for the start; ended: why the run ended early, "" when it did not; changes:
    the table of before and after; skipped: pictures that could not be read, by id with the reason.
    """

    run: Path
    model: Path
    steps: int
    seconds: float
    best_step: int
    ended: str
    verdict: str
    changes: tuple[Change, ...]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class _Judges:
    """What an adaptation is judged on: `learned` is learned from; bank and queries are labelled, else bank is None;
    keep: the same of what is to be kept; held_out: pictures that agreement is measured on.
    """

    learned: Source
    bank: Source | None
    queries: Source
    keep: tuple[Source, Source] | None


def adapt(
    dir: Path | str,
    *,
    model: Path | str | nn.Module | None,
    keep: Path | str | None = None,
    val: Path | str | None = None,
    lora: int = 0,
    recipe: str = "adapt",
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    out: Path | str | None = None,
    save_minutes: float | None = None,
    save_steps: int | None = None,
    device: str = "auto",
    allow: bool = False,
    data_changed: str | None = None,
    grace: float | None = None,
    take_over: bool = False,
    fields: Sequence[str] = (),
    skip: Path | bool = True,
    reading: Reading | None = None,
    quiet: bool = False,
    **opening: Any,
) -> AdaptResult:
    """Train a backbone on, on the pictures in `dir`, while a guard watches gain and retention.

    Args:
        dir: folder of pictures, .tar of pictures, or folder of .tar files. Class folders are used to score, never to
            train; a fixed fifth is held out for it, unless there is `val`.
        model: what `opendino.load` opens, or a model that is open.
        keep: class folders of pictures that the model should still know; a fifth of each class are queries, or `val`
            where it holds `train` and `val`. Without it the share of the start's neighbours that stay is retention.
        lora: rank of low-rank changes (LoRA) instead of all weights; they are merged into what is written.
        opening: changes to the model as it is opened, as for `choose_model`.
        The rest: as for `pretrain`.
    Raises:
        UsageError, DataError, WeightsError: bad arguments, pictures or weights, in one line.
        StoppedError: on Ctrl-C or TERM, with everything saved.
    """
    if model is None:
        raise UsageError("opendino adapt", "no model to go on from", "add --model MODEL; opendino models lists names")
    if lora < 0:
        raise UsageError(f"--lora {lora}", "must be a rank of at least 1", "8 is usual")
    length = choose_length(recipe, steps, epochs, minutes)
    check_policy(data_changed)
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    where = choose_device(device)
    folder = Path(dir)
    source = open_source(folder, skip=skip, reading=reading)
    judges = _judges(source, folder, Path(val) if val else None, Path(keep) if keep else None, skip is not False)
    console.print(f"{len(source):,} pictures in {folder}{left_out(source)}")
    start: Any = choose_model(model, **opening).model
    require_family(start)
    _check_start(start)
    save = save_fields(save_minutes, save_steps, grace)
    kept = " ".join(part.fingerprint for part in judges.keep or ())
    plan = AdaptPlan(
        recipe, None, folder, judges.learned, length, where, save, tuple(fields), start=start, keep=kept, lora=lora
    )
    plan.config()  # what is wrong with the command is said before anything is written
    out = Path(out) if out is not None else plan.default_out()
    require_apart(out, folder)
    with open_run(out, take_over=take_over) as run:
        saved = run.config()
        config = plan.config(saved.steps if saved is not None and saved.minutes == length.minutes else 0)
        if config.steps == 0:
            config = plan.measured(console)
        config = claim(run, config, judges.learned, allow=allow, data_changed=data_changed, say=console.print)
        return _train(config, start, judges, where, run, console)


def _judges(source: Source, folder: Path, val: Path | None, keep: Path | None, skip: bool) -> _Judges:
    """Open and part everything that is scored on, before a model is opened. Raises UsageError or DataError."""
    labelled = open_labelled(val, source, folder, skip=skip)
    if labelled is not None:
        learned, queries = source, labelled
    elif len(source) >= 5:
        learned, queries = hold_out(source)
    else:
        source.read(0)  # what is no picture is said to be none
        fix = "give at least 5, better some hundreds"
        raise DataError(folder, f"holds {len(source)} picture{'s' if len(source) > 1 else ''}", fix)
    bank = learned if labelled is not None or not why_unscored(source) else None
    return _Judges(learned, bank, queries, _open_keep(keep, skip) if keep is not None else None)


def _open_keep(folder: Path, skip: bool) -> tuple[Source, Source]:
    """Bank and queries of what is to be kept."""
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        bank, queries = (open_source(folder / part, skip=skip) for part in ("train", "val"))
        why = "" if bank.classes and queries.classes else "fewer than two class subfolders"
    else:
        source = open_source(folder, skip=skip)
        why = why_unscored(source)
        bank, queries = hold_out(source)
    if why:
        fix = "one folder a class; or leave --keep out: the start's neighbours are then told"
        raise UsageError(f"--keep {folder}", f"{why}, so what is kept cannot be scored", fix)
    return bank, queries


def _check_start(start: Any) -> None:
    """Raises UsageError for a model that cannot be trained on."""
    config: Any = start.config
    if getattr(config, "channels", 3) != 3:
        raise UsageError(start.card["name"], f"takes {config.channels} channels", "training takes RGB for now")
    if getattr(config, "stride", None) not in (None, config.__dict__.get("patch")):
        raise UsageError("--stride", "is for reading", "leave it out, and open what comes out with it")


def _train(
    config: RunConfig, start: Any, judges: _Judges, device: torch.device, run: RunDirectory, console: Console
) -> AdaptResult:
    source = judges.learned
    method = build_adaptation(config, start, device)
    loader = build_loader(config, method, source, device)
    mode = start.transform.mode if start.transform.mode in ("square", "center") else "square"
    transform = replace(start.transform, size=config.read_px, mode=mode)
    note_skipped(run, source)
    rows = read_rows(run.metrics_file)
    own, keep = None, None
    if judges.bank is not None:
        name = Path(config.data.path).name
        own = build_probe(judges.bank, judges.queries, config.watch, transform, device, name, rows)
    else:
        console.print(f"{why_unscored(source)}: gain cannot be told, what is kept can")
    if judges.keep is not None:
        earlier = [{**row, "kind": "knn"} for row in rows if row["kind"] == "retention"]
        keep = build_probe(*judges.keep, config.watch, transform, device, "keep", earlier)
    else:
        console.print("no --keep: what stays is told by the start's neighbours on your pictures, not by what it knew")
    agreement = AgreementProbe(start, judges.queries, transform, device)
    card = {
        "name": config.model.name,
        "licence": start.card["licence"],
        "source": f"opendino adapt, {config.steps} steps from {start.card['source']}",
        "start": config.adapt.start,
        "pictures": len(source),
        "reading": stated_fields(source.reading),
    }

    def make_watch(say: Callable[[str], None]) -> GuardedWatch:
        return GuardedWatch(
            *(config, run, source, transform, device, own, card, say),
            start=start,
            keep=keep,
            agreement=agreement,
        )

    watch, outcome = train_with_progress(config, method, loader, run, console, make_watch)
    export_model(run.path / "model-last", watch.model(method), transform, {**card, "step": outcome.steps})
    decision = decision_of(watch)
    best = decision.best
    chosen = run.best_model if best.step else run.path / "model-start"
    if not chosen.exists():  # the disk was full when it was to be written
        chosen = run.path / "model-last"
    replace_folder(run.model, lambda fresh: shutil.copytree(chosen, fresh))
    report = watch.written("report", outcome.steps, lambda: write_report(run.path, running=False))
    rows = watch.metrics.rows()
    looks = looks_of(rows)
    table = tuple(changes(looks, best, rows))
    ended = str(watch.carry.get(ENDED, ""))
    sentence = guard_verdict(looks, decision, ended, rows)
    console.print(f"\n[bold]{sentence}[/bold]")
    for line in change_lines(table):
        console.print(line)
    if outcome.skipped:
        console.print(f"bad pictures: {len(outcome.skipped)}, listed in {run.incidents_file}")
    whose = "" if best.step else " (the start's own weights)"
    console.print(f"model:  {run.model}{whose}\nreport: {report}\nnext:   opendino show pca IMAGE --model {run.path}")
    return AdaptResult(
        run=run.path,
        model=run.model,
        steps=outcome.steps,
        seconds=outcome.seconds,
        best_step=best.step,
        ended=ended,
        verdict=sentence,
        changes=table,
        skipped=outcome.skipped,
    )


@dataclass(frozen=True)
class _Arguments(TrainingArgs, ModelArgs):
    """Go on from trained weights on your own pictures, and keep what they knew.

    Example: opendino adapt photos/ --model dinov2_vits14 --keep other-photos/ --minutes 30

    Fresh heads learn on the frozen backbone first; then it moves slowly, held near its start. The live pair tells what
    is gained on your pictures and what is kept; the best model is the one with the most gain that still keeps it. Every
    config field is a flag too (--fields). The same command goes on where it stopped.
    """

    dir: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of pictures, a .tar of pictures, or a folder of .tar files. Class subfolders score, they never train."""
    keep: OptionalPath = None
    """Pictures that the model should still know, in class folders; else the start's neighbours tell what stays."""
    val: OptionalPath = None
    """Folder with class subfolders to score on; else a fixed fifth of DIR, which is not learned from then."""
    lora: Annotated[int, tyro.conf.arg(metavar="RANK")] = 0
    """Train low-rank changes of this rank instead of all weights (ViTs; needs the extra adapt); 0: all weights."""
    recipe: str = "adapt"
    """Name of a recipe, or a Python file with a function `recipe`."""


def run(argv: Sequence[str]) -> int:
    """Parse and run; what the command does not know itself is a config field."""
    own, flags = split_fields(argv, flag_names(_Arguments))
    arguments = parse_arguments(_Arguments, own, "adapt")
    if arguments.fields:
        print_fields(_listing_plan(arguments, flags), as_json=arguments.json)
        return 0
    if arguments.dir is None:
        example = "for example: opendino adapt photos/ --model dinov2_vits14"
        raise UsageError("opendino adapt", "no pictures given", example)
    opening = model_changes(arguments)
    of_model = (field.name for field in dataclasses.fields(ModelArgs))
    named = arguments.options(arguments.dir, "dir", "json", "fields", *of_model)
    call = functools.partial(
        adapt, arguments.dir, model=arguments.model, fields=flags, quiet=arguments.json, **named, **opening
    )
    answer(call, as_json=arguments.json)
    return 0


def _listing_plan(arguments: _Arguments, flags: Sequence[str]) -> AdaptPlan:
    """For pictures and model as far as they are named."""
    folder = arguments.dir
    source = None if folder is None else open_source(folder, **arguments.chosen(folder))
    start: Any = None
    if arguments.model is not None:
        start = choose_model(arguments.model, **model_changes(arguments)).model
        require_family(start)
    return AdaptPlan(
        arguments.recipe,
        None,
        folder if start is not None else None,
        source,
        choose_length(arguments.recipe, arguments.steps, arguments.epochs, arguments.minutes),
        choose_device(arguments.device),
        fields=tuple(flags),
        start=start,
        lora=arguments.lora,
    )
