"""`opendino check DIR`: what is in a folder of pictures, what is broken or there twice, and what to do about it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from opendino.cli.arguments import OptionalCount, OptionalPath, Switch, parse_arguments
from opendino.cli.pictures import ReadingArgs
from opendino.data.beside import (
    SKIP_NAME,
    SkipEntry,
    path_beside,
    read_skip_entries,
    write_skip_list,
)
from opendino.data.images import ImageError, Reading
from opendino.data.sources import Source, open_source
from opendino.data.survey import (
    CHOSEN,
    Records,
    Summary,
    advise,
    judge,
    near_groups,
    next_command,
    propose_skips,
    summarise,
    take_survey,
)
from opendino.errors import DataError, OpendinoError, UsageError
from opendino.files import exclusive, write_json
from opendino.pages.check_page import Said, Shot, Shots, thumbnail, write_check_page

SAMPLE, OF_EACH, GROUPS = 24, 6, 8
MOST_LINES = 8
FEW_PICTURES = 200
"""Fewer are measured by one process: starting others takes longer."""
MAX_WORKERS = 8


@dataclass(frozen=True)
class CheckArgs(ReadingArgs):
    """Look through a folder of pictures before anything is learned from it.

    Example: opendino check PICTURES/

    Writes a page, a summary for machines and a skip list. Killed at any moment, the same command goes on.
    """

    dir: tyro.conf.Positional[Path]
    """A folder of pictures, a .tar of them, or a folder of .tar files."""
    out: OptionalPath = None
    """Where to write; default: runs/check-NAME-HASH."""
    apply: Switch = False
    """Also put the skip list beside the pictures, where every command honours it; your own lines and decisions stay."""
    strict: Switch = False
    """End with exit code 3 when a picture cannot be read that no skip list beside the pictures leaves out."""
    follow: Switch = False
    """Also enter links to folders."""
    workers: OptionalCount = None
    """Processes that decode; default: one a core, at most 8. 0: this one, which a decoder that crashes then ends."""
    json: Switch = False
    """Print the summary as one JSON object instead of words."""


@dataclass(frozen=True)
class CheckResult:
    """verdict: one sentence; page, skip_list: files; measured: pictures measured now, the others were known.

    unlisted: pictures that cannot be read and that the skip list beside the pictures does not leave out.
    """

    summary: Summary
    advice: tuple[str, ...]
    verdict: str
    page: Path
    skip_list: Path
    measured: int
    command: str
    unlisted: int


def check(
    dir: Path | str,
    *,
    out: Path | str | None = None,
    apply: bool = False,
    reading: Reading | None = None,
    follow: bool = False,
    workers: int = 0,
    quiet: bool = True,
) -> CheckResult:
    """Survey the pictures in `dir`; write `check.html`, `check.json` and `opendino-skip.txt` to `out`.

    Pictures that a skip list beside them names are looked at too.

    Args:
        dir: folder of pictures, .tar of pictures, or folder of .tar files.
        out: by default it follows from `dir`, so the same call goes on with its survey.
        apply: also write the skip list beside the pictures.
        reading: how pictures are read; by default as the file beside them says.
        workers: processes that decode, 0 = this one. Of scripts, call it below `if __name__ == "__main__"` with more.
    Raises:
        DataError: no pictures. UsageError: a bad option, `out` lies in `dir`, or another process is surveying there.
    """
    folder = Path(dir)
    if workers < 0:
        raise UsageError(f"--workers {workers}", "must be 0 or more")
    target = Path(out) if out is not None else _default_out(folder)
    if folder.is_dir() and folder.resolve() in (target.resolve(), *target.resolve().parents):
        raise UsageError(f"--out {target}", "lies among the pictures", "choose another")
    source = open_source(folder, follow=follow, skip=False, reading=reading)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpendinoError(target, f"cannot be made ({error.strerror})", "choose another --out") from None
    with exclusive(target / "check.lock"):
        records = Records(target / "survey.sqlite", str(source.reading))
        measured = _take(source, records, workers, quiet)
        near = near_groups(records)
        summary = summarise(source, records, near)
        skip_list = target / SKIP_NAME
        skips = list(propose_skips(records, near))
        write_skip_list(skip_list, skips)
        if apply:
            skip_list = path_beside(folder, SKIP_NAME)
            _apply(skip_list, skips)
        unlisted = _unlisted(path_beside(folder, SKIP_NAME), skips)
        left_out = _readable_left_out(path_beside(folder, SKIP_NAME), skips)
        advice, verdict = tuple(advise(summary)), judge(summary, not unlisted, left_out)
        command = next_command(summary, shlex.quote(str(folder)), not unlisted)
        page = write_check_page(
            target / "check.html",
            str(folder),
            summary,
            Said(verdict, advice, command, str(skip_list)),
            _shots(source, records, summary),
        )
        write_json(target / "check.json", {**dataclasses.asdict(summary), "verdict": verdict, "advice": advice})
        records.close()
    return CheckResult(
        summary, advice, verdict, page, skip_list, measured, command, sum(one.reason in summary.bad for one in unlisted)
    )


def run(argv: Sequence[str]) -> int:
    """Parse, survey, print. Finding bad pictures is what it is for: 0, unless none can be read or --strict is given."""
    args = parse_arguments(CheckArgs, argv, "check")
    result = check(
        args.dir,
        out=args.out,
        apply=args.apply,
        reading=args.reading(args.dir),
        follow=args.follow,
        workers=min(MAX_WORKERS, os.cpu_count() or 1) if args.workers is None else args.workers,
        quiet=args.json,
    )
    if args.json:
        said = {"verdict": result.verdict, "advice": result.advice, "measured": result.measured}
        files = {"page": str(result.page), "skip_list": str(result.skip_list)}
        print(json.dumps({**dataclasses.asdict(result.summary), **said, **files}))
        return _exit_code(result, args.strict)
    for line in _words(result.summary):
        print(line)
    print()
    print(result.verdict)
    for line in result.advice:
        print(f"- {line}")
    print(f"\nwrote {result.page}, check.json beside it, and {result.skip_list}")
    if result.command:
        print(f"next: {result.command}")
    if args.strict and result.unlisted:
        words = "picture that cannot be read is" if result.unlisted == 1 else "pictures that cannot be read are"
        print(f"--strict: {result.unlisted:,} {words} on no skip list beside the pictures")
    return _exit_code(result, args.strict)


def _exit_code(result: CheckResult, strict: bool) -> int:
    return DataError.exit_code if not result.summary.readable or (strict and result.unlisted) else 0


def _default_out(folder: Path) -> Path:
    whole = folder.resolve()
    name = whole.name.removesuffix(".tar") or "pictures"
    return Path("runs") / f"check-{name}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:6]}"


def _take(source: Source, records: Records, workers: int, quiet: bool) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} of {task.total:,}"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("looking", total=len(source))
        return take_survey(
            source,
            records,
            workers if len(source) >= FEW_PICTURES else min(workers, 1),
            lambda n: progress.advance(task, n),
        )


def _apply(path: Path, found: Sequence[SkipEntry]) -> None:
    """Write the skip list beside the pictures: what a person decided or added stays, what was mended goes."""
    ours = {entry.reason for entry in found} | {"one colour", "duplicate", "mask"}
    ours |= {kind.reason for kind in ImageError.__subclasses__()}
    old = {entry.id: entry for entry in read_skip_entries(path)} if path.exists() else {}
    now = {entry.id for entry in found}
    added = [entry for entry in old.values() if entry.id not in now and entry.reason not in ours]
    decided = (replace(one, active=old[one.id].active) if one.id in old else one for one in found)
    write_skip_list(path, [*added, *decided])


def _unlisted(beside: Path, found: Sequence[SkipEntry]) -> list[SkipEntry]:
    """What a skip list should leave out and the one beside the pictures does not know, or is not there to know."""
    known = {entry.id for entry in read_skip_entries(beside)} if beside.exists() else set()
    return [entry for entry in found if entry.active and entry.id not in known]


def _readable_left_out(beside: Path, found: Sequence[SkipEntry]) -> int:
    """How many pictures the skip list beside leaves out although they can be read: copies, and what people chose."""
    listed = {entry.id for entry in read_skip_entries(beside) if entry.active} if beside.exists() else set()
    return len(listed - {entry.id for entry in found if entry.active and entry.reason not in CHOSEN})


def _shots(source: Source, records: Records, summary: Summary) -> Shots:
    """The pictures of the page. The sample is that of the smallest hashes: random, and the same each time."""
    where = "reason = '' AND suspicions = '[]'"
    rows = records.query(f"SELECT id FROM pictures WHERE {where} GROUP BY digest ORDER BY digest LIMIT {SAMPLE}")
    sample = [id for (id,) in rows]
    suspicious = {word: named.ids[:OF_EACH] for word, named in summary.suspicious.items()}
    masks = {one.folder: one.masks.ids[:OF_EACH] for one in summary.masks[:GROUPS]}
    exact, near = ([group[:OF_EACH] for group in groups[:GROUPS]] for groups in (summary.exact, summary.near))
    wanted = {*sample, *(id for ids in [*suspicious.values(), *masks.values(), *exact, *near] for id in ids)}
    drawn = dict(_draw(source, records, wanted))

    def shown(ids: Iterable[str]) -> list[Shot]:
        return [drawn[id] for id in ids if id in drawn]

    return Shots(
        shown(sample),
        {word: shown(ids) for word, ids in suspicious.items()},
        {folder: shown(ids) for folder, ids in masks.items()},
        [shown(group) for group in exact],
        [shown(group) for group in near],
    )


def _draw(source: Source, records: Records, wanted: set[str]) -> Iterable[tuple[str, Shot]]:
    for index in range(len(source)) if wanted else ():
        id = source.id(index)
        if id in wanted:
            try:
                array = source.read(index).array
            except ImageError:  # gone or changed since it was measured; the next survey will say so
                continue
            row = next(records.rows("id = ?", id))
            yield id, Shot(id, thumbnail(array), f"{row.width} x {row.height}, {row.mode}")


def _words(summary: Summary) -> list[str]:
    def listed(counts: object) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in dict(counts).items())  # type: ignore[call-overload]

    lines = [f"{summary.files:,} pictures, {summary.readable:,} readable, {summary.bytes / 1e6:,.1f} MB"]
    if summary.left_out:
        lines.append(f"left out by the scan: {listed(summary.left_out)}")
    if summary.readable:
        lines += [
            f"kinds: {listed(summary.kinds)}",
            f"modes: {listed(summary.modes)}",
            "sides in px: short {0} to {4}, usually {2}; ".format(*summary.short_px)
            + "long {0} to {4}, usually {2}".format(*summary.long_px),
        ]
    turned = {f"of orientation {number}": count for number, count in summary.orientations.items() if number != "1"}
    if turned:
        lines.append(f"turned by EXIF: {listed(turned)}")
    for one in summary.ranges:
        lines.append(f"{one.count:,} {one.mode}: {one.low:.6g} to {one.high:.6g} become 0 to 255 ({one.rule})")
    for band in summary.bands[:MOST_LINES]:
        lines.append(
            f"{band.count:,} {band.mode}, band {band.band}: stored numbers {band.smallest:.6g} to {band.largest:.6g}, "
            f"usually {band.low:.4g} to {band.high:.4g} around {band.middle:.4g}"
        )
    if len(summary.bands) > MOST_LINES:
        lines.append(f"stored numbers of {len(summary.bands) - MOST_LINES} more bands: see the page")
    for found in summary.masks[:MOST_LINES]:
        where = found.folder or "the folder itself"
        lines.append(f"masks: {found.masks.count:,} in {where}, e.g. {found.masks.ids[0]}")
    for reason, named in summary.bad.items():
        lines.append(f"cannot be read: {named.count:,} {reason}, e.g. {named.ids[0]} ({summary.causes[reason]})")
    for word, named in summary.suspicious.items():
        lines.append(f"suspicious: {named.count:,} {word}, e.g. {named.ids[0]}")
    if summary.exact_copies or summary.near_copies:
        lines.append(f"copies: {summary.exact_copies:,} equal files, {summary.near_copies:,} more look nearly equal")
    if summary.classes:
        counts = summary.classes.values()
        lines.append(f"classes: {len(summary.classes):,}, with {min(counts):,} to {max(counts):,} pictures")
    return lines
