"""Units that cannot be read are named and left out, the others are told of one by one, and none at all is an error."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from opendino.errors import DataError
from opendino.evaluation.protocol import Job
from opendino.evaluation.reading import read_each


@dataclass(frozen=True)
class Unit:
    id: str
    value: int | None


def read(unit: Unit) -> int:
    if unit.value is None:
        raise DataError(unit.id, "is broken")
    return unit.value


def test_what_cannot_be_read_is_named_and_left_out():
    told, skipped = [], []
    job = Job(Path(), progress=lambda *state: told.append(state))
    units = [Unit("a", None), Unit("b", 2), Unit("c", None), Unit("d", 4)]
    assert list(read_each(units, read, skipped, job, "units")) == [(units[1], 2), (units[3], 4)]
    assert [(one.id, one.reason) for one in skipped] == [("a", "is broken"), ("c", "is broken")]
    assert told == [("units", 2, 4), ("units", 4, 4)]


def test_not_one_is_an_error_with_a_cause():
    with pytest.raises(DataError, match=r"pictures: none could be read \(x: is broken\)"):
        list(read_each([Unit("x", None)], read, [], Job(Path()), "pictures"))
    with pytest.raises(DataError, match=r"none could be read"):
        list(read_each([], read, [], Job(Path()), "pictures"))


def test_an_error_of_whoever_asks_is_not_taken_for_a_broken_unit():
    skipped = []
    with pytest.raises(DataError, match="mine"):
        for _ in read_each([Unit("a", 1)], read, skipped, Job(Path()), "units"):
            raise DataError("mine", "is another matter")
    assert not skipped
