"""`opendino weights`: the passport of a weights file, and its conversion."""

from __future__ import annotations

import json as json_module
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from opendino.cli.arguments import OptionalCount, OptionalPath, Switch, parse_arguments
from opendino.errors import DataError, UsageError
from opendino.files import read_json
from opendino.weights.load import load
from opendino.weights.passport import Passport, read_passport
from opendino.weights.where import locate
from opendino.weights.write import MODEL_FILES, official_stem, write_model, write_official

_MOST_NAMES = 8


@dataclass(frozen=True)
class WeightsArgs:
    """Say what a weights file is, or convert it.

    Example: opendino weights dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth --to hf --out vitb16/

    Reads the official layout, transformers, timm and our own runs, from safetensors or .pth; nothing in a file is
    executed. A name such as vitb16 is looked for at hand, then online.
    """

    what: tyro.conf.Positional[str]
    """A weights file, a model folder, a run, or a name of the family."""
    to: Literal["hf", "official"] | None = None
    """Write the weights again: hf (a folder for transformers and opendino) or official (a flat .pth)."""
    out: OptionalPath = None
    """The folder to write to, with --to."""
    heads: OptionalCount = None
    """Attention heads, for a file whose shapes do not tell."""
    depth: OptionalCount = None
    """Blocks, for a file that has fewer than the family's model of its widths and is whole all the same."""
    partial: Switch = False
    """With --to: take what fits, leave fresh values for the rest."""
    accept_licence: Switch = False
    """Accept the licence of an open mirror without being asked."""
    json: Switch = False
    """The passport as one JSON object."""


def weights(
    what: Path | str,
    *,
    to: Literal["hf", "official"] | None = None,
    out: Path | None = None,
    heads: int | None = None,
    depth: int | None = None,
    partial: bool = False,
    accept_licence: bool = False,
) -> Passport:
    """The passport of weights; with `to` and `out` they are also written, licence and source included.

    Raises:
        WeightsError: what is unsafe, unknown or, when it is to be written, incomplete. UsageError: `out` holds other
            files.
    """
    if (to is None) != (out is None):
        raise UsageError("--to and --out", "belong together", "for example --to hf --out FOLDER")
    origin = locate(str(what), accept_licence=accept_licence)
    passport = read_passport(origin.path, origin, heads=heads, depth=depth)
    if out is not None:
        given = {name: value for name, value in (("heads", heads), ("depth", depth)) if value is not None}
        model: Any = load(origin.path, partial=partial, **given)  # type: ignore[arg-type]
        card = {name: value for name, value in model.card.items() if name not in ("ignored", "layout", "changed")}
        card |= {"licence": passport.licence, "source": passport.source, "made_from_sha256": passport.digest}
        card["name"] = origin.name or card["name"]
        _require_own(out, to, official_stem(card), passport.digest)
        if to == "hf":
            write_model(out, model, model.transform, card)
        else:
            write_official(out, model, model.transform, card)
    return passport


def _require_own(out: Path, to: str | None, stem: str, digest: str) -> None:
    """Raise UsageError for a place that this conversion of these weights has not written.

    A model folder must hold nothing else; official files may lie beside others, as in a folder of many.
    """
    fix = "choose another --out"
    if out.exists() and not out.is_dir():
        raise UsageError(out, "is a file, and a folder is needed", fix)
    files = set(MODEL_FILES) if to == "hf" else {f"{stem}.json", f"{stem}.pth"}
    held = {entry.name for entry in out.glob("[!.]*")}
    if _made_from(out / ("config.json" if to == "hf" else f"{stem}.json")) == digest:
        held -= files
    in_the_way = sorted(held if to == "hf" else held & files)
    if in_the_way:
        more = f" and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
        raise UsageError(out, f"holds files that are not from these weights ({in_the_way[0]}{more})", fix)


def _made_from(card: Path) -> str | None:
    """The hash of the weights that a conversion was made from, as its card tells."""
    try:
        return str(read_json(card)["opendino"]["card"]["made_from_sha256"])
    except (DataError, LookupError, TypeError):
        return None


def run(argv: Sequence[str]) -> int:
    """Parse, print, convert; 0 when the file covers a whole model, else 3."""
    args = parse_arguments(WeightsArgs, argv, "weights")
    passport = weights(**{name: value for name, value in vars(args).items() if name != "json"})
    if args.json:
        print(json_module.dumps({**asdict(passport), "file": str(passport.file)}, indent=2))
    else:
        _print(passport)
        if args.out is not None:
            print(f"\nwrote {args.out}\nnext: opendino weights {shlex.quote(str(args.out))}")
        elif passport.whole:
            given = "".join(f" --{name} {value}" for name in ("heads", "depth") if (value := getattr(args, name)))
            print(f"\nnext: opendino show pca IMAGE --model {shlex.quote(args.what)}{given}")
    return 0 if passport.whole else 3


def _print(passport: Passport) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(passport):
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def _rows(passport: Passport) -> list[tuple[str, str]]:
    transform = passport.transform
    rows = [
        ("file", str(passport.file)),
        (
            "format",
            f"{passport.format}, {passport.layout} names" + (f" behind {passport.prefix}" if passport.prefix else ""),
        ),
        ("model", passport.identity),
        ("coverage", passport.coverage),
    ]
    for word, names in (("missing", passport.missing), ("unexpected", passport.unexpected)):
        if names:
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            rows.append((word, ", ".join(names[:_MOST_NAMES]) + more))
    if passport.probably:
        rows.append(("but", passport.probably))
    rows += [
        ("shape", ", ".join(f"{name} {value}" for name, value in passport.shape.items())),
        (
            "numbers",
            f"{passport.params:,} in {', '.join(f'{n} {kind}' for kind, n in passport.dtypes.items())} tensors",
        ),
        (
            "transform",
            f"{transform.size} px, {transform.mode}, {transform.filter}, mean {transform.mean}, std {transform.std}",
        ),
        *([("careful", passport.careful)] if passport.careful else []),
        ("licence", passport.licence),
        ("source", passport.source),
        (
            "sha256",
            passport.digest + (f" ({passport.digest_in_name} with the name)" if passport.digest_in_name else ""),
        ),
    ]
    if passport.ignored:
        rows.append(("notes", ", ".join(passport.ignored)))
    return rows
