"""`opendino distill DIR --teacher M --student S`: students of a frozen teacher, which looks once at each picture."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from torch import nn

from opendino.cli.arguments import (
    OptionalPath,
    OptionalText,
    Switch,
    flag_names,
    parse_arguments,
)
from opendino.cli.claim import check_policy, claim
from opendino.cli.device import choose_device
from opendino.cli.distill_plan import (
    Job,
    NamedTeacher,
    StudentPlan,
    build_students,
    check_shared,
    measure_job,
)
from opendino.cli.distill_stage import DEFAULT_RECIPE, Asked, ask, job_before
from opendino.cli.distill_watch import TeacherScore, watch_student
from opendino.cli.fields import describe_fields, list_fields, split_fields
from opendino.cli.model import choose_model, require_family
from opendino.cli.plan import FEWEST_STEPS, WORKING_SHARE, Length
from opendino.cli.pretrain import knn_probe, left_out
from opendino.cli.progress import add_training, training_bars
from opendino.cli.protocol_watch import plan_protocols
from opendino.cli.teacher_heads import HeadsPlan, fit_teacher_heads, with_heads
from opendino.cli.training import TrainingArgs, answer, open_labelled, require_apart, save_fields
from opendino.cli.watchers import export_model
from opendino.data.images import Reading
from opendino.data.sources import Source, open_source
from opendino.errors import DataError, UsageError
from opendino.monitor.metrics import read_rows
from opendino.monitor.verdict import verdict
from opendino.pages.report import write_report
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig
from opendino.train.run import RunDirectory, open_run
from opendino.train.start import begin_student, newest_checkpoint
from opendino.train.teacher import Teacher
from opendino.train.together import train_together

DEFAULT_MINUTES = 30.0
HEADS_STEPS = 300
"""For heads on a frozen backbone, when nothing else is said."""


@dataclass(frozen=True)
class StudentResult:
    """run: its directory; model: the folder to load; knn: percent at the end, None without labels; skipped: pictures
    that could not be read, by id with the reason.
    """

    name: str
    run: Path
    model: Path
    steps: int
    seconds: float
    verdict: str
    knn: float | None
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class DistillResult:
    """out: directory of the job; heads: run that the teacher's heads come from, None when features were matched;
    teacher_knn: percent, None without labels.
    """

    out: Path
    heads: Path | None
    teacher_knn: float | None
    students: tuple[StudentResult, ...]


def distill(
    dir: Path | str | None = None,
    *,
    teacher: Path | str | nn.Module | None = None,
    student: str | Sequence[str] = (),
    recipe: str = DEFAULT_RECIPE,
    stage: str | None = None,
    from_: Path | str | None = None,
    heads: Path | str | None = None,
    heads_steps: int = HEADS_STEPS,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    val: Path | str | None = None,
    out: Path | str | None = None,
    save_minutes: float | None = None,
    save_steps: int | None = None,
    device: str = "auto",
    accept_licence: bool = False,
    allow: bool = False,
    data_changed: str | None = None,
    grace: float | None = None,
    take_over: bool = False,
    fields: Sequence[str] = (),
    skip: Path | bool = True,
    reading: Reading | None = None,
    quiet: bool = False,
) -> DistillResult:
    """Train students of a frozen teacher on the pictures in `dir`, each in a run directory of its own below `out`.

    Args:
        dir: folder of pictures, .tar of pictures, or folder of .tar files.
        teacher: what `opendino.load` opens, or a model that is open. A run brings its heads.
        student: family members; several are trained side by side, and the teacher looks at each picture once.
        recipe: distill_match (by the teacher's features), distill (by its heads), or a Python file with a `recipe`.
        stage: "highres": the students of the job `from_` (or one of them, by its run) go on at larger sizes in a job of
            their own; pictures, teacher, heads and students are then those of that job where none are named.
        heads: run whose heads the teacher has. Without heads, they are trained first, in `out`/teacher-heads.
        heads_steps: length of that.
        steps, epochs, minutes: the length; at most one; 30 minutes when none is given.
        val: labelled pictures to score on; without it a fixed fifth of `dir` is queries when `dir` has classes.
        accept_licence: of an open mirror of the teacher, without being asked.
        The rest: as for `pretrain`.
    Raises:
        UsageError, DataError, WeightsError: bad arguments, pictures or weights, in one line.
        StoppedError: on Ctrl-C or TERM, with everything saved.
    """
    names = (student,) if isinstance(student, str) else tuple(student)
    asked = ask(dir, teacher, names, recipe, heads, job_before(stage, from_))
    length = Length(steps, epochs, minutes)
    length = Length(minutes=DEFAULT_MINUTES) if length == Length() and asked.before is None else length
    check_policy(data_changed)
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    where = choose_device(device)
    folder, names = asked.pictures, asked.students
    source = open_source(folder, skip=skip, reading=reading)
    if len(source) < 2:
        source.read(0)  # what is no picture is said to be none
        raise DataError(folder, "holds one picture", "learning compares pictures: give at least 2, better 1,000")
    console.print(f"{len(source):,} pictures in {folder}{left_out(source)}")
    labelled = open_labelled(val, source, folder, skip=skip is not False)
    named = _open_teacher(asked.teacher, accept_licence)
    out = Path(out) if out is not None else _default_out(asked, named, length, fields)
    require_apart(out, folder)
    save = save_fields(save_minutes, save_steps, grace)

    def plans(named: NamedTeacher) -> list[StudentPlan]:
        more = {"device": where, "save": save, "fields": tuple(fields)}
        return [asked.plan(name, source, length, named, **more) for name in names]

    # What is wrong with the command is said before anything is written.
    first = plans(named)[0].config()
    plan_protocols(first.watch.protocols, first.watch.protocols_limit, first.seed)
    named = _find_heads(named, first, asked.heads)
    if first.distill.objective == "heads" and named.heads is None:
        theirs = HeadsPlan(
            *("teacher_heads", None, folder, source, Length(steps=heads_steps), where, save, ()),
            *(named, asked.patches, first),
        )
        named = fit_teacher_heads(theirs, out / "teacher-heads", console, take_over=take_over)
    begun = [RunDirectory(out / name).config() for name in names]
    known = next((one.steps for one in begun if one is not None and one.minutes == length.minutes), 0)
    configs = [plan.config(known) for plan in plans(named)]
    check_shared(configs)
    teaching = named.teacher(where)
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(open_run(out / name, take_over=take_over)) for name in names]
        if configs[0].steps == 0:
            affordable = _affordable(configs, length, source, teaching, where, console)
            configs = [plan.config(affordable) for plan in plans(named)]
        configs = [
            claim(run, config, source, allow=allow, data_changed=data_changed, say=console.print)
            for run, config in zip(runs, configs, strict=True)
        ]
        return _train(Job(source, labelled, named, where, out), configs, runs, teaching, console)


def _open_teacher(teacher: Path | str | nn.Module, accept_licence: bool) -> NamedTeacher:
    chosen = choose_model(teacher, accept_licence=accept_licence)
    require_family(chosen.model)
    channels = getattr(chosen.model.config, "channels", 3)
    if channels != 3:
        raise UsageError(f"--teacher {teacher}", f"takes {channels} channels", "training takes RGB for now")
    return NamedTeacher(chosen.model, chosen.named)


def _find_heads(named: NamedTeacher, config: RunConfig, heads: Path | str | None) -> NamedTeacher:
    """With the heads that were named, or those of its own run; without any where there are none, or none are wanted."""
    if config.distill.objective == "match":
        if heads:
            fix = "leave it out, or add --recipe distill"
            raise UsageError(f"--heads {heads}", "are not used when features are matched", fix)
        return named
    found = with_heads(named, Path(heads) if heads else Path(named.named))
    if found is None and heads:
        raise UsageError(f"--heads {heads}", "is no run with heads", "leave it out to train some")
    return found or named


def _default_out(asked: Asked, named: NamedTeacher, length: Length, fields: Sequence[str]) -> Path:
    """runs/PICTURES-RECIPE-HASH. Students are no part of it: another one joins its siblings and finds their heads."""
    started = "" if asked.before is None else " ".join(start.hash for start in asked.before.starts.values())
    folder = asked.pictures.resolve()
    said = f"{folder}{started} {named.hash} {length} {sorted(' '.join(fields).split('--'))}"
    name = folder.name.removesuffix(".tar") or "pictures"
    return Path("runs") / f"{name}-{Path(asked.recipe).stem}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"


def _affordable(
    configs: Sequence[RunConfig],
    length: Length,
    source: Source,
    teacher: Teacher,
    device: torch.device,
    console: Console,
) -> int:
    """Steps that minutes are worth, measured once, for all students together."""
    if length.minutes is None:
        raise UsageError(f"recipe {configs[0].recipe}", "has no length", "add --steps, --epochs or --minutes")
    console.print("measuring the speed on 20 steps")
    probed = [dataclasses.replace(config, steps=1000) for config in configs]
    seconds = measure_job(probed, source, teacher, device)
    steps = max(FEWEST_STEPS, round(length.minutes * 60 * WORKING_SHARE / seconds))
    batch = configs[0].data.batch_size
    console.print(f"{batch / seconds:,.0f} images/s: {length.minutes:g} minutes are {steps:,} steps of {batch}")
    return steps


def _train(
    job: Job, configs: Sequence[RunConfig], runs: Sequence[RunDirectory], teacher: Teacher, console: Console
) -> DistillResult:
    named = job.named
    methods, lessons = build_students(configs, job.source, teacher, job.device)
    for config, run, method in zip(configs, runs, methods, strict=True):
        if config.stage.start and not list_checkpoints(run.checkpoints):
            start = newest_checkpoint(Path(config.stage.start))
            begin_student(run, config, method, start)
            console.print(f"{config.model.name}: highres stage of {start.run}, from the average of step {start.step:,}")
    probe = knn_probe(configs[0], job.source, job.val, named.backbone.transform, runs[0], job.device)
    score = TeacherScore(probe, named.backbone)
    with training_bars(console) as progress:
        watches, trainings = [], []
        for config, run, method in zip(configs, runs, methods, strict=True):
            watch, training = add_training(
                *(progress, config, method, lessons, run),
                functools.partial(watch_student, job, config, run, method, score),
                name=config.model.name if len(configs) > 1 else "",
            )
            watches.append(watch)
            trainings.append(training)
        outcomes = train_together(trainings, job.out)
    results = []
    for config, method, run, watch, outcome in zip(configs, methods, runs, watches, outcomes, strict=True):
        export_model(run.model, watch.model(method), watch.transform, {**watch.card, "step": outcome.steps})
        report = watch.written("report", outcome.steps, functools.partial(write_report, run.path, running=False))
        rows = read_rows(run.metrics_file)
        sentence = verdict(rows, config.steps)
        knn = [row["value"] for row in rows if row["kind"] == "knn"]
        lines = [row for row in rows if row["kind"] == "teacher"]
        console.print(f"\n[bold]{config.model.name}: {sentence}[/bold]")
        if knn and lines:
            console.print(f"k-NN: student {knn[-1]:.1f} %, teacher {lines[0]['value']:.1f} %")
        if outcome.skipped:
            console.print(f"bad pictures: {len(outcome.skipped)}, listed in {run.incidents_file}")
        console.print(f"model:  {run.model}\nreport: {report}")
        results.append(
            StudentResult(
                name=config.model.name,
                run=run.path,
                model=run.model,
                steps=outcome.steps,
                seconds=outcome.seconds,
                verdict=sentence,
                knn=knn[-1] if knn else None,
                skipped=outcome.skipped,
            )
        )
    models = " ".join(f"--model {result.model}" for result in results)
    data = configs[0].data.path
    console.print(f"next:   opendino evaluate knn,linear {models} --model {named.named} --data {data}")
    rows = read_rows(runs[0].metrics_file)
    return DistillResult(
        out=job.out,
        heads=Path(named.heads_run) if named.heads_run else None,
        teacher_knn=next((row["value"] for row in rows if row["kind"] == "teacher"), None),
        students=tuple(results),
    )


@dataclass(frozen=True)
class _Arguments(TrainingArgs):
    """Teach small models what a large one knows.

    Example: opendino distill photos/ --teacher runs/photos-small-1a2b3c --student vit_tiny --student conv_mini

    The teacher is frozen and looks once at each picture, however many students learn from it. Each student has its own
    run directory below --out, resumes and exports on its own. Config fields are flags, as for opendino pretrain.
    """

    teacher: OptionalText = None
    """A run (its heads come along), a model folder, a weights file, or a name (`opendino models`)."""
    student: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME", help_behavior_hint="")
    ] = ()
    """A model of the family; again for another one."""
    recipe: str = DEFAULT_RECIPE
    """distill_match: by the teacher's features; distill: by its heads, as published; or a Python file with a function
    `recipe`."""
    stage: OptionalText = None
    """highres: students of an earlier job go on at larger, mixed sizes, in a job of their own."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="JOB", help_behavior_hint="")] = None
    """That job, or the run of one of its students: pictures, teacher and students are those of it."""
    heads: OptionalPath = None
    """Run whose heads the teacher has; without any, they are trained first, below --out."""
    heads_steps: int = HEADS_STEPS
    """How long heads are trained, where the teacher has none."""
    accept_licence: Switch = False
    """Accept the licence of an open mirror without being asked."""
    fields: Switch = False
    """List every config field with the value it would have for the first student and its reason, and stop."""


def run(argv: Sequence[str]) -> int:
    """Parse and run; what the command does not know itself is a config field."""
    own, fields = split_fields(argv, flag_names(_Arguments))
    arguments = parse_arguments(_Arguments, own, "distill")
    before = job_before(arguments.stage, arguments.from_)
    asked = ask(arguments.dir, arguments.teacher, arguments.student, arguments.recipe, arguments.heads, before)
    if arguments.fields:
        _print_fields(asked, arguments, fields)
        return 0
    named = arguments.options(asked.pictures, "dir", "json", "fields")
    call = functools.partial(distill, asked.pictures, fields=fields, quiet=arguments.json, **named)
    answer(call, as_json=arguments.json, where="out")
    return 0


def _print_fields(asked: Asked, arguments: _Arguments, flags: Sequence[str]) -> None:
    """Every field with the value that this command would train its first student with; steps 0 where minutes decide."""
    source = open_source(asked.pictures, **arguments.chosen(asked.pictures))
    length = Length(arguments.steps, arguments.epochs, arguments.minutes)
    more = {"device": choose_device(arguments.device), "fields": tuple(flags)}
    named = _open_teacher(asked.teacher, arguments.accept_licence)
    plan = asked.plan(asked.students[0], source, length, named, **more)
    plan = dataclasses.replace(plan, named=_find_heads(named, plan.config(), asked.heads))
    fields = list_fields(plan.config())
    print(json.dumps([vars(one) for one in fields], indent=1) if arguments.json else describe_fields(fields))
