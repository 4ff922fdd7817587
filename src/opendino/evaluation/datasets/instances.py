"""Retrieval sets: revisited Oxford and Paris, AmsterTime, a CSV of labels, and plain class folders."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opendino.data import images
from opendino.data.listing import has_picture_ending
from opendino.data.sources import Skipped, Source, open_source
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.probes import labels_of
from opendino.evaluation.protocol import Job

LAYOUT = (
    "gnd_roxford5k.pkl or gnd_rparis6k.pkl beside jpg/; old/ and new/ of AmsterTime; "
    "labels.csv with `file,label`; or class folders"
)
MAX_PICKLE_BYTES = 64 << 20


class ListSource:
    """Pictures of given files: a `data.sources.Source`."""

    skipped: tuple[Skipped, ...] = ()
    parts: tuple[str, ...] = ()
    reading = images.Reading()

    def __init__(self, paths: Sequence[Path], labels: Sequence[str] | None = None) -> None:
        self.paths = list(paths)
        self.classes = tuple(sorted(set(labels))) if labels is not None else ()
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._labels = None if labels is None else [numbers[label] for label in labels]
        self.skip_counts: dict[str, int] = {}
        self.fingerprint = hash_ids([f"{path} {path.stat().st_size if path.exists() else 0}" for path in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    def id(self, index: int) -> str:
        """The file's path."""
        return str(self.paths[index])

    def label(self, index: int) -> int | None:
        """Index into `classes`."""
        return None if self._labels is None else self._labels[index]

    def read(self, index: int) -> images.Image:
        """Decode."""
        return images.read(self.paths[index])

    def load(self, index: int) -> bytes:
        """Bytes of the file."""
        return images.load_file(self.paths[index], self.id(index))

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of last change in ns; (-1, -1) when the file is gone."""
        try:
            status = self.paths[index].stat()
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Query:
    """One question: source and target of its picture (0 gallery, 1 queries), and the gallery's relevant pictures.

    easy, hard: positives; junk: left out of the ranking, such as the query's own picture.
    """

    id: str
    index: int
    easy: frozenset[int]
    hard: frozenset[int] = frozenset()
    junk: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Instances:
    """Queries against a gallery. `swapped`: questions asked from gallery to queries too (AmsterTime), paired by index.

    kind: "revisited" (easy, medium, hard), "pairs", or "any" (plain mAP and recall at k).
    """

    name: str
    split_hash: str
    kind: str
    gallery: Source
    queries: Source | None
    questions: Sequence[Query]

    def words(self) -> str:
        """Queries and gallery."""
        return f"{len(self.questions):,} queries against {len(self.gallery):,} pictures"


def open_instances(job: Job) -> Instances:
    """Recognise the layout. Raises DataError."""
    root = job.data
    for name in ("roxford5k", "rparis6k"):
        for file in (root / f"gnd_{name}.pkl", root / name / f"gnd_{name}.pkl"):
            if file.is_file():
                return _revisited(name, file, job)
    if (root / "old").is_dir() and (root / "new").is_dir():
        return _amstertime(root, job)
    tables = sorted(root.glob("*labels.csv"))
    if tables:
        return _labelled(_from_csv(root, tables[0], job), root.resolve().name, job)
    source = open_source(root)
    if source.parts:
        cause = f"holds {' and '.join(source.parts)}, parts of a data set and no classes"
        raise DataError(root, cause, f"give one of them: {root / source.parts[-1]}")
    return _labelled(source, root.resolve().name, job)


def _labelled(source: Source, name: str, job: Job) -> Instances:
    source = limited(source, job)
    labels = labels_of(source)
    questions = []
    for index, label in enumerate(labels.tolist()):
        mates = frozenset(np.flatnonzero(labels == label).tolist()) - {index}
        if label >= 0 and mates:
            questions.append(Query(source.id(index), index, mates, junk=frozenset({index})))
    if not questions:
        raise DataError(name, "no two pictures share a label", f"expected: {LAYOUT}")
    return Instances(name, hash_ids([question.id for question in questions]), "any", source, None, questions)


def _from_csv(root: Path, table: Path, job: Job) -> Source:
    with open(table, newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    if len(rows) < 2 or len(rows[0]) < 2 or rows[0][0] != "file":
        raise DataError(table, "must have the columns file,label")
    paths = [root / row[0] for row in rows[1:]]
    inside = root.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(inside):
            raise DataError(table, f"names {path.name} outside of its folder")
    if absent := [path for path in paths if not path.is_file()]:
        raise DataError(absent[0], f"is missing, and {len(absent) - 1} more that {table.name} names")
    return ListSource(paths, [row[1] for row in rows[1:]])


def _amstertime(root: Path, job: Job) -> Instances:
    sides = [
        {path.stem: path for path in sorted((root / side).iterdir()) if has_picture_ending(path.name.encode())}
        for side in ("old", "new")
    ]
    shared = evenly(sorted(sides[0].keys() & sides[1].keys()), job.limit)
    if not shared:
        raise DataError(root, "old/ and new/ share no name", f"expected: {LAYOUT}")
    old, new = (ListSource([side[name] for name in shared]) for side in sides)
    questions = [Query(name, index, frozenset({index})) for index, name in enumerate(shared)]
    return Instances("amstertime", hash_ids(shared), "pairs", new, old, questions)


def _revisited(name: str, file: Path, job: Job) -> Instances:
    truth = read_plain_pickle(file)
    try:
        folder = file.parent / "jpg"
        gallery = ListSource([folder / f"{one}.jpg" for one in truth["imlist"]])
        queries = ListSource([folder / f"{one}.jpg" for one in truth["qimlist"]])
        questions = [
            Query(str(one), index, *(frozenset(int(i) for i in gnd[part]) for part in ("easy", "hard", "junk")))
            for index, (one, gnd) in enumerate(zip(truth["qimlist"], truth["gnd"], strict=True))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(file, f"is no ground truth of revisited Oxford or Paris ({error})") from None
    questions = evenly(questions, job.limit)
    if absent := [path for path in (*gallery.paths, *queries.paths) if not path.is_file()]:
        raise DataError(absent[0], f"is missing, and {len(absent) - 1} more pictures", f"expected: {LAYOUT}")
    return Instances(name, hash_ids([q.id for q in questions]), "revisited", gallery, queries, questions)


class _Plain(pickle.Unpickler):
    """Opens lists, dicts, texts and numbers; the one thing that runs code in a pickle, finding a class, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain values alone. Raises DataError for anything else: it is data, and may not run code."""
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise DataError(path, "is larger than 64 MiB, which no list of pictures is")
    try:
        return _Plain(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            path, f"holds more than lists, texts and numbers ({error})", "only plain ones are opened"
        ) from None
