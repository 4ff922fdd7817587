"""Whose output a folder or a drawing is: its own command replaces it, other inputs and foreign files are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from opendino.errors import OpendinoError, UsageError
from opendino.files import write_atomic

RECORD = "made-from.jsonl"
MARK = "opendino"
"""Name of the text in a PNG that says what it was drawn from."""
_FIX = "choose another --out"


class OutputFolder:
    """A folder that a command has claimed with `claim_folder`. Its record lists every file that the command wrote."""

    def __init__(self, path: Path, told: Mapping[str, Any], names: Iterable[str]) -> None:
        self.path, self._told, self._names, self._written = path, told, set(names), set[str]()

    def file(self, name: str) -> Path:
        """Where to write `name`, which may lie deeper; the record has it first, so that a kill leaves none unknown.

        Raises UsageError when a file is there that this command did not write.
        """
        path = self.path / name
        if name not in self._names:
            if path.exists():
                raise UsageError(path, "is there already, and not of this command", f"move it, or {_FIX}")
            with open(self.path / RECORD, "a") as record:
                record.write(json.dumps({"file": name}) + "\n")
            self._names.add(name)
        self._written.add(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self) -> None:
        """Remove the files that an earlier run of this command wrote and this one did not; nothing else is removed."""
        whole = self.path.resolve()
        for path in (self.path / name for name in self._names - self._written):
            if path.resolve().is_relative_to(whole):
                path.unlink(missing_ok=True)
        lines = [self._told, *({"file": name} for name in sorted(self._written))]
        write_atomic(self.path / RECORD, "".join(json.dumps(line) + "\n" for line in lines))


def claim_folder(path: Path, command: str, inputs: Mapping[str, Any], *, reads: Iterable[Path] = ()) -> OutputFolder:
    """Make a folder this command's, or find that it is.

    Args:
        inputs: what decides the output, by the name that a message gives it: paths (kept absolute), models in words
            with their hash, settings. The same inputs have the same folder; JSON values or paths.
        reads: files that the command reads, which must not be among those that it replaces.
    Raises:
        UsageError: the folder holds the output of other inputs, of another command, or files of no command.
    """
    told = {"command": command, "inputs": _plain(inputs)}
    try:
        kept, names = _read(path / RECORD)
        if kept is None:
            _require_empty(path)
        if kept != told:
            # A command that failed before its first file has left nothing to protect.
            if kept is not None and any((path / name).exists() for name in names):
                raise UsageError(path, f"holds the output of {_difference(kept, told)}", _FIX)
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / RECORD, json.dumps(told) + "\n")
            names = []
        replaced = {(path / name).resolve() for name in names}
        for read in reads:
            if read.resolve() in replaced:
                raise UsageError(read, "would be written anew by this command", f"copy it elsewhere, or {_FIX}")
    except OSError as error:
        raise OpendinoError(path, f"cannot be written ({error.strerror})", _FIX) from None
    return OutputFolder(path, told, names)


@dataclass(frozen=True)
class Drawing:
    """A PNG that may be written: where, and the text that it must carry so that its own command may draw over it."""

    path: Path
    text: dict[str, str]


def claim_drawing(path: Path, command: str, inputs: Mapping[str, Any], *, named: bool) -> Drawing:
    """Where a command may draw. Inputs stand in the PNG as hashes alone.

    Args:
        inputs: as for `claim_folder`.
        named: the user named this file: then a drawing from other inputs gives way. Else it stays, as does every other
            file of that name, and NAME-2.png, NAME-3.png, ... is taken: the first that is free or of these inputs.
    Raises:
        UsageError: the file was named and is no drawing of opendino.
    """
    hashes = {name: _digest(value) for name, value in _plain(inputs).items()}
    told = {"command": command, "inputs": hashes}
    text = {MARK: json.dumps(told)}
    if named:
        if path.exists() and _read_mark(path) is None:
            raise UsageError(path, "is there already, and not drawn by opendino", _FIX)
        return Drawing(path, text)
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    free = next(one for one in chain([path], numbered) if not one.exists() or _read_mark(one) == told)
    return Drawing(free, text)


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, paths absolute."""
    kept: dict[str, Any] = json.loads(json.dumps(inputs, default=lambda value: str(Path(value).resolve())))
    return kept


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _read(record: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """What a record tells, None where there is none, and the files; its last line may have been cut by a kill."""
    if not record.is_file():
        return None, []
    lines = record.read_text(errors="replace").splitlines()
    try:
        told = json.loads(lines[0])
        if not isinstance(told["inputs"], dict) or not isinstance(told["command"], str):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        raise UsageError(record, "is no record of opendino", _FIX) from None
    names = []
    for line in lines[1:]:
        try:
            names.append(str(json.loads(line)["file"]))
        except (ValueError, LookupError, TypeError):
            continue
    return told, names


def _read_mark(path: Path) -> dict[str, Any] | None:
    try:
        with PillowImage.open(path, formats=["PNG"]) as drawing:
            told = json.loads(drawing.info[MARK])
        return told if isinstance(told["inputs"], dict) and isinstance(told["command"], str) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _require_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(folder, "is a file", _FIX)
    # Hidden files are those of systems, or temporary ones of a write that was killed.
    strangers = sorted(entry.name for entry in folder.glob("[!.]*"))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise UsageError(folder, f"holds files that no opendino command wrote there ({strangers[0]}{more})", _FIX)


def _difference(kept: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    if kept["command"] != told["command"]:
        return f"opendino {kept['command']}"
    old, new = kept["inputs"], told["inputs"]
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    words = f"{names[0]} {_words(old.get(names[0]))} instead of {_words(new.get(names[0]))}"
    return f"other inputs ({words}{'; also ' if names[1:] else ''}{', '.join(names[1:])})"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items()) or "none"
    return "none" if value is None else str(value)
