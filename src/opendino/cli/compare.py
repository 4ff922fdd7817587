"""`opendino compare RESULTS...`: several evaluations as one table, with paired differences where units are the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from opendino.cli.arguments import OptionalPath, Switch, parse_arguments
from opendino.cli.output import claim_folder
from opendino.errors import DataError, UsageError
from opendino.evaluation.record import RESULTS, read_record
from opendino.evaluation.side_by_side import to_lines
from opendino.evaluation.suite import ENTRIES
from opendino.files import write_atomic
from opendino.pages.results_page import Line, markdown_table, text_table, write_results_page

NAME_LENGTH = 80


@dataclass(frozen=True)
class Comparison:
    """lines of the table, names of the models in its columns, what a reader must know, and the files written."""

    lines: Sequence[Line]
    models: Sequence[str]
    problems: Sequence[str]
    page: Path
    table: Path


def compare(results: Sequence[Path | str], *, out: Path | str | None = None) -> Comparison:
    """Put the results of several evaluations side by side.

    Args:
        results: folders that `evaluate` wrote, or their results.json; the first model is what others are compared with.
        out: folder for comparison.html and comparison.md; default: `comparison-` and the names of the results.
    Raises:
        UsageError: no results, or `out` holds other files. DataError: a file that `evaluate` did not write.
    """
    if not results:
        raise UsageError("compare", "no results given", "give folders that opendino evaluate wrote")
    for path in map(Path, results):
        if not (path / RESULTS if path.is_dir() else path).is_file():
            raise DataError(path, f"holds no {RESULTS}", "give folders that opendino evaluate wrote")
    records = [read_record(Path(path)) for path in results]
    lines, models = to_lines(records)
    problems = [
        f"{record.name}: {' and '.join(record.lacks)} missing, so nothing of it is paired"
        for record in records
        if record.lacks
    ]
    names = (
        path.parent.name if path.name == RESULTS else path.name for path in (Path(one).resolve() for one in results)
    )
    folder = Path(out) if out is not None else Path("comparison-" + "-".join(names)[:NAME_LENGTH])
    output = claim_folder(folder, "compare", {"results": [Path(path) for path in results]})
    page = write_results_page(
        output.file("comparison.html"),
        lines,
        models,
        title=f"Side by side: {', '.join(models)}",
        lead="Paired differences are over the same pictures, and so far narrower than two separate intervals.",
        about={entry.id: entry.about for entry in ENTRIES},
        problems=problems,
    )
    table = output.file("comparison.md")
    write_atomic(table, markdown_table(lines, models, problems))
    return Comparison(lines, models, problems, page, table)


@dataclass(frozen=True)
class CompareArgs:
    """Results of several evaluations side by side: a table, a chart a line, paired differences.

    Example: opendino compare scores-a scores-b
    """

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders that opendino evaluate wrote, or their results.json; the first is what others are compared with."""
    out: OptionalPath = None
    """Folder to write; default: comparison- and the names of the results."""
    json: Switch = False
    """Print the table as one JSON list."""


def run(argv: Sequence[str]) -> int:
    """Parse, compare, print."""
    args = parse_arguments(CompareArgs, argv, "compare")
    done = compare(args.results, out=args.out)
    if args.json:
        print(json.dumps([asdict(line) for line in done.lines], indent=2))
        return 0
    print(text_table(done.lines, done.models), end="")
    print("".join(f"{problem}\n" for problem in done.problems), end="")
    print(f"wrote {done.page} and {done.table}\nnext: open {done.page}")
    return 0
