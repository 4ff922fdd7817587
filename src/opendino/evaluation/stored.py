"""Features that lie in a store already, scored in the place of a backbone: `features:STORE` of `opendino embed`.

Pictures are found by the hash of their files: names and folders may differ, and no picture is taken for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from opendino.data.sources import Skipped, Source
from opendino.errors import DataError
from opendino.evaluation.protocol import Entry, Subject
from opendino.features.encode import hash_content
from opendino.features.extract import NO_LABEL, Bank
from opendino.features.store import Store, open_store

PREFIX = "features:"


class StoredFeatures(nn.Module):
    """CLS and mean patch of the pictures of a store; it stands where a backbone does and sees no picture."""

    num_layers = 1

    def __init__(self, store: Store) -> None:
        super().__init__()
        rows = store.table(["source_hash"], where="tile = ''")["source_hash"].to_pylist()
        if len(rows) != len(store):
            raise DataError(store.path, "holds tiles, whose features are not those of pictures", "embed without --tile")
        self.path, self.patch, self.transform = store.path, store.info.patch, store.info.transform
        self._reading = replace(store.info.reading, at_least=None)
        self.card = {**store.info.card, "name": f"{store.path} at version {store.version}"}
        self._rows = {digest: row for row, digest in enumerate(rows)}
        self._cls, self._mean = (torch.from_numpy(store.matrix(column).copy()) for column in ("cls", "mean"))

    def require(self, entry: Entry) -> None:
        """Raise DataError for a protocol that shows more than whole files to a model, or reads more than CLS of it."""
        if entry.reads != "CLS" or entry.shown:
            raise DataError(entry.id, "shows pictures to a model in its own way, a store has none", "name the model")

    def bank(self, source: Source, progress: Callable[[int], None]) -> Bank:
        """Features of the pictures of a source; those that the store lacks are skipped by name.

        Raises DataError when it has not one of them, or read files in another way.
        """
        if replace(source.reading, at_least=None) != self._reading:
            raise DataError(self.path, "was made with another reading (bands, value range)", "embed again")
        rows, labels, ids, skipped = [], [], [], []
        for index in range(len(source)):
            try:
                row = self._rows.get(hash_content(source, index))
            except DataError as error:
                skipped.append(Skipped(source.id(index), getattr(error, "reason", error.cause)))
                continue
            if row is None:
                skipped.append(Skipped(source.id(index), "not in the store"))
                continue
            label = source.label(index)
            rows.append(row)
            labels.append(NO_LABEL if label is None else label)
            ids.append(source.id(index))
            progress(index + 1)
        if not rows:
            fix = "embed the folder that is scored, train and val"
            raise DataError(self.path, f"holds none of {len(source)} pictures", fix)
        found = torch.tensor(rows)
        return Bank(self._cls[found], self._mean[found], torch.tensor(labels), tuple(ids), tuple(skipped))


def is_stored(what: object) -> bool:
    """Whether what is scored is named as a store of features."""
    return isinstance(what, str) and what.startswith(PREFIX)


def stored_subject(what: str) -> Subject:
    """The store of `features:STORE` as what is scored; its hash is of the model, the transform and the number type.

    Raises DataError for what is none.
    """
    store = open_store(Path(what.removeprefix(PREFIX)))
    model = StoredFeatures(store)
    name = f"{store.info.card.get('name', 'model')} in {store.path.name}"
    made_by = f"{store.info.model_hash} {store.info.transform_hash} {store.info.dtype}"
    digest = hashlib.sha256(made_by.encode()).hexdigest()
    return Subject(model, model.transform, name, digest, licence=store.info.licence)
