"""The Met as published: one class an exhibit, photographs of visitors, and other pictures to be turned down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.data.sources import Source
from opendino.errors import DataError
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.listed import ListSource
from opendino.evaluation.datasets.units import evenly, hash_ids
from opendino.evaluation.protocol import Job
from opendino.files import read_json

LAYOUT = "MET/ID/*.jpg, test_met/, test_noart/, test_other/ and ground_truth/{MET_database,testset,valset}.json"
EXPECTED = f"expected: {LAYOUT}"
DISTRACTOR = -1


@dataclass(frozen=True)
class Questions:
    """Pictures to name, and the exhibit of each: DISTRACTOR where it is none of the Met's."""

    pictures: Source
    exhibits: NDArray[np.int64]


@dataclass(frozen=True)
class Met:
    """exhibits: pictures whose classes are the exhibits' numbers as text; val chooses, test is scored."""

    name: str
    split_hash: str
    exhibits: Source
    val: Questions
    test: Questions
    split = "test"

    def words(self) -> str:
        """Exhibits and questions."""
        known = int((self.test.exhibits != DISTRACTOR).sum())
        asked = f"{len(self.test.pictures):,} questions, {known:,} of them about exhibits"
        return f"{len(self.exhibits):,} pictures of {len(self.exhibits.classes):,} exhibits, {asked}"


def open_met(job: Job) -> Met:
    """Raises DataError naming what is missing."""
    base = next((base for base in (job.data / "ground_truth", job.data) if (base / "testset.json").is_file()), None)
    if base is None:
        raise DataError(job.data / "ground_truth" / "testset.json", "is missing", EXPECTED)
    root = job.data / "images" if (job.data / "images").is_dir() else job.data
    rows = _rows(base / "MET_database.json")
    try:
        exhibits = ListSource(root, [row["path"] for row in rows], [str(int(row["id"])) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(base / "MET_database.json", f"has a row without id and path ({error})", EXPECTED) from None
    exhibits.require_files(EXPECTED)
    val, test = (_questions(base / f"{part}set.json", root, job) for part in ("val", "test"))
    digest = hash_ids([exhibits.fingerprint, val.pictures.fingerprint, test.pictures.fingerprint])
    return Met("met", digest, limited(exhibits, job), val, test)


def _questions(file: Path, root: Path, job: Job) -> Questions:
    rows = evenly(_rows(file), job.limit)
    try:
        pictures = ListSource(root, [row["path"] for row in rows])
        exhibits = np.array([int(row.get("MET_id", DISTRACTOR)) for row in rows], np.int64)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(file, f"has a row without path, or with a wrong MET_id ({error})", EXPECTED) from None
    if not (exhibits != DISTRACTOR).any():
        raise DataError(file, "names no exhibit", EXPECTED)
    pictures.require_files(EXPECTED)
    return Questions(pictures, exhibits)


def _rows(file: Path) -> Sequence[Any]:
    if not file.is_file():
        raise DataError(file, "is missing", EXPECTED)
    rows = read_json(file)
    if not isinstance(rows, list) or not rows:
        raise DataError(file, "must be a list of pictures", EXPECTED)
    return rows
