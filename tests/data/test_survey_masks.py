"""Masks beside pictures are noticed whatever their folders are called, and nothing else is taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from opendino.cli.check import check
from opendino.data.sources import open_source
from tests.data.drawing import encoded, photo

SIDES = (48, 64)


def mask(number: int) -> bytes:
    """An indexed PNG of a few classes."""
    values = np.zeros(SIDES, np.uint8)
    values[8:30, 3 * number % 40 : 3 * number % 40 + 20] = 1 + number % 3
    values[35:, 50:] = 4
    picture = PillowImage.fromarray(values, "P")
    picture.putpalette(list(range(0, 240, 16)) * 51)
    return _saved(picture)


def _saved(picture: PillowImage.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, picture: Callable[[int], str], mask_of: Callable[[int], str], count: int = 6) -> Path:
    for number in range(count):
        for name, data in ((picture(number), encoded(photo(number), "JPEG")), (mask_of(number), mask(number))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return folder


LAYOUTS = {
    "beside": (lambda n: f"JPEGImages/{n}.jpg", lambda n: f"SegmentationClass/{n}.png"),
    "below a part": (lambda n: f"images/train/{n}.jpg", lambda n: f"annotations/train/{n}.png"),
    "one folder, one stem": (lambda n: f"all/{n}.jpg", lambda n: f"all/{n}.png"),
    "a suffix": (lambda n: f"{n}.jpg", lambda n: f"{n}_mask.png"),
    "a city": (lambda n: f"left/a_{n}_leftImg8bit.jpg", lambda n: f"fine/a_{n}_gtFine_labelIds.png"),
    "defects": (lambda n: f"test/crack/{n:03}.jpg", lambda n: f"ground_truth/crack/{n:03}_mask.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_named_and_left_out(layout: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "all", *LAYOUTS[layout])
    result = check(folder, out=tmp_path / "out")
    summary = result.summary
    assert (summary.files, summary.readable, summary.classes) == (12, 6, {})
    assert sum(one.masks.count for one in summary.masks) == 6
    assert "leave out 6 masks" in result.verdict and result.command.endswith("--apply")
    assert "6 pictures are masks" in result.advice[0] and "such as" in result.advice[0]
    assert not summary.bad and not summary.suspicious
    after = check(folder, out=tmp_path / "out", apply=True)
    assert after.verdict == "Ready to use: 6 pictures." and after.measured == 0
    source = open_source(folder)
    assert len(source) == 6 and source.skip_counts["skip list: mask"] == 6
    assert all(source.id(index).endswith(".jpg") for index in range(6))


def test_a_mask_that_a_person_wants_stays(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", *LAYOUTS["beside"])
    check(folder, out=tmp_path / "out", apply=True)
    beside = folder / "opendino-skip.txt"
    beside.write_text(beside.read_text().replace("SegmentationClass/3", "# SegmentationClass/3"))
    result = check(folder, out=tmp_path / "out", apply=True)
    assert len(open_source(folder)) == 7 and "--apply" not in result.command


def test_masks_without_their_pictures_are_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", lambda n: f"images/{n}.jpg", lambda n: f"other/x{n}.png")
    assert check(folder, out=tmp_path / "out").summary.readable == 12


def test_another_size_is_another_picture(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", *LAYOUTS["beside"])
    for number in range(6):
        (folder / f"JPEGImages/{number}.jpg").write_bytes(encoded(photo(number, 50, 50), "JPEG"))
    assert check(folder, out=tmp_path / "out").summary.masks == ()


def test_classes_that_number_their_pictures_alike_have_no_masks(tmp_path: Path) -> None:
    """A few flat pictures in a class of photographs, and flat pictures whose names every class has."""
    folder = write(tmp_path / "all", lambda n: f"a/{n}.jpg", lambda n: f"b/{n}.png", 2)
    for number in range(2, 8):
        (folder / f"b/{number}.png").write_bytes(encoded(photo(50 + number), "PNG"))
    assert check(folder, out=tmp_path / "out").summary.masks == ()
    many = tmp_path / "many"
    for letter in range(52):
        write(many, lambda n, letter=letter: f"c{letter}/{n}.jpg", lambda n: f"drawn/{n}.png", 1)  # type: ignore[misc]
    assert check(many, out=tmp_path / "out2").summary.masks == ()


def test_pictures_that_are_no_masks_any_more_come_back(tmp_path: Path) -> None:
    folder = write(tmp_path / "all", *LAYOUTS["beside"])
    assert check(folder, out=tmp_path / "out").summary.readable == 6
    for number in range(6):
        (folder / f"JPEGImages/{number}.jpg").unlink()
    result = check(folder, out=tmp_path / "out")
    assert (result.summary.readable, result.summary.masks) == (6, ())
