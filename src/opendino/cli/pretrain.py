"""`opendino pretrain DIR`: learn from a folder of pictures without labels, and say whether it learned."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from opendino.cli.arguments import (
    OptionalText,
    flag_names,
    parse_arguments,
)
from opendino.cli.claim import check_policy, claim
from opendino.cli.device import choose_device
from opendino.cli.drift_watch import MaskedPictures, open_masked
from opendino.cli.fields import describe_fields, list_fields, split_fields
from opendino.cli.plan import Plan, build_loader, build_method, choose_length
from opendino.cli.progress import train_with_progress
from opendino.cli.protocol_watch import Planned, plan_protocols
from opendino.cli.stage_plan import StagePlan, check_stage, learned_from, licence_of, plan_stage
from opendino.cli.training import (
    TrainingArgs,
    answer,
    build_probe,
    note_skipped,
    open_labelled,
    require_apart,
    save_fields,
)
from opendino.cli.watchers import Watch, export_model
from opendino.data.beside import stated_fields
from opendino.data.images import Reading
from opendino.data.sources import Source, hold_out, open_source, why_unscored
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.evaluation.probes import KnnProbe
from opendino.models.family import FAMILY
from opendino.monitor.drift import stage_change
from opendino.monitor.metrics import read_rows
from opendino.monitor.verdict import verdict
from opendino.pages.report import write_report
from opendino.train.config import RunConfig
from opendino.train.run import RunDirectory, open_run

FEW_PICTURES, SMALL_PX = 300, 16
"""Below these it is said that not much can be learned."""


@dataclass(frozen=True)
class PretrainResult:
    """run: its directory; model: the folder to load; knn: percent at the end, None without labels; skipped: pictures
    that could not be read, by id with the reason.
    """

    run: Path
    model: Path
    steps: int
    seconds: float
    verdict: str
    knn: float | None
    skipped: Mapping[str, str]


def pretrain(
    dir: Path | str | None = None,
    *,
    recipe: str = "small",
    stage: str | None = None,
    from_: Path | str | None = None,
    gram_teacher: str | None = None,
    model: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    val: Path | str | None = None,
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
) -> PretrainResult:
    """Train a backbone on the pictures in `dir`; write model, report and checkpoints to `out`.

    Args:
        dir: folder of pictures, .tar of pictures, or folder of .tar files. A stage goes on with those of its run.
        recipe: a name, or a Python file with a function `recipe`.
        stage: "gram" or "highres": go on from the run `from_` in a new run, which keeps its model and heads.
        from_: directory of a run, or one of its checkpoints; for highres also a model.
        gram_teacher: a kept step of that run, a model, or "ema", instead of what the run's looks at dense features say.
        model: family member instead of the recipe's own choice.
        steps, epochs, minutes: the length; at most one. `small` takes 30 minutes when none is given.
        val: labelled pictures to score on; without it a fixed fifth of `dir` is queries when `dir` has classes.
        out: run directory; by default it follows from the other arguments, so the same call goes on with its run.
        allow: go on with a run of `out` under another length, optimizer setting, precision or micro-batch; recorded.
        data_changed: go on although pictures came or went since the run began: "continue" at the same place of the
            order, "restart-epoch" with a new pass over all of them; it is recorded.
        grace: seconds from a signal to the end, 60 by default; what cannot be saved by then is left.
        take_over: of a run directory that another machine holds and was not heard of for ten minutes.
        fields: config fields as on the command line: ["--optim.lr", "1e-3"].
        skip, reading: as for `data.sources.open_source`: by default the files beside the pictures.
        quiet: print nothing.
    Raises:
        UsageError, DataError: bad arguments or pictures, in one line.
        StoppedError: on Ctrl-C or TERM, with everything saved.
    """
    check_stage(recipe, stage, from_, gram_teacher, model)
    recipe = stage if stage is not None and recipe == "small" else recipe
    length = choose_length(recipe, steps, epochs, minutes)
    check_policy(data_changed)
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    where = choose_device(device)
    folder = Path(dir) if dir is not None else learned_from(stage, from_)
    if folder is None:
        raise UsageError("opendino pretrain", "no pictures given", "for example: opendino pretrain photos/")
    source = open_source(folder, skip=skip, reading=reading)
    if len(source) < 2:
        source.read(0)  # what is no picture is said to be none
        raise DataError(folder, "holds one picture", "learning compares pictures: give at least 2, better 1,000")
    console.print(f"{len(source):,} pictures in {folder}{left_out(source)}")
    save = save_fields(save_minutes, save_steps, grace)
    plan = Plan(recipe, model, folder, source, length, where, save, tuple(fields))
    if stage is not None and from_ is not None:
        plan = plan_stage(plan, stage, from_, gram_teacher)
    # What is wrong with the command is said before anything is written.
    first = plan.config()
    protocols = plan_protocols(first.watch.protocols, first.watch.protocols_limit, first.seed)
    masked = open_masked(first.watch, first.seed)
    if first.watch.picture_dir:
        open_source(Path(first.watch.picture_dir))
    labelled = open_labelled(val, source, folder, skip=skip is not False)
    out = Path(out) if out is not None else plan.default_out()
    require_apart(out, folder)
    if len(source) < FEW_PICTURES:
        console.print(f"few pictures: {len(source)}; from 600 on k-NN was seen to gain, below in textures at most")
    if plan.short_side < SMALL_PX:
        console.print(f"small pictures: {plan.short_side} px hold little to learn from")
    with open_run(out, take_over=take_over) as run:
        saved = run.config()
        config = plan.config(saved.steps if saved is not None and saved.minutes == length.minutes else 0)
        if config.steps == 0:
            config = plan.measured(console)
        config = claim(run, config, source, allow=allow, data_changed=data_changed, say=console.print)
        return _train(plan, config, source, labelled, protocols, masked, where, run, console)


def left_out(source: Source) -> str:
    """What the scan passed over, counted by reason; "" when nothing was."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(source.skip_counts.items()))
    return f"; left out: {counts}" if counts else ""


def _before(config: RunConfig) -> str:
    stage = config.stage
    if not stage.start:
        return ""
    anchor = f"; Gram teacher {stage.gram_teacher_hash} ({stage.gram_teacher})"
    return f", {stage.name} stage after {stage.start} ({stage.start_hash}){anchor}"


def knn_probe(
    config: RunConfig, source: Source, val: Source | None, transform: Transform, run: RunDirectory, device: torch.device
) -> KnnProbe | None:
    """k-NN on the labels at hand: of `val`, or of a fixed fifth of the pictures; None where there are none."""
    if val is not None:
        bank, queries = source, val
    elif not why_unscored(source):
        bank, queries = hold_out(source)
    else:
        return None
    dataset, rows = Path(config.data.path).name, read_rows(run.metrics_file)
    return build_probe(bank, queries, config.watch, transform, device, dataset, rows)


def _train(
    plan: Plan,
    config: RunConfig,
    source: Source,
    val: Source | None,
    protocols: Sequence[Planned],
    masked: MaskedPictures | None,
    device: torch.device,
    run: RunDirectory,
    console: Console,
) -> PretrainResult:
    method = build_method(config, source, device)
    if isinstance(plan, StagePlan):
        plan.begin(run, config, method, console)
    loader = build_loader(config, method, source, device)
    patch: Any = method.export().patch
    transform = Transform(size=config.read_px, mode="square", mean=config.data.mean, std=config.data.std, patch=patch)
    note_skipped(run, source)
    probe = knn_probe(config, source, val, transform, run, device)
    if probe is None:
        console.print(f"{why_unscored(source)}: k-NN is skipped, health and pictures are not")
    card = {
        "name": config.model.name,
        "licence": licence_of(plan) or "yours: trained from random weights on your pictures",
        "source": f"opendino pretrain, recipe {config.recipe}, {config.steps} steps{_before(config)}",
        "pictures": len(source),
        "reading": stated_fields(source.reading),
    }
    for remark in method.remarks(config.data.batch_size):
        console.print(remark)
    if not FAMILY[config.model.name].from_paper:
        console.print(f"student: {config.model.name} ({FAMILY[config.model.name].note})")
    watch, outcome = train_with_progress(
        config,
        method,
        loader,
        run,
        console,
        lambda say: Watch(config, run, source, transform, device, probe, card, say, protocols, masked),
    )
    export_model(run.model, watch.model(method), transform, {**card, "step": config.steps})
    report = watch.written("report", config.steps, lambda: write_report(run.path, running=False))
    rows = read_rows(run.metrics_file)
    sentence = verdict(rows, config.steps)
    knn = [row["value"] for row in rows if row["kind"] == "knn"]
    console.print(f"\n[bold]{sentence}[/bold]")
    if config.stage.start:
        console.print(stage_change(rows))
    if outcome.skipped:
        bad = f"{len(outcome.skipped)} bad picture{'s' if len(outcome.skipped) > 1 else ''}"
        console.print(f"complete with {bad}, listed in {run.incidents_file}")
    best = watch.carry.get("best")
    if best and knn and best["value"] > knn[-1]:
        looks = f"the best of {len(knn)} looks, which flatters it"
        console.print(f"best k-NN {best['value']:.1f} % at step {best['step']:,}, {looks}: {run.best_model}")
    opens = "" if FAMILY[config.model.name].kind in ("vit", "convnext") else " (opens with opendino.load alone)"
    console.print(f"model:  {run.model}{opens}\nreport: {report}\nnext:   opendino show pca IMAGE --model {run.path}")
    return PretrainResult(
        run=run.path,
        model=run.model,
        steps=outcome.steps,
        seconds=outcome.seconds,
        verdict=sentence,
        knn=knn[-1] if knn else None,
        skipped=outcome.skipped,
    )


@dataclass(frozen=True)
class _Arguments(TrainingArgs):
    """Learn from pictures without labels.

    Example: opendino pretrain photos/ --minutes 30

    Class subfolders are used to score (k-NN), never to train. Every config field is a flag too, such as --optim.lr 1e-3
    or --method.prototypes 512; --fields lists them. The same command again goes on where it stopped.
    """

    recipe: str = "small"
    """Name of a recipe, or a Python file with a function `recipe`. A stage has its own; --stage gram --recipe
    vit7b16_gram takes the published numbers."""
    stage: OptionalText = None
    """gram (Gram anchoring) or highres (larger, mixed sizes): goes on from another run, in a run of its own."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="RUN", help_behavior_hint="")] = None
    """The run that a stage goes on from, or one of its checkpoints; for highres also a model."""
    gram_teacher: OptionalText = None
    """A kept step of that run, a model, or ema (the average as it is); by default what its dense features say."""
    model: OptionalText = None
    """Student instead of the recipe's choice; `opendino models` lists them. vit_tiny is a ViT of the paper's kind."""


def run(argv: Sequence[str]) -> int:
    """Parse and run; what the command does not know itself is a config field."""
    own, fields = split_fields(argv, flag_names(_Arguments))
    arguments = parse_arguments(_Arguments, own, "pretrain")
    check_stage(arguments.recipe, arguments.stage, arguments.from_, arguments.gram_teacher, arguments.model)
    folder = arguments.dir if arguments.dir is not None else learned_from(arguments.stage, arguments.from_)
    if arguments.fields:
        plan = Plan(
            arguments.recipe,
            arguments.model,
            folder,
            None if folder is None else open_source(folder, **arguments.chosen(folder)),
            choose_length(arguments.recipe, arguments.steps, arguments.epochs, arguments.minutes),
            choose_device(arguments.device),
            fields=tuple(fields),
        )
        if arguments.stage is not None and arguments.from_ is not None:
            plan = plan_stage(plan, arguments.stage, arguments.from_, arguments.gram_teacher)
        print_fields(plan, as_json=arguments.json)
        return 0
    named = {} if folder is None else arguments.options(folder, "dir", "json", "fields")
    call = functools.partial(pretrain, folder, fields=fields, quiet=arguments.json, **named)
    answer(call, as_json=arguments.json)
    return 0


def print_fields(plan: Plan, *, as_json: bool) -> None:
    """Every field with the value that a command would train with; without a folder, those of its recipe."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    config = plan.config()
    if plan.folder is None:
        console.print(f"as for {plan.images:,} pictures of {plan.short_side} px; name a folder for its own values")
    elif config.steps == 0:
        config = plan.measured(console)
    fields = list_fields(config)
    if as_json:
        print(json.dumps([vars(one) for one in fields], indent=1))
    else:
        print(describe_fields(fields))
