"""`opendino evaluate PROTOCOL[,PROTOCOL...]`: score frozen backbones by the protocols of the paper."""

from __future__ import annotations

import difflib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from opendino import __version__
from opendino.cli.arguments import OptionalCount, OptionalPath, OptionalText, Switch, parse_arguments
from opendino.cli.device import choose_device, peak_bytes
from opendino.cli.model import ModelChanges, choose_model, model_changes, model_inputs
from opendino.cli.output import OutputFolder, claim_folder
from opendino.cli.protocol_list import print_plan, print_protocols
from opendino.errors import DataError, UsageError
from opendino.evaluation.galleries import to_galleries
from opendino.evaluation.planning import Planned, failure_words, layer_jobs, named_by_layer, plan
from opendino.evaluation.protocol import Job, Subject
from opendino.evaluation.record import DRAWS, RESULTS, UNITS, read_record, write_record
from opendino.evaluation.results import Result, weights_hash
from opendino.evaluation.side_by_side import to_lines
from opendino.evaluation.stored import StoredFeatures, is_stored, stored_subject
from opendino.evaluation.suite import BOTH, ENTRIES, find
from opendino.evaluation.surroundings import Scored, scored
from opendino.files import write_atomic
from opendino.pages.results_page import Cell, cell_words, markdown_table, text_table, write_results_page
from opendino.weights.by_timm import is_timm

NAMED = 3
"""Pictures that were left out and are named."""


@dataclass(frozen=True)
class Evaluation:
    """results: every number; failures: what could not be scored and why; warnings: in words, such as what was left out;
    page, table, record: files in `out`.
    """

    results: Sequence[Result]
    failures: Mapping[str, str]
    warnings: Sequence[str]
    out: Path
    record: Path
    page: Path
    table: Path


def evaluate(
    protocols: str,
    *,
    model: Sequence[Path | str] | Path | str,
    data: Path | str | Mapping[str, Path | str],
    out: Path | str | None = None,
    limit: int | None = None,
    seed: int = 0,
    size: int | None = None,
    settings: Mapping[str, str] | None = None,
    layers: str | None = None,
    cache: Path | str | None = None,
    device: str = "auto",
    quiet: bool = False,
    **changes: Any,
) -> Evaluation:
    """Score one or more backbones, with frozen weights, by one or more protocols.

    Args:
        protocols: "knn,linear" or a suite, "fast" or "full"; `opendino evaluate --list` shows them.
        model: what `opendino.load` takes, one or more.
        data: root of the data, or one for each protocol.
        out: folder for results.json, its tables and pages; default: `evaluation-` and the protocols.
        limit: at most so many pictures a part; the numbers then compare with nothing published.
        size: side in pixels that global protocols show the model; default: the model's own.
        settings: of protocols, as text: "rows" for all that have it, "vos.rows" for one.
        layers: "all", or numbers from 0 with commas between: protocols with a `layer` are scored at each of them.
        cache: folder for features, by default `features/` in `out`.
        changes: stride=, channels=, mean= and what else `cli.model.choose_model` takes, for every model.
    Raises:
        UsageError: unknown protocol or setting; `out` holds other files. DataError: not one protocol could be scored.
    """
    if cache is not None and Path(cache).exists() and not Path(cache).is_dir():
        raise UsageError(f"--cache {cache}", "is no folder")
    started = time.monotonic()
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    folder = Path(out) if out is not None else Path("evaluation-" + protocols.replace(",", "-"))
    job = Job(Path(), limit, seed, Path(cache) if cache is not None else folder / "features")
    planned, failures = plan(find(protocols), data, job, settings or {})
    named = [model] if isinstance(model, str | Path) else model
    if layers is not None and not any("layer" in one.job.settings for one in planned):
        raise UsageError(f"--layers {layers}", f"none of {protocols} reads a layer", "leave --layers out")
    subjects = _told_apart([_subject(one, size, changes) for one in named])
    for subject in subjects:
        for one in planned:
            layer_jobs(one, layers, subject)  # a layer that one lacks is said before hours of scoring
    inputs = {
        "protocols": protocols,
        "limit": limit,
        "seed": seed,
        "size": size,
        "settings": dict(settings or {}),
        "layers": layers,
        "data": {one.entry.id: one.job.data for one in planned},
        "models": [model_inputs(one.model, one.transform) for one in subjects],
    }
    output = claim_folder(folder, "evaluate", inputs)
    found: list[Scored] = []
    place = choose_device(device)
    for subject in subjects:
        subject.model.to(place)
        for one in planned:
            try:
                if isinstance(subject.model, StoredFeatures):
                    subject.model.require(one.entry)
                found += _score(replace(subject, device=place), one, layers, console)
            except KeyboardInterrupt:
                if found:
                    failures["stopped"] = f"before {one.entry.id} of {subject.name}; what was scored is kept"
                    _write(output, found, failures, _run_of(started, place, seed))
                raise
            except DataError as error:
                title = f"{one.entry.id}, {subject.name}"
                failures[title] = str(error)
                console.print(f"{title}: not scored: {error}")
        subject.model.to("cpu")
    if not found:
        raise DataError(protocols, "nothing could be scored: " + "; ".join(failures.values()))
    return _write(output, found, failures, _run_of(started, place, seed))


def _run_of(started: float, place: torch.device, seed: int) -> dict[str, Any]:
    """What results.json says of the command."""
    typed = sys.argv[1:2] == ["evaluate"]
    return {
        "command": shlex.join(["opendino", *sys.argv[1:]]) if typed else "opendino.evaluate(...)",
        "version": __version__,
        "device": str(place),
        "seed": seed,
        "peak_bytes": peak_bytes(),
        "seconds": round(time.monotonic() - started, 1),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _subject(what: Path | str, size: int | None, changes: Mapping[str, Any]) -> Subject:
    if is_stored(what):
        if given := [name for name, value in {"size": size, **changes}.items() if value]:
            raise UsageError(str(what), f"takes no {', '.join(given)}", "its features are made already")
        return stored_subject(str(what))
    model = choose_model(what, **changes).model
    transform = model.transform if size is None else replace(model.transform, size=size)
    path = Path(what)
    name = path.name
    if path.parent.name == "checkpoints":
        name = f"{path.parent.parent.name}/{name}"
    elif name in ("model", "model-start", "model-best"):
        name = f"{path.parent.name}/{name}"
    elif is_timm(what):
        name = str(model.card["name"])
    return Subject(model, transform, name, weights_hash(model), licence=str(model.card["licence"]))


def _told_apart(subjects: list[Subject]) -> list[Subject]:
    """With the start of its weights' hash behind the name of those that share it, since units are kept by name.

    Raises UsageError for a model that is given twice.
    """
    names = [subject.name for subject in subjects]
    told = [
        subject if names.count(subject.name) == 1 else replace(subject, name=f"{subject.name} ({subject.hash[:6]})")
        for subject in subjects
    ]
    for number, subject in enumerate(told):
        if subject.name in [other.name for other in told[:number]]:
            raise UsageError(f"--model {subject.name}", "is given twice", "give each model once")
    return told


def _score(subject: Subject, planned: Planned, layers: str | None, console: Console) -> list[Scored]:
    """One protocol on one model, at each layer that was asked for."""
    title = f"{planned.entry.id}, {subject.name}"
    found = []
    if not console.is_terminal:  # where no bar is drawn
        console.print(f"{title}: begun")
    columns = (TextColumn(f"{title}: {{task.description}}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    hidden = console.quiet or not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=what)

        for job in layer_jobs(planned, layers, subject):
            outcome = planned.entry.score(subject, planned.data, replace(job, progress=report))  # type: ignore[misc]
            if layers is not None and "layer" in job.settings:
                outcome = named_by_layer(outcome, job.settings["layer"])
            found.append(scored(planned.entry, subject, planned.data, job, outcome))
            first = found[-1].results[0]
            console.print(f"{title}: {first.metric} {cell_words(Cell(first.value, *(first.interval or (None, None))))}")
    return found


def _write(
    output: OutputFolder, scored: Sequence[Scored], failures: Mapping[str, str], run: Mapping[str, Any]
) -> Evaluation:
    record, _, _ = (output.file(name) for name in (RESULTS, UNITS, DRAWS))
    write_record(output.path, scored, failures, run)
    lines, names = to_lines([read_record(output.path)])
    warnings = list(dict.fromkeys(warning for one in scored for warning in [*one.outcome.warnings, *_left_out(one)]))
    problems = [*(f"{what}: {why}" for what, why in failures.items()), *warnings]
    page = write_results_page(
        output.file("results.html"),
        lines,
        names,
        title=f"Frozen features, scored: {', '.join(names)}",
        lead="Numbers are of frozen backbones; where a protocol fits a head, it does so on the training part alone.",
        about={entry.id: entry.about for entry in ENTRIES},
        problems=problems,
        command=str(run["command"]),
        galleries=to_galleries(scored),
    )
    table = output.file("results.md")
    write_atomic(table, markdown_table(lines, names, problems))
    results = [result for one in scored for result in one.results]
    return Evaluation(results, failures, warnings, output.path, record, page, table)


def _left_out(one: Scored) -> list[str]:
    """A line for what could not be read, with the first names."""
    skipped = one.outcome.skipped
    if not skipped:
        return []
    named = ", ".join(f"{each.id} ({each.reason})" for each in skipped[:NAMED])
    more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return [f"{one.results[0].protocol}: {len(skipped)} left out: {named}{more}"]


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(ModelChanges):
    """Score frozen backbones by the protocols of the paper.

    Example: opendino evaluate knn,linear --model runs/photos-small --data PICTURES/
    All that fits: opendino evaluate --suite fast --model runs/photos-small --data PICTURES/

    Writes results.json, units.csv (a value a picture), draws.csv (bootstrap draws), results.html and results.md.
    """

    protocols: tyro.conf.Positional[str] = ""
    """Names with commas between; --list shows them."""
    suite: OptionalText = None
    """A named set instead of protocols: fast or full; what has no data in --data is left out and listed."""
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A run directory, a model folder, a weights file, a name (`opendino models`), timm:NAME, timm:NAME=FILE,
    or features:STORE as `opendino embed` wrote it (protocols on CLS); give it again for more models, the first is what
    others are compared with."""
    data: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Root of the data in the layout that --list shows; PROTOCOL=DIR gives one protocol its own."""
    out: OptionalPath = None
    """Folder to write; default: evaluation-PROTOCOLS."""
    limit: OptionalCount = None
    """At most so many pictures a part: quick, and comparable with nothing published."""
    seed: int = 0
    """Of every draw."""
    size: OptionalCount = None
    """Side in pixels that the model is shown in global protocols; default: its own."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE for the setting of every protocol that has it, PROTOCOL.KEY=VALUE for one; --list shows them."""
    layers: OptionalText = None
    """all, or numbers from 0 with commas between: score dense protocols at each of these layers."""
    cache: OptionalPath = None
    """Folder for features; default: features/ in --out."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    list: Switch = False
    """Show all protocols, their data and settings, and what is not built and why."""
    dry_run: Switch = False
    """Say what would be read and scored; loads no model."""
    json: Switch = False
    """Print results.json instead of a table."""


def run(argv: Sequence[str]) -> int:
    """Parse, score, print; 3 when a protocol that was asked for by name could not be scored."""
    args = parse_arguments(EvaluateArgs, argv, "evaluate")
    if args.list:
        print_protocols(args.json)
        return 0
    if args.suite is not None and (args.protocols or args.suite not in BOTH):
        raise UsageError(f"--suite {args.suite}", "is one of fast and full, and stands instead of protocols")
    protocols = args.suite or args.protocols
    if not protocols:
        raise UsageError("evaluate", "no protocol given", "try: opendino evaluate --list")
    data = _data_roots(args.data)
    settings = dict(_pair(f"--set {text}", text) for text in args.set)
    if args.dry_run:
        planned, failures = plan(find(protocols), data, Job(Path(), args.limit, args.seed), settings)
        print_plan(planned, failures, args.json)
        return _say_failures(failures, args.suite)
    if not args.model:
        raise UsageError("evaluate", "no model given", "add --model RUN")
    done = evaluate(
        protocols,
        model=args.model,
        data=data,
        out=args.out,
        limit=args.limit,
        seed=args.seed,
        size=args.size,
        settings=settings,
        layers=args.layers,
        cache=args.cache,
        device=args.device,
        quiet=args.json,
        **model_changes(args),
    )
    if args.json:
        print(done.record.read_text(), end="")
    else:
        print(text_table(*to_lines([read_record(done.out)])), end="")
        print("".join(f"{warning}\n" for warning in done.warnings), end="")
        print(f"wrote {done.record}, {done.table} and {done.page}")
        print(f"next: opendino compare {shlex.quote(str(done.out))} OTHER-RESULTS")
    return _say_failures(done.failures, args.suite)


def _say_failures(failures: Mapping[str, str], suite: str | None) -> int:
    """The exit code: what was asked for by name must be scored, a suite takes what has its data."""
    for line in failure_words(failures):
        print(f"opendino: not scored: {line}", file=sys.stderr)
    return DataError.exit_code if failures and suite is None else 0


def _data_roots(given: Sequence[str]) -> dict[str, str]:
    """`DIR` and `PROTOCOL=DIR` as a mapping; "" stands for every other protocol."""
    names = {entry.id for entry in ENTRIES}
    roots: dict[str, str] = {}
    for text in given:
        protocol, sign, folder = text.partition("=")
        own = bool(sign) and protocol in names
        if sign and not own and not Path(text).exists() and Path(folder).exists():
            near = difflib.get_close_matches(protocol, names, n=1)
            raise UsageError(f"--data {text}", f"{protocol} is no protocol", f"did you mean {near[0]}?" if near else "")
        name, root = (protocol, folder) if own else ("", text)
        if name in roots:
            raise UsageError(f"--data {text}", "is given twice", "PROTOCOL=DIR gives one protocol its own")
        roots[name] = root
    return roots


def _pair(name: str, text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise UsageError(name, "must be KEY=VALUE", "as in --set k=10,20")
    return key.strip(), value.strip()
