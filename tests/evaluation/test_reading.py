"""Units that cannot be read are named and left out, the others are told of one by one, and none at all is an error."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from opendino.data.beside import READING_NAME, read_declared
from opendino.data.images import Image
from opendino.errors import DataError
from opendino.evaluation.datasets.depths import open_depths
from opendino.evaluation.datasets.listed import ListSource
from opendino.evaluation.datasets.masks import open_masks
from opendino.evaluation.datasets.stereo import open_stereo
from opendino.evaluation.protocol import Job
from opendino.evaluation.reading import read_each
from tests.evaluation import layouts


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


def declare_grey(root: Path) -> Path:
    (root / READING_NAME).write_text('{"bands": [0]}')
    return root


def is_grey(picture: Image) -> bool:
    return bool((picture.array == picture.array[..., :1]).all())


def test_a_declared_reading_is_followed_below_the_root_of_every_layout(tmp_path):
    coloured = open_masks(Job(layouts.plain_masks(tmp_path / "coloured"))).val[0].image
    assert not is_grey(read_declared(coloured))
    masks = open_masks(Job(declare_grey(layouts.plain_masks(tmp_path / "masks"))))
    assert all(is_grey(read_declared(one.image)) for one in (*masks.train, *masks.val))
    stereo = declare_grey(layouts.middlebury_2003(tmp_path / "stereo"))
    scene = open_stereo(Job(stereo, settings={"scale": 4.0})).scenes[0]
    assert all(is_grey(eye) for eye in scene.read()[:2])
    depths = open_depths(Job(declare_grey(layouts.plain_depth(tmp_path / "depth"))))
    assert is_grey(depths.picture(depths.val[0]))


def test_a_listed_source_follows_it_and_is_another_set_of_features(tmp_path):
    root = layouts.plain_masks(tmp_path / "set")
    names = [path.relative_to(root).as_posix() for path in sorted(root.glob("val/images/*"))]
    plain, grey = ListSource(root, names), ListSource(declare_grey(root), names)
    assert not is_grey(plain.read(0)) and is_grey(grey.read(0))
    assert plain.fingerprint != grey.fingerprint
