"""The passport of a weights file: what it is, whose, and how much of a model it covers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendino.data.transform import Transform
from opendino.files import sha256_file
from opendino.models.vit import ViTConfig
from opendino.weights.folder import read_transform
from opendino.weights.identify import identify
from opendino.weights.load import make_card
from opendino.weights.opened import open_weights, probably
from opendino.weights.where import Origin


@dataclass(frozen=True)
class Passport:
    """layout: whose names the file has; prefix: what stands in front of them.
    models: family members of this shape. identity: which one it is and how that is known, in words; careful: what
    follows where it may be another one. params: numbers in the file.

    dtypes: number of tensors by kind of number. digest: hex SHA-256 of the file (of the index file for shards).
    random: tensors that were never trained, since the weights that these were made from lacked them.
    digest_in_name: `agrees` or `differs` where an official name carries the start of its hash, else empty.
    """

    file: Path
    format: str
    layout: str
    prefix: str
    models: tuple[str, ...]
    identity: str
    careful: str
    coverage: str
    whole: bool
    probably: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shape: dict[str, Any]
    params: int
    dtypes: dict[str, int]
    licence: str
    source: str
    digest: str
    digest_in_name: str
    transform: Transform
    ignored: tuple[str, ...]
    random: tuple[str, ...]


def read_passport(
    path: Path | str, origin: Origin | None = None, *, heads: int | None = None, depth: int | None = None
) -> Passport:
    """Read a file and describe it; no model is made, nothing in it is executed. `heads`, `depth`: as `load` has them.

    Raises WeightsError for what is unsafe or unknown; a file that does not fit gets its passport all the same.
    """
    origin = origin or Origin(Path(path))
    opened = origin.opened or open_weights(origin.path, heads, depth)
    config: Any = opened.config
    patch = config.patch if isinstance(config, ViTConfig) else getattr(config, "patch", 32)
    digest = sha256_file(opened.file)
    identity = identify(opened, origin, digest)
    card = make_card(opened, origin, identity)
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in opened.tensors.values())
    return Passport(
        file=opened.file,
        format="safetensors" if opened.file.suffix in (".safetensors", ".json") else "PyTorch pickle",
        layout=opened.layout.name,
        prefix=opened.prefix,
        models=opened.names,
        identity=identity.words,
        careful=identity.careful,
        coverage=str(opened.coverage),
        whole=opened.coverage.whole,
        probably="" if opened.coverage.whole else probably(opened),
        missing=opened.coverage.missing,
        unexpected=opened.coverage.unexpected,
        shape={key: value for key, value in vars(config).items() if key in _SHAPE},
        params=sum(tensor.numel() for tensor in opened.tensors.values()),
        dtypes=dict(kinds),
        licence=card["licence"],
        source=card["source"],
        digest=digest,
        digest_in_name=_compared(opened.file.name, digest),
        transform=read_transform(opened.folder, opened.raw, patch, identity.spec),
        ignored=tuple(opened.ignored),
        random=tuple(map(str, card.get("random", ()))),
    )


def _compared(name: str, digest: str) -> str:
    """Official names end in `-` and the first eight digits of the SHA-256."""
    stated = re.search(r"-([0-9a-f]{8})\.pth$", name)
    return "" if stated is None else "agrees" if digest.startswith(stated.group(1)) else "differs"


_SHAPE = {*("dim", "depth", "heads", "hidden", "patch", "registers", "channels", "swiglu"), *("depths", "dims")}
