"""Which member of the family a weights file is, and what tells it: its hash, its card, its name, or its shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opendino.models.family import FAMILY, ModelSpec
from opendino.weights.folder import states_transform
from opendino.weights.opened import Opened
from opendino.weights.where import Origin, file_names

_PARTS = 5
"""Parts of a path that may name a model: Hugging Face's cache has the repository three above the file."""
FOREIGN = {"eupe": "EUPE"}
"""Words in a name, and the families that they mean: others than ours, with models of the same shapes."""
_SATELLITE = re.compile(r"sat493m|[-_.]sat(?![a-z])")


@dataclass(frozen=True)
class Identity:
    """spec: the member that a file is taken for, or None. others: members that have its shape as well.

    how: what tells it; "shape" where nothing else does. foreign: the family that its name says instead, else "".
    words: a sentence. careful: what follows where it may be another one, else "".
    """

    spec: ModelSpec | None
    others: tuple[str, ...]
    how: Literal["hash", "card", "name", "shape", "nothing"]
    foreign: str
    words: str
    careful: str


def identify(opened: Opened, origin: Origin, digest: str | None = None) -> Identity:
    """Tell a file from its look-alikes. digest: hex SHA-256 of the file, where it is known."""
    shapes = " or ".join(opened.names)
    foreign = next((family for word, family in FOREIGN.items() if word in _name_text(opened)), "")
    if foreign:
        words = f"{foreign}'s by its name, with the shape of {shapes}" if shapes else f"{foreign}'s by its name"
        return Identity(None, opened.names, "name", foreign, words, _careful_of_normalisation(opened, None))
    for name in opened.names:
        if digest and FAMILY[name].digest and digest.startswith(FAMILY[name].digest):
            return Identity(FAMILY[name], (), "hash", "", f"{name}, as its hash says, which is the published one", "")
    member, how = _named(opened, origin)
    if member is None:
        card = _card(opened).get("name")
        words = f"{card}, as its card says; " if card else ""
        return Identity(None, (), "nothing", "", f"{words}none of the family by its sizes", "")
    others = tuple(one for one in opened.names if one != member)
    own = _card(opened).get("name")
    if own and own not in opened.names:
        words = f"{str(own)[:80]}, as its card says, of the shape of {shapes}"
        return Identity(FAMILY[member], others, "card", "", words, "")
    if how == "shape":
        words = f"{shapes}, by its shape alone" + (": it could be either" if others else "")
        careful = _careful_of_normalisation(opened, FAMILY[others[0]]) if others else ""
        return Identity(FAMILY[member], others, how, "", words, careful)
    twins = f"; {' and '.join(others)} has its shape, too" if others else ""
    return Identity(FAMILY[member], others, how, "", f"{member}, as its {how} says{twins}", "")


def _named(opened: Opened, origin: Origin) -> tuple[str | None, Literal["card", "name", "shape"]]:
    if origin.name is not None:
        return origin.name, "name"
    if not opened.names:
        return None, "shape"
    card = _card(opened).get("name")
    if card in opened.names:
        return str(card), "card"
    text = _name_text(opened)
    satellite = [name for name in opened.names if name.endswith("_sat") and _SATELLITE.search(text)]
    if satellite and len(opened.names) > 1:
        return satellite[0], "name"
    for name in opened.names:
        if any(re.search(rf"(?<![a-z0-9]){re.escape(one)}(?![a-z0-9])", text) for one in file_names(FAMILY[name])):
            return name, "name"
    return opened.names[0], "shape"


def _name_text(opened: Opened) -> str:
    """Everything that may name a model: the file, its nearest folders, and what its config.json says of its origin."""
    raw = opened.raw if isinstance(opened.raw, Mapping) else {}
    timm = raw.get("pretrained_cfg")
    said = [raw.get("architecture"), raw.get("_name_or_path"), timm.get("tag") if isinstance(timm, Mapping) else None]
    parts = [*opened.file.parts[-_PARTS:-1], opened.file.stem]
    return " ".join(str(one)[:200] for one in [*parts, *said] if one).lower()


def _card(opened: Opened) -> Mapping[str, Any]:
    ours = opened.raw.get("opendino") if isinstance(opened.raw, Mapping) else None
    card = ours.get("card") if isinstance(ours, Mapping) else None
    return card if isinstance(card, Mapping) else {}


def _careful_of_normalisation(opened: Opened, other: ModelSpec | None) -> str:
    """What a wrong guess changes: nothing where a file beside the weights states mean and standard deviation."""
    if states_transform(opened.folder, opened.raw):
        return ""
    if other is None:
        return "no file says how its pictures are normalised; ImageNet's mean and std are taken (--mean, --std)"
    mean, std = (",".join(f"{one:g}" for one in numbers) for numbers in (other.picture_mean, other.picture_std))
    return f"pictures are normalised for {opened.names[0]}; if it is {other.name}: --mean {mean} --std {std}"
