"""Retrieval sets: revisited Oxford and Paris, AmsterTime, a CSV of labels, and plain class folders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendino.data.listing import has_picture_ending
from opendino.data.sources import Source, open_source, subset
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.listed import ListSource
from opendino.evaluation.datasets.pickles import read_plain_pickle
from opendino.evaluation.datasets.units import evenly, hash_ids, require_one_set
from opendino.evaluation.probes import labels_of
from opendino.evaluation.protocol import Job

LAYOUT = (
    "gnd_roxford5k.pkl or gnd_rparis6k.pkl beside jpg/; old/ and new/ of AmsterTime; "
    "labels.csv with `file,label`, or NAME_labels.csv beside NAME/; or class folders"
)


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
    split = "all"

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
    tables = [_Table(path) for path in sorted(root.glob("*labels.csv"))]
    with_pictures = [table for table in tables if table.folder is not None]
    if len(with_pictures) > 1:
        names = " and ".join(table.path.name for table in with_pictures[:3])
        raise DataError(root, f"holds several tables ({names})", "put each with its pictures into a folder of its own")
    if tables:
        table = (with_pictures or tables)[0]
        name = root.resolve().name if table.path.stem == "labels" else table.path.stem.removesuffix("_labels")
        return _labelled(table.source(), name, job)
    require_one_set(root)
    source = open_source(root)
    if source.parts:
        cause = f"holds {' and '.join(source.parts)}, parts of a data set and no classes"
        raise DataError(root, cause, f"give one of them: {root / source.parts[-1]}")
    return _labelled(source, root.resolve().name, job)


def _labelled(source: Source, name: str, job: Job) -> Instances:
    source = _with_mates(source, job)
    labels = labels_of(source)
    questions = []
    for index, label in enumerate(labels.tolist()):
        mates = frozenset(np.flatnonzero(labels == label).tolist()) - {index}
        if label >= 0 and mates:
            questions.append(Query(source.id(index), index, mates, junk=frozenset({index})))
    if not questions:
        raise DataError(name, "no two pictures share a label", f"expected: {LAYOUT}")
    return Instances(name, hash_ids([question.id for question in questions]), "any", source, None, questions)


def _with_mates(source: Source, job: Job) -> Source:
    """At most `job.limit` pictures, of so few classes that every class can have two."""
    if job.limit is None or len(source) <= job.limit:
        return source
    labels = labels_of(source)
    many = [label for label, count in enumerate(np.bincount(labels[labels >= 0])) if count > 1]
    kept = evenly(many, max(1, job.limit // 2))
    return limited(subset(source, np.flatnonzero(np.isin(labels, kept))), job)


class _Table:
    """A table of files and labels. folder: where its first picture lies, None where it lies nowhere: files are named
    from the folder of the table on, or for NAME_labels.csv from the folder NAME beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, newline="", encoding="utf-8") as lines:
            self._rows = list(csv.reader(lines))
        first = self._rows[1][0] if len(self._rows) > 1 and self._rows[1] else None
        folders = (path.parent, path.parent / path.stem.removesuffix("_labels")) if first else ()
        self.folder = next((folder for folder in folders if (folder / str(first)).is_file()), None)

    def source(self) -> Source:
        """Its pictures. Raises DataError when one is missing."""
        header, *rows = self._rows or [[]]
        if not rows or len(header) < 2 or header[0] != "file":
            raise DataError(self.path, "must have the columns file,label")
        source = ListSource(self.folder or self.path.parent, [row[0] for row in rows], [row[1] for row in rows])
        source.require_files(f"{self.path.name} names them")
        return source


def _amstertime(root: Path, job: Job) -> Instances:
    sides = [
        {path.stem: path.name for path in sorted((root / part).iterdir()) if has_picture_ending(path.name.encode())}
        for part in ("old", "new")
    ]
    shared = evenly(sorted(sides[0].keys() & sides[1].keys()), job.limit)
    if not shared:
        raise DataError(root, "old/ and new/ share no name", f"expected: {LAYOUT}")
    old, new = (
        ListSource(root, [f"{part}/{files[name]}" for name in shared])
        for part, files in zip(("old", "new"), sides, strict=True)
    )
    questions = [Query(name, index, frozenset({index})) for index, name in enumerate(shared)]
    return Instances("amstertime", hash_ids(shared), "pairs", new, old, questions)


def _revisited(name: str, file: Path, job: Job) -> Instances:
    truth = read_plain_pickle(file)
    try:
        gallery, queries = (
            ListSource(file.parent / "jpg", [f"{one}.jpg" for one in truth[part]]) for part in ("imlist", "qimlist")
        )
        questions = [
            Query(str(one), index, *(frozenset(int(i) for i in gnd[part]) for part in ("easy", "hard", "junk")))
            for index, (one, gnd) in enumerate(zip(truth["qimlist"], truth["gnd"], strict=True))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(file, f"is no ground truth of revisited Oxford or Paris ({error})") from None
    questions = evenly(questions, job.limit)
    for source in (gallery, queries):
        source.require_files(f"expected: {LAYOUT}")
    return Instances(name, hash_ids([q.id for q in questions]), "revisited", gallery, queries, questions)
