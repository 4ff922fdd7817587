"""The flags of every command that reads a folder of pictures: how they are read, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from opendino.data.beside import declared_reading, stated_fields
from opendino.data.images import Reading
from opendino.data.listing import Skipped
from opendino.errors import DataError, UsageError

SHOWN = 5
"""Pictures that are named in a line about many."""

_Bands = Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N [N ...]", help_behavior_hint="")]
_Range = Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="LOW HIGH", help_behavior_hint="")]
_Number = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class ReadingArgs:
    """How pictures are read whose files leave it open."""

    bands: _Bands = None
    """Bands to read, from 0. These three lie over opendino-reading.json beside the pictures, where there is one."""
    value_range: _Range = None
    """Stored numbers that become black and white."""
    nodata: _Number = None
    """A stored number that means "not measured"."""

    def stated(self) -> dict[str, Any]:
        """The fields of a Reading that were given."""
        flags = {field.name: getattr(self, field.name) for field in fields(ReadingArgs)}
        return {name: value for name, value in flags.items() if value is not None}

    def reading(self, pictures: Path) -> Reading | None:
        """The file beside the pictures with the flags laid over it; None, which means that file, without flags."""
        stated = self.stated()
        declared = declared_reading(pictures) if stated else None
        try:
            return None if declared is None else replace(declared, **stated)
        except UsageError as error:
            flag = error.thing.replace("reading.", "--").replace("_", "-")
            raise UsageError(flag, error.cause, error.fix) from None

    def as_flags(self) -> str:
        """The same choice for the next command, with a space before it; "" where nothing was given."""
        words = [
            f"--{name.replace('_', '-')} {' '.join(map(str, value if isinstance(value, tuple) else (value,)))}"
            for name, value in self.stated().items()
        ]
        return "".join(f" {word}" for word in words)


@dataclass(frozen=True, kw_only=True)
class PictureArgs(ReadingArgs):
    """`ReadingArgs`, and the pictures to leave out."""

    skip: Annotated[str, tyro.conf.arg(metavar="FILE|none")] = "beside"
    """A skip list as `opendino check` writes it; beside: the one next to the pictures, if any; none: leave none out."""

    def skip_list(self) -> Path | bool:
        """As `open_source` takes it. Raises DataError when there is no such file."""
        if self.skip in ("beside", "none"):
            return self.skip == "beside"
        if not Path(self.skip).is_file():
            raise DataError(f"--skip {self.skip}", "no such file", "give a skip list of `opendino check`, or none")
        return Path(self.skip)

    def chosen(self, pictures: Path) -> dict[str, Any]:
        """`skip` and `reading` for the function behind the command."""
        return {"skip": self.skip_list(), "reading": self.reading(pictures)}

    def options(self, pictures: Path, *besides: str) -> dict[str, Any]:
        """All arguments for the function behind the command, but those named `besides`."""
        own = {field.name for field in fields(PictureArgs)} | set(besides)
        return {**{name: value for name, value in vars(self).items() if name not in own}, **self.chosen(pictures)}


def name_left_out(skipped: Sequence[Skipped], all_of_them: str) -> str:
    """One line with the first pictures that were left out, and where the others stand; "" when none was."""
    if not skipped:
        return ""
    more = len(skipped) - SHOWN
    said = ", ".join(f"{one.id} ({one.reason})" for one in skipped[:SHOWN])
    return f"left out {len(skipped):,}: {said}" + (f", ... and {more:,} more, see {all_of_them}" if more > 0 else "")


def name_other_reading(card: Mapping[str, Any], reading: Reading) -> str:
    """One line when a model learned from pictures that were read otherwise; "" when not, or when nothing is known."""
    trained = card.get("reading")
    if trained is None or trained == stated_fields(reading):
        return ""
    learned, now = (reading_words(fields) for fields in (trained, stated_fields(reading)))
    return f"careful: the model learned from pictures read with {learned}; these are read with {now}"


def reading_words(fields: Mapping[str, Any]) -> str:
    """What `stated_fields` says, for people."""
    return ", ".join(f"{name} {value}" for name, value in fields.items()) or "nothing declared"
