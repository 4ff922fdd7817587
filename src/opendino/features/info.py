"""Whose features a store holds and how they were made: STORE/store.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opendino.data.beside import parse_reading
from opendino.data.images import Reading
from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.features.codec import PatchKind, PatchLoss
from opendino.features.identity import transform_hash
from opendino.features.lattice import Agreement
from opendino.features.precision import Drift
from opendino.files import read_json, write_json

FORMAT = 1
INFO = "store.json"


@dataclass(frozen=True)
class StoreInfo:
    """Whose features a store holds and how they were made.

    model: what was opened, a path or a name; card: its name, licence, source and what else travelled with it.
    source: the folder of the pictures; reading: how its files are read. dtype: number type of the forward pass. tile:
    side and step of tiles in pixels, or None. drift: against fp32, None for fp32. loss: of the kept patches, None for
    none. agreement: of merged tiles with whole pictures, None without tiles.
    """

    model: str
    model_hash: str
    dim: int
    patch: int
    licence: str
    card: dict[str, Any]
    transform: Transform
    source: str
    dtype: str
    reading: Reading = field(default_factory=Reading)
    patches: PatchKind = "none"
    tile: tuple[int, int] | None = None
    drift: Drift | None = None
    loss: PatchLoss | None = None
    agreement: Agreement | None = None

    @property
    def model_words(self) -> str:
        """For a message: the model's name, the hash of its weights, and where it was opened."""
        return f"{self.card.get('name', 'without a name')} ({self.model_hash}, {self.model})"

    @property
    def transform_hash(self) -> str:
        """See `identity.transform_hash`."""
        return transform_hash(self.transform, self.reading)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the transform in the form of preprocessor_config.json."""
        fields = {**asdict(self), "transform": self.transform.to_dict(), "transform_hash": self.transform_hash}
        return {"format": FORMAT, **fields}

    @classmethod
    def from_json(cls, fields: dict[str, Any], path: Path) -> StoreInfo:
        """The inverse of `to_json`. Raises DataError for a newer format or a missing field."""
        if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
            raise DataError(path, "is not the file of a feature store")
        if fields["format"] > FORMAT:
            fix = "update opendino"
            raise DataError(path, f"format {fields['format']} is newer than this opendino's {FORMAT}", fix)
        readers: dict[str, Callable[[Any], Any]] = {
            "transform": Transform.from_dict,
            "reading": parse_reading,
            "tile": tuple,
            "drift": lambda told: Drift(**told),
            "loss": lambda told: PatchLoss(**told),
            "agreement": lambda told: Agreement(**told),
        }
        try:
            # A store of an earlier opendino lacks what came later; such fields have defaults.
            values = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
            for name, parse in readers.items():
                if values.get(name) is not None:
                    values[name] = parse(values[name])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(path, f"is damaged ({error})", "make the store anew") from None


def read_info(path: Path) -> StoreInfo | None:
    """What store.json says, or None when there is none."""
    if not (path / INFO).is_file():
        return None
    return StoreInfo.from_json(read_json(path / INFO), path / INFO)


def write_info(path: Path, info: StoreInfo) -> None:
    """Replace store.json."""
    write_json(path / INFO, info.to_json())
