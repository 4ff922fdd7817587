"""`opendino evaluate PROTOCOL[,PROTOCOL...]`: score frozen backbones by the protocols of the paper."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from opendino import __version__
from opendino.cli.arguments import OptionalCount, OptionalPath, OptionalText, Switch, parse_arguments
from opendino.cli.device import choose_device, peak_bytes
from opendino.cli.model import choose_model
from opendino.errors import DataError, UsageError
from opendino.evaluation.protocol import Entry, Job, Outcome, Subject, resolve_settings, to_results
from opendino.evaluation.record import Scored, read_record, to_lines, write_record
from opendino.evaluation.results import Result, weights_hash
from opendino.evaluation.suite import ENTRIES, find
from opendino.files import write_atomic
from opendino.pages.results_page import Line, cell_words, count_words, markdown_table, write_results_page


@dataclass(frozen=True)
class Evaluation:
    """results: every number; failures: what could not be scored and why; page, table, record: files in `out`."""

    results: Sequence[Result]
    failures: Mapping[str, str]
    out: Path
    record: Path
    page: Path
    table: Path


@dataclass(frozen=True)
class _Opened:
    """A protocol with its job and its data."""

    entry: Entry
    job: Job
    data: Any


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
) -> Evaluation:
    """Score one or more backbones, with frozen weights, by one or more protocols.

    Args:
        protocols: "knn,linear" or a suite, "fast" or "full"; `opendino evaluate --list` shows them.
        model: run directories or model folders.
        data: root of the data, or one for each protocol.
        out: folder for results.json, units.csv, results.html, results.md; default: `evaluation-` and the protocols.
        limit: at most so many pictures a part; the numbers then compare with nothing published.
        size: side in pixels that global protocols show the model; default: the model's own.
        settings: of protocols, as text: "rows" for all that have it, "vos.rows" for one.
        layers: "all", or numbers from 0 with commas between: protocols with a `layer` are scored at each of them.
        cache: folder for features, by default `features/` in `out`.
    Raises:
        UsageError: unknown protocol or setting. DataError: not one protocol could be scored.
    """
    started = time.monotonic()
    console = Console(quiet=quiet, stderr=True, highlight=False, soft_wrap=True)
    folder = Path(out) if out is not None else Path("evaluation-" + protocols.replace(",", "-"))
    store = Path(cache) if cache is not None else folder / "features"
    opened, failures = _open(find(protocols), data, Job(Path(), limit, seed, store), settings or {})
    models = [model] if isinstance(model, str | Path) else list(model)
    scored: list[Scored] = []
    for path in models:
        subject = _subject(Path(path), device, size)
        for one in opened:
            title = f"{one.entry.id}, {subject.name}"
            if not console.is_terminal:  # where no bar is drawn
                console.print(f"{title}: begun")
            with _progress(console, title) as bar:
                task = bar.add_task("", total=None)

                def report(what: str, done: int, total: int, bar: Progress = bar, task: Any = task) -> None:
                    bar.update(task, completed=done, total=total, description=what)

                try:
                    for job in _layer_jobs(one, layers, subject):
                        outcome = one.entry.score(subject, one.data, replace(job, progress=report))  # type: ignore[misc]
                        if layers is not None and "layer" in job.settings:
                            outcome = _named_by_layer(outcome, job.settings["layer"])
                        results = to_results(one.entry, subject, one.data, job, outcome)
                        scored.append(Scored(results, outcome, subject.describe()))
                        console.print(f"{title}: {_in_words(results[0])}")
                except DataError as error:
                    failures[title] = str(error)
                    console.print(f"{title}: not scored: {error}")
    if not scored:
        raise DataError(protocols, "nothing could be scored: " + "; ".join(failures.values()))
    run = {
        "command": shlex.join(["opendino", *sys.argv[1:]])
        if sys.argv[1:2] == ["evaluate"]
        else "opendino.evaluate(...)",
        "version": __version__,
        "device": str(choose_device(device)),
        "seed": seed,
        "peak_bytes": peak_bytes(),
        "seconds": round(time.monotonic() - started, 1),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    record = write_record(folder, scored, failures, run)
    lines, names = to_lines([read_record(folder)])
    warnings = [warning for one in scored for warning in one.outcome.warnings]
    page = write_results_page(
        folder / "results.html",
        lines,
        names,
        title=f"Frozen features, scored: {', '.join(names)}",
        lead="Every number is of a frozen backbone: heads are fitted on the training part, the backbone never is.",
        problems=[*(f"{what}: {why}" for what, why in failures.items()), *warnings],
        command=str(run["command"]),
    )
    write_atomic(folder / "results.md", markdown_table(lines, names))
    results = [result for one in scored for result in one.results]
    return Evaluation(results, failures, folder, record, page, folder / "results.md")


def _open(
    entries: Sequence[Entry], data: Path | str | Mapping[str, Path | str], job: Job, settings: Mapping[str, str]
) -> tuple[list[_Opened], dict[str, str]]:
    """Data of every protocol; one that lacks its data is left to the others and named."""
    known = {name for entry in entries for key in entry.settings for name in (key, f"{entry.id}.{key}")}
    if unknown := sorted(settings.keys() - known):
        raise UsageError(f"--set {unknown[0]}", "no such setting", f"here: {', '.join(sorted(known)) or 'none'}")
    opened, failures = [], {}
    for entry in entries:
        general = {key: text for key, text in settings.items() if key in entry.settings}
        special = {key: settings[name] for key in entry.settings if (name := f"{entry.id}.{key}") in settings}
        own = resolve_settings(entry, general | special)
        root = data.get(entry.id, data.get("")) if isinstance(data, Mapping) else data
        try:
            if root is None or not Path(root).is_dir():
                cause = "no such folder" if root is not None else "no --data given"
                raise DataError(f"{entry.id} {root or ''}", cause, f"expected: {entry.layout}")
            mine = replace(job, data=Path(root), settings=own)
            opened.append(_Opened(entry, mine, entry.open(mine)))  # type: ignore[misc]
        except DataError as error:
            failures[entry.id] = str(error)
    if not opened:
        raise DataError("data", "; ".join(failures.values()))
    return opened, failures


def _layer_jobs(one: _Opened, layers: str | None, subject: Subject) -> list[Job]:
    """The job as it is, or one for each layer that was asked for where the protocol reads a layer."""
    if layers is None or "layer" not in one.job.settings:
        return [one.job]
    count = subject.model.num_layers
    try:
        wanted = list(range(count)) if layers == "all" else [int(text) for text in layers.split(",")]
    except ValueError:
        raise UsageError(f"--layers {layers}", "must be all, or numbers with commas between") from None
    if outside := [layer for layer in wanted if not 0 <= layer < count]:
        raise UsageError(f"--layers {outside[0]}", f"{subject.name} has layers 0 to {count - 1}")
    return [replace(one.job, settings={**one.job.settings, "layer": layer}) for layer in wanted]


def _named_by_layer(outcome: Outcome, layer: int) -> Outcome:
    return replace(outcome, scores=[replace(score, metric=f"{score.metric}_layer_{layer}") for score in outcome.scores])


def _subject(path: Path, device: str, size: int | None) -> Subject:
    model = choose_model(path).model
    transform = model.transform if size is None else replace(model.transform, size=size)
    name = path.name if path.name not in ("model", "model-start") else f"{path.parent.name}/{path.name}"
    place = choose_device(device)
    return Subject(model.to(place), transform, name, weights_hash(model), place, str(model.card["licence"]))


def _in_words(result: Result) -> str:
    between = "" if result.interval is None else f" [{result.interval[0]:.4g}, {result.interval[1]:.4g}]"
    return f"{result.metric} {result.value:.4g}{between}"


def _progress(console: Console, title: str) -> Progress:
    columns = (TextColumn(f"{title}: {{task.description}}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=console.quiet, transient=True)


@dataclass(frozen=True)
class EvaluateArgs:
    """Score frozen backbones by the protocols of the paper.

    Example: opendino evaluate knn,linear --model runs/photos-small --data PICTURES/

    Writes results.json, units.csv (a value a picture), results.html and results.md.
    """

    protocols: tyro.conf.Positional[str] = ""
    """Names with commas between, or a suite: fast, full."""
    model: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A run directory or model folder; give it again for more models, the first is what others are compared with."""
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
    """Parse, score, print; 3 when a protocol that was asked for could not be scored."""
    args = parse_arguments(EvaluateArgs, argv, "evaluate")
    if args.list:
        _print_list(args.json)
        return 0
    if not args.protocols:
        raise UsageError("evaluate", "no protocol given", "try: opendino evaluate --list")
    data = _data_roots(args.data)
    settings = dict(_pair(f"--set {text}", text) for text in args.set)
    if args.dry_run:
        return _print_plan(args, data, settings)
    if not args.model:
        raise UsageError("evaluate", "no model given", "add --model RUN")
    done = evaluate(
        args.protocols,
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
    )
    if args.json:
        print(done.record.read_text(), end="")
    else:
        print_lines(*to_lines([read_record(done.out)]))
        print(f"wrote {done.record}, {done.table} and {done.page}")
        print(f"next: opendino compare {shlex.quote(str(done.out))} OTHER-RESULTS")
    for what, why in done.failures.items():
        print(f"opendino: not scored: {what}: {why}", file=sys.stderr)
    return DataError.exit_code if done.failures else 0


def print_lines(lines: Sequence[Line], models: Sequence[str]) -> None:
    """The table in the terminal."""
    rows = [["protocol", "data", "metric", "n", *models, "published"]]
    for line in lines:
        metric = line.metric if line.high_is_good else f"{line.metric} (low is good)"
        cells = [cell_words(line.cells.get(model)) for model in models]
        rows.append([line.protocol, line.dataset, metric, count_words(line.n, line.unit), *cells, line.published])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip())
    for line in lines:
        if line.note:
            print(f"{line.protocol} {line.metric}: {line.note}")


def _print_list(as_json: bool) -> None:
    if as_json:
        fields = ("id", "about", "datasets", "layout", "variant", "suites", "not_built")
        rows = [{**{name: getattr(e, name) for name in fields}, "settings": dict(e.settings)} for e in ENTRIES]
        print(json.dumps(rows, indent=2))
        return
    for entry in ENTRIES:
        if entry.score is not None:
            print(f"{entry.id:<16} {entry.about}\n{'':16} sets: {entry.datasets}\n{'':16} files: {entry.layout}")
            if entry.settings:
                print(f"{'':16} --set: " + ", ".join(f"{key}={_text(value)}" for key, value in entry.settings.items()))
    print("\nnot built:")
    for entry in ENTRIES:
        if entry.score is None:
            print(f"{entry.id:<16} {entry.about} ({entry.datasets}): {entry.not_built}")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print_plan(args: EvaluateArgs, data: Mapping[str, str], settings: Mapping[str, str]) -> int:
    job = Job(Path(), args.limit, args.seed)
    opened, failures = _open(find(args.protocols), data, job, settings)
    plan = [
        {
            "protocol": one.entry.id,
            "data": str(one.job.data),
            "dataset": one.data.name,
            "holds": one.data.words(),
            "settings": {key: _text(value) for key, value in one.job.settings.items()},
        }
        for one in opened
    ]
    if args.json:
        print(json.dumps({"plan": plan, "failures": failures}, indent=2))
    else:
        for row in plan:
            print(f"{row['protocol']}: {row['dataset']}, {row['holds']}; settings {row['settings'] or 'none'}")
    for what, why in failures.items():
        print(f"opendino: {what}: {why}", file=sys.stderr)
    return DataError.exit_code if failures else 0


def _data_roots(given: Sequence[str]) -> dict[str, str]:
    """`DIR` and `PROTOCOL=DIR` as a mapping; "" stands for every other protocol."""
    names = {entry.id for entry in ENTRIES}
    roots: dict[str, str] = {}
    for text in given:
        protocol, sign, folder = text.partition("=")
        own = bool(sign) and protocol in names
        roots[protocol if own else ""] = folder if own else text
    return roots


def _pair(name: str, text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise UsageError(name, "must be KEY=VALUE", "as in --set k=10,20")
    return key.strip(), value.strip()
