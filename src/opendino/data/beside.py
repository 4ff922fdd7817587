"""The two small files that may lie beside pictures and that every command honours: a skip list and a reading.

`DIR/opendino-skip.txt` names pictures to leave out; `DIR/opendino-reading.json` says how all pictures are read, e.g.
`{"bands": [3, 2, 1], "value_range": [0, 4000]}`. For a single `X.tar` they are `X.tar.opendino-skip.txt` and
`X.tar.opendino-reading.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cattrs

from opendino.data.images import Image, Reading, patiently, read
from opendino.data.listing import decode_id, encode_id
from opendino.errors import DataError, OpendinoError, UsageError
from opendino.files import write_atomic

_CONVERTER = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
SKIP_NAME, READING_NAME = "opendino-skip.txt", "opendino-reading.json"


@dataclass(frozen=True)
class SkipEntry:
    """A picture to leave out: its id, a short reason to count by, and words. Inactive ones are proposals only."""

    id: str
    reason: str
    words: str = ""
    active: bool = True


def path_beside(pictures: Path, name: str) -> Path:
    """Where a file of this name lies for a folder or a tar of pictures."""
    return pictures / name if patiently(pictures.is_dir) else pictures.with_name(f"{pictures.name}.{name}")


def read_skip_entries(path: Path) -> list[SkipEntry]:
    """All entries of a skip list, proposals that are not active included.

    One picture a line, `ID<tab>REASON<tab>WORDS`, the last two optional. A line that starts with `# ` and has a tab is
    an entry that is not active, any other that starts with `#` a comment.

    Raises:
        DataError: not readable as text.
    """
    found = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                active = not line.startswith("#")
                # A name that starts with "#" is written as %23, so that it is no comment.
                id, tab, rest = line.rstrip("\r\n").removeprefix("# ").partition("\t")
                if id.strip() and (active or (tab and not id.startswith("#"))):
                    reason, _, words = rest.partition("\t")
                    found.append(SkipEntry(encode_id(decode_id(id)), reason.strip() or "by hand", words, active))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"the skip list cannot be read ({error})", "mend it or remove it") from None
    return found


def read_skip_list(path: Path) -> dict[bytes, str]:
    """Raw names of the pictures to leave out, with the short reason of each. Raises DataError: not readable as text."""
    return {decode_id(entry.id): entry.reason for entry in read_skip_entries(path) if entry.active}


def write_skip_list(path: Path, entries: Iterable[SkipEntry]) -> None:
    """Write a skip list; inactive entries become comments that a person can uncomment."""
    lines = [
        "# Pictures that opendino leaves out, one a line: id, reason, words. Put '# ' before a line to use it again;",
        "# remove the '# ' before a proposal to leave its picture out. `opendino check --apply` keeps both decisions.",
    ]
    for entry in entries:
        id = "%23" + entry.id[1:] if entry.id.startswith("#") else entry.id
        line = "\t".join((id, entry.reason, " ".join(entry.words.split())))
        lines.append(line if entry.active else f"# {line}")
    try:
        write_atomic(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise OpendinoError(path, f"cannot be written ({error.strerror})", "copy the list there yourself") from None


def parse_reading(fields: object) -> Reading:
    """A Reading from its JSON value. Raises what cattrs raises."""
    return _CONVERTER.structure(fields, Reading)


def declared_reading(pictures: Path) -> Reading:
    """How the pictures of a folder or tar are read: as the file beside them says, else in the usual way."""
    beside = path_beside(pictures, READING_NAME)
    return read_reading(beside) if patiently(beside.exists) else Reading()


def reading_of_file(path: Path) -> Reading:
    """How one picture file is read: as the nearest folder above it declares, since it may lie in a class folder."""
    above = (folder / READING_NAME for folder in path.absolute().parents)
    found = next((one for one in above if patiently(one.exists)), None)
    return Reading() if found is None else read_reading(found)


def read_declared(path: Path) -> Image:
    """One picture file as the nearest folder above it declares. Raises DataError as `images.read`."""
    return read(path, reading=reading_of_file(path))


def stated_fields(reading: Reading) -> dict[str, Any]:
    """What a Reading states beyond the default, as JSON values: what its file would hold, and a model's card keeps.
    How large JPEGs are decoded is a matter of speed and left out.
    """
    plain = asdict(Reading())
    found = {name: value for name, value in asdict(reading).items() if value != plain[name] and name != "at_least"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def read_reading(path: Path) -> Reading:
    """A Reading from its JSON file. Raises DataError for other content and UsageError for impossible values."""
    try:
        return parse_reading(json.loads(path.read_text()))
    except UsageError:
        raise
    except Exception as error:  # cattrs and json raise many types
        raise DataError(path, f"is no reading ({' '.join(str(error).split())})", "mend it or remove it") from None
