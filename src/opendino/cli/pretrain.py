"""`opendino pretrain DIR`: learn from a folder of pictures without labels, and say whether it learned."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from opendino.cli.device import choose_device
from opendino.cli.fields import describe_fields, parse_fields
from opendino.cli.watchers import Watch, export_model, read_evenly
from opendino.data.loader import Loader
from opendino.data.sources import Source, open_source, split_stratified, subset
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.evaluation.probes import KnnProbe, baseline_from_rows
from opendino.models.family import FAMILY, build_model
from opendino.models.kmeans_stem import KMeansStem
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import read_rows
from opendino.monitor.verdict import verdict
from opendino.pages.report import write_report
from opendino.parallel import compile_blocks
from opendino.recipes import find_recipe
from opendino.recipes.situation import Situation
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig, differences, flatten, to_dict
from opendino.train.loop import StepResult, measure_seconds_per_step, train
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.run import RunDirectory, open_run

FEW_PICTURES, SMALL_PX = 300, 16
"""Below these it is said that not much can be learned."""
STEM_IMAGES = 2_000
"""Pictures whose patches start a k-means first layer."""

WORKING_SHARE = 0.92
"""Of a budget in minutes; the rest is for probes, pictures and saves."""


@dataclass(frozen=True)
class Length:
    """How long to train: one of the three, or none for the recipe's own."""

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            raise UsageError(" and ".join(f"--{name}" for name in given), "are different lengths", "give one of them")
        for name, value in given.items():
            if value <= 0:
                raise UsageError(f"--{name} {value:g}", "must be above 0")


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
    dir: Path | str,
    *,
    recipe: str = "small",
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
    fields: Sequence[str] = (),
    quiet: bool = False,
) -> PretrainResult:
    """Train a backbone on the pictures in `dir`; write model, report and checkpoints to `out`.

    Args:
        dir: folder of pictures, .tar of pictures, or folder of .tar files.
        recipe: a name, or a Python file with a function `recipe`.
        model: family member instead of the recipe's own choice.
        steps, epochs, minutes: the length; at most one. `small` takes 30 minutes when none is given.
        val: labelled pictures to score on; without it a fixed fifth of `dir` is queries when `dir` has classes.
        out: run directory; by default it follows from the other arguments, so the same call goes on with its run.
        allow: go on with a run of `out` under another length, optimizer setting or set of pictures; it is recorded.
        fields: config fields as on the command line: ["--optim.lr", "1e-3"].
        quiet: print nothing.
    Raises:
        UsageError, DataError: bad arguments or pictures, in one line.
        StoppedError: on Ctrl-C or TERM, with everything saved.
    """
    length = Length(steps, epochs, minutes)
    if length == Length() and recipe == "small":
        length = Length(minutes=30.0)
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    where = choose_device(device)
    folder = Path(dir)
    source = open_source(folder)
    if len(source) < 2:
        raise DataError(folder, "holds one picture", "learning compares pictures: give at least 2, better 1,000")
    console.print(f"{len(source):,} pictures in {folder}{_left_out(source)}")
    plan = _Plan(recipe, model, folder, source, length, save_minutes, save_steps, tuple(fields), where)
    plan.config()  # what is wrong with the command is said before anything is written
    labelled = open_source(Path(val)) if val else None
    out = Path(out) if out is not None else plan.default_out()
    if folder.is_dir() and folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out}", "lies among the pictures, so they would be learned from too", "choose another")
    if len(source) < FEW_PICTURES:
        console.print(f"few pictures: {len(source)} teach little; from about 1,000 on it was seen to learn")
    if plan.short_side < SMALL_PX:
        console.print(f"small pictures: {plan.short_side} px hold little to learn from")
    with open_run(out) as run:
        saved = run.config()
        config = plan.config(saved.steps if saved is not None and saved.minutes == length.minutes else 0)
        if config.steps == 0:
            config = plan.measured(console)
        _claim(run, saved, config, allow, console)
        return _train(config, source, labelled, where, run, console)


@dataclass(frozen=True)
class _Plan:
    """From what the command says to a config, as often as a step count becomes known."""

    recipe: str
    model: str | None
    folder: Path
    source: Source
    length: Length
    save_minutes: float | None
    save_steps: int | None
    fields: tuple[str, ...]
    device: torch.device

    @functools.cached_property
    def short_side(self) -> int:
        """Median short side of the pictures in pixels."""
        return _short_side(self.source)

    def config(self, measured_steps: int = 0) -> RunConfig:
        """The recipe for this situation with the command's fields laid over it; steps 0 while they are unknown."""
        situation = Situation(
            images=len(self.source),
            short_side_px=self.short_side,
            steps=self.length.steps or measured_steps,
            device=self.device.type,
            model=self.model,
        )
        config = self._overlaid(situation)
        if self.length.epochs is not None:
            steps = max(1, math.ceil(self.length.epochs * len(self.source) / config.data.batch_size))
            config = self._overlaid(dataclasses.replace(situation, steps=steps))
        save = dataclasses.replace(
            config.save,
            minutes=config.save.minutes if self.save_minutes is None else self.save_minutes,
            steps=config.save.steps if self.save_steps is None else self.save_steps,
        )
        return dataclasses.replace(
            config,
            minutes=self.length.minutes,
            save=save,
            data=dataclasses.replace(config.data, path=str(self.folder.resolve())),
            pictures=self.source.fingerprint,
        )

    def measured(self, console: Console) -> RunConfig:
        """Train twenty steps on a method that is then thrown away; the speed turns minutes into steps, once for all."""
        if self.length.minutes is None:
            raise UsageError(f"recipe {self.recipe}", "has no length of its own", "add --steps, --epochs or --minutes")
        console.print("measuring the speed on 20 steps")
        config = dataclasses.replace(self.config(), steps=1000)
        method = _build_method(config, self.source, self.device)
        seconds = measure_seconds_per_step(config, method, _build_loader(config, method, self.source, self.device))
        steps = max(20, round(self.length.minutes * 60 * WORKING_SHARE / seconds))
        batch = config.data.batch_size
        console.print(
            f"{batch / seconds:,.0f} images/s: {self.length.minutes:g} minutes are {steps:,} steps of {batch}"
        )
        return self.config(steps)

    def default_out(self) -> Path:
        """runs/PICTURES-RECIPE-HASH, the hash of what else the command says: the same command finds its run."""
        said = f"{self.folder.resolve()} {self.model} {self.length} {sorted(' '.join(self.fields).split('--'))}"
        name = self.folder.resolve().name.removesuffix(".tar") or "pictures"
        return Path("runs") / f"{name}-{Path(self.recipe).stem}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"

    def _overlaid(self, situation: Situation) -> RunConfig:
        config = find_recipe(self.recipe)(situation)
        if not self.fields:
            return config
        changed = parse_fields(config, self.fields)
        before, after = dict(flatten(to_dict(config))), dict(flatten(to_dict(changed)))
        asked = {key: "set by the command" for key in after if after[key] != before[key] and key != "reasons"}
        return dataclasses.replace(changed, reasons={**config.reasons, **asked})


def _left_out(source: Source) -> str:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(source.skip_counts.items()))
    return f"; left out: {counts}" if counts else ""


def _short_side(source: Source) -> int:
    """Median short side in pixels of up to 32 pictures."""
    sides: list[int] = []
    bad: list[DataError] = []
    for index in range(0, len(source), max(1, len(source) // 32)):
        try:
            sides.append(min(source.read(index).array.shape[:2]))
        except DataError as error:
            bad.append(error)
        if len(sides) == 32:
            break
    if not sides:
        cause = f"none of the {len(bad)} that were tried can be read, the first is {bad[0].thing} ({bad[0].cause})"
        raise DataError("pictures", cause, "open some of them with a viewer")
    return sorted(sides)[len(sides) // 2]


def _build_method(config: RunConfig, source: Source, device: torch.device) -> SelfDistillation:
    torch.manual_seed(config.seed)
    model = build_model(config.model.name, **config.model.changes)
    patch: Any = model.patch
    config.data.crops.check_patch(patch)
    stem = getattr(model, "stem", None)
    if isinstance(stem, KMeansStem):
        size = max(config.data.crops.global_px, _short_side(source) // patch * patch)
        transform = Transform(size=size, mean=config.data.mean, std=config.data.std, patch=patch)
        stem.fit(read_evenly(source, transform, STEM_IMAGES), config.seed)
    method = SelfDistillation(model, config.method, config.steps).to(device)
    if config.compile:
        for part in (*method.student.values(), *method.teacher.values()):
            compile_blocks(part)
    return method


def _build_loader(config: RunConfig, method: SelfDistillation, source: Source, device: torch.device) -> Loader:
    patch: Any = method.export().patch
    side = config.data.crops.global_px // patch
    return Loader(source, config.data, (side, side) if config.method.ibot_weight > 0 else None, device)


def _claim(run: RunDirectory, saved: RunConfig | None, config: RunConfig, allow: bool, console: Console) -> None:
    """Make the directory this run's, or refuse when it holds another one."""
    if saved is None:
        run.write_config(config)
        return
    changed = differences(saved, config)
    if changed.identity or (changed.scheduled and not allow):
        named = changed.identity or changed.scheduled
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        ways = "repeat its command to go on, or start anew with another --out"
        if not changed.identity:
            ways = f"add --allow to go on with them, {ways}"
        raise UsageError(run.path, f"holds a run with other settings ({', '.join(named[:3])}{more})", ways)
    if changed.scheduled:
        steps = [step for step, _ in list_checkpoints(run.checkpoints)]
        words = f"goes on with {', '.join(changed.scheduled)}"
        IncidentLog(run.incidents_file).append("settings changed", max(steps, default=0), words)
        console.print(f"from step {max(steps, default=0):,}: {words}")
        run.write_config(config)


def _knn_probe(
    config: RunConfig, source: Source, val: Source | None, transform: Transform, run: RunDirectory, device: torch.device
) -> KnnProbe | None:
    if val is not None:
        bank, queries = source, val
    elif len(source.classes) > 1:
        bank_indices, query_indices = split_stratified(source, 0.2, seed=0)
        bank, queries = subset(source, bank_indices), subset(source, query_indices)
    else:
        return None
    return KnnProbe(
        bank,
        queries,
        transform,
        device=device,
        bank_limit=config.watch.knn_bank,
        query_limit=config.watch.knn_queries,
        dataset=Path(config.data.path).name,
        baseline=baseline_from_rows(read_rows(run.metrics_file)),
    )


def _train(
    config: RunConfig, source: Source, val: Source | None, device: torch.device, run: RunDirectory, console: Console
) -> PretrainResult:
    method = _build_method(config, source, device)
    loader = _build_loader(config, method, source, device)
    patch: Any = method.export().patch
    transform = Transform(size=config.read_px, mode="square", mean=config.data.mean, std=config.data.std, patch=patch)
    incidents = IncidentLog(run.incidents_file)
    if not incidents.rows():
        for skipped in source.skipped:
            incidents.append("skipped picture", 0, skipped.reason, ids=[skipped.id])
    probe = _knn_probe(config, source, val, transform, run, device)
    if probe is None:
        console.print("no class subfolders: k-NN is skipped, health and pictures are not")
    card = {
        "name": config.model.name,
        "licence": "yours: trained from random weights on your pictures",
        "source": f"opendino pretrain, recipe {config.recipe}, {config.steps} steps",
        "pictures": len(source),
    }
    if (config.method.micro_batch or config.data.batch_size) == 1 and config.method.koleo_weight > 0:
        console.print("one picture at a time: the KoLeo term is off, since it needs a neighbour to move away from")
    if not FAMILY[config.model.name].from_paper:
        console.print(f"student: {config.model.name} ({FAMILY[config.model.name].note})")
    columns = (
        TextColumn("[bold]{task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        watch = Watch(config, run, source, transform, device, probe, card, say=progress.console.print)
        console.print(watch.measure_colours())
        task = progress.add_task("", total=config.steps, words="starting")

        def on_step(step: int, result: StepResult, images_per_s: float) -> None:
            watch.on_step(step, result.loss, result.grad_norm)
            terms = " ".join(f"{name} {value:.3f}" for name, value in result.values.items())
            words = f"loss {result.loss:.3f} ({terms}) grad {result.grad_norm:.2f} {images_per_s:,.0f} images/s"
            progress.update(task, completed=step, words=words)

        outcome = train(config, method, loader, run, watchers=watch.watchers(), on_step=on_step, carry=watch.carry)
    export_model(run.model, watch.model(method), transform, {**card, "step": config.steps})
    report = write_report(run.path, running=False)
    rows = read_rows(run.metrics_file)
    sentence = verdict(rows, config.steps)
    knn = [row["value"] for row in rows if row["kind"] == "knn"]
    console.print(f"\n[bold]{sentence}[/bold]")
    if outcome.skipped:
        bad = f"{len(outcome.skipped)} bad picture{'s' if len(outcome.skipped) > 1 else ''}"
        console.print(f"complete with {bad}, listed in {run.incidents_file}")
    best = watch.carry.get("best")
    if best and knn and best["value"] > knn[-1]:
        console.print(f"best k-NN {best['value']:.1f} % at step {best['step']:,}: {run.best_model}")
    console.print(f"model:  {run.model}\nreport: {report}\nnext:   opendino show pca IMAGE --model {run.path}")
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
class _Arguments:
    """Learn from pictures without labels.

    Example: opendino pretrain photos/ --minutes 30

    Class subfolders are used to score (k-NN), never to train. Every config field is a flag too, such as --optim.lr 1e-3
    or --method.prototypes 512; --fields lists them. The same command again goes on where it stopped.
    """

    dir: tyro.conf.Positional[Path]
    """Folder of pictures (searched through), a .tar of pictures, or a folder of .tar files."""
    recipe: str = "small"
    """Name of a recipe, or a Python file with a function `recipe`."""
    model: str | None = None
    """Student instead of the recipe's choice; `opendino models` lists them. vit_tiny is a ViT of the paper's kind."""
    steps: int | None = None
    """Optimizer updates."""
    epochs: float | None = None
    """Passes over the pictures."""
    minutes: float | None = None
    """Time to spend; measured once, then a fixed number of steps. 30 when no length is given."""
    val: Path | None = None
    """Folder with class subfolders to score on; else a fixed fifth of DIR is."""
    out: Path | None = None
    """Run directory; by default it follows from the command."""
    save_minutes: float | None = None
    """Save every so many minutes; 10 by default."""
    save_steps: int | None = None
    """Save every so many steps."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    allow: bool = False
    """Go on with the run in --out although length, optimizer or pictures changed; the change is recorded."""
    json: bool = False
    """Print the result as one JSON object."""
    fields: bool = False
    """List every config field with its value and reason, and stop."""


def run(argv: Sequence[str]) -> int:
    """Parse and run; what the command does not know itself is a config field."""
    arguments, rest = tyro.cli(_Arguments, args=list(argv), prog="opendino pretrain", return_unknown_args=True)
    named = {key: value for key, value in vars(arguments).items() if key not in ("dir", "json", "fields")}
    if arguments.fields:
        source = open_source(arguments.dir)
        length = Length(arguments.steps, arguments.epochs, arguments.minutes)
        device = choose_device(arguments.device)
        plan = _Plan(arguments.recipe, arguments.model, arguments.dir, source, length, None, None, tuple(rest), device)
        print(describe_fields(plan.config()))
        return 0
    result = pretrain(arguments.dir, fields=rest, quiet=arguments.json, **named)
    if arguments.json:
        json.dump({k: str(v) if isinstance(v, Path) else v for k, v in vars(result).items()}, sys.stdout)
        print()
    return 0
