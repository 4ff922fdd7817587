"""A survey: numbers against slow loops, duplicates against all pairs, and the same result after any number of kills."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from opendino.cli import main
from opendino.cli.check import check
from opendino.data import watch
from opendino.data.beside import read_skip_list
from opendino.data.images import Reading
from opendino.data.sources import open_source
from opendino.data.survey import Records, duplicates, take, take_survey
from opendino.data.survey.duplicates import MAX_BUCKET, NEAR_BITS, group_pairs, near_pairs
from opendino.data.survey.measure import Measured, difference_hash, measure
from tests.data.drawing import encoded, photo


def fill(folder: Path) -> Path:
    """Sound, grey, broken, one-coloured, equal, nearly equal, turned, small and long pictures, in two classes."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        (folder / "ab"[number % 2] / f"photo-{number:02d}.png").write_bytes(encoded(photo(number), "PNG"))
    (folder / "a/grey.png").write_bytes(encoded(photo(40)[:, :, 0], "PNG"))
    (folder / "a/white.png").write_bytes(encoded(np.full((40, 40, 3), 255, np.uint8), "PNG"))
    (folder / "a/dark.png").write_bytes(encoded(photo(41) // 9, "PNG"))
    (folder / "b/cut.jpg").write_bytes(encoded(photo(42), "JPEG")[:600])
    (folder / "b/copy of 0.png").write_bytes((folder / "a/photo-00.png").read_bytes())
    (folder / "b/near 1.jpg").write_bytes(encoded(photo(1), "JPEG", quality=70))
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    (folder / "b/turned.jpg").write_bytes(encoded(photo(43), "JPEG", exif=exif.tobytes()))
    (folder / "b/strip.png").write_bytes(encoded(photo(44, 20, 200), "PNG"))
    ramp = (np.arange(64 * 64).reshape(64, 64) % 3000).astype(np.uint16)
    (folder / "b/sensor.png").write_bytes(encoded(ramp, "PNG"))
    (folder / "a/notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("pictures") / "all")


def test_what_a_survey_says(folder: Path, tmp_path: Path) -> None:
    result = check(folder, out=tmp_path / "out")
    summary = result.summary
    assert (summary.files, summary.readable, result.measured) == (21, 20, 21)
    assert summary.left_out == {"no image": 1}
    assert summary.classes == {"a": 9, "b": 11}
    assert summary.kinds == {"png": 18, "jpeg": 2} and summary.bits == {"8": 19, "16": 1}
    assert summary.orientations == {"1": 19, "6": 1}
    assert summary.grey == 3
    assert {reason: named.ids for reason, named in summary.bad.items()} == {"truncated": ("b/cut.jpg",)}
    assert {word: named.ids for word, named in summary.suspicious.items()} == {
        "extreme shape": ("b/strip.png",),
        "one colour: white": ("a/white.png",),
        "tiny": ("b/strip.png",),
        "very dark": ("a/dark.png",),
    }
    assert summary.exact == (("a/photo-00.png", "b/copy of 0.png"),) == summary.mixed and summary.exact_copies == 1
    assert summary.near == (("b/near 1.jpg", "b/photo-01.png"),) and summary.near_copies == 1
    (sensor,) = summary.ranges
    assert (sensor.mode, sensor.low, sensor.high) == ("I;16", 0, 4095) and "12 of 16 bits" in sensor.rule
    words = " ".join(result.advice)
    for part in ("1 of 21 pictures cannot be read", "turned", "copies of others", "several classes", "12 of 16 bits"):
        assert part in words
    assert json.loads((tmp_path / "out/check.json").read_text())["files"] == 21


def test_mean_and_std_are_those_of_a_slow_loop(folder: Path, tmp_path: Path) -> None:
    summary = check(folder, out=tmp_path / "out").summary
    source = open_source(folder)
    arrays = []
    for index in range(len(source)):
        if source.id(index) != "b/cut.jpg":
            arrays.append(source.read(index).array.reshape(-1, 3) / 255)
    mean = np.mean([array.mean(0) for array in arrays], 0)
    square = np.mean([(array**2).mean(0) for array in arrays], 0)
    assert np.allclose(summary.mean, mean) and np.allclose(summary.std, np.sqrt(square - mean**2))


def test_the_skip_list_is_honoured_and_said(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pictures"
    shutil.copytree(folder, copy)
    before = open_source(copy)
    (copy / "opendino-skip.txt").write_text("a/photo-02.png\n")
    result = check(copy, out=tmp_path / "out", apply=True)
    assert result.summary.files == 21  # a survey looks at everything
    after = open_source(copy)
    ids = {after.id(index) for index in range(len(after))}
    gone = {"a/photo-02.png", "a/white.png", "b/copy of 0.png", "b/cut.jpg"}
    assert {before.id(index) for index in range(len(before))} - ids == gone
    assert after.skip_counts == {
        "no image": 1,
        "skip list: by hand": 1,
        "skip list: duplicate": 1,
        "skip list: one colour": 1,
        "skip list: truncated": 1,
    }
    assert {skipped.id for skipped in after.skipped if skipped.reason.startswith("skip list")} == gone
    assert after.fingerprint != before.fingerprint == open_source(copy, skip=False).fingerprint
    check(copy, out=tmp_path / "out", apply=True)
    assert open_source(copy).fingerprint == after.fingerprint
    lines = (copy / "opendino-skip.txt").read_text().splitlines()
    assert any(line.startswith("# b/photo-01.png\tnear duplicate") for line in lines)  # a proposal only


def test_decisions_in_the_skip_list_outlive_the_next_check(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pictures"
    shutil.copytree(folder, copy)
    check(copy, out=tmp_path / "out", apply=True)
    path = copy / "opendino-skip.txt"
    lines = path.read_text().splitlines()
    turned = [
        f"# {line}" if line.startswith("a/white.png") else line.removeprefix("# ") if "b/photo-01.png" in line else line
        for line in lines
    ]
    path.write_text("\n".join([*turned, "a/photo-02.png\tmine\tugly light"]) + "\n")
    decided = read_skip_list(path)
    assert b"a/white.png" not in decided and b"b/photo-01.png" in decided
    check(copy, out=tmp_path / "out", apply=True)
    assert read_skip_list(path) == decided
    assert "a/photo-02.png\tmine\tugly light" in path.read_text().splitlines()
    (copy / "b/cut.jpg").write_bytes(encoded(photo(92), "JPEG"))
    check(copy, out=tmp_path / "out", apply=True)
    assert b"b/cut.jpg" in decided and b"b/cut.jpg" not in read_skip_list(path), "a mended picture is used again"


def test_a_second_survey_decodes_nothing_and_sees_changes(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pictures"
    shutil.copytree(folder, copy)
    first = check(copy, out=tmp_path / "out")
    assert check(copy, out=tmp_path / "out").measured == 0
    (copy / "a/photo-02.png").write_bytes(encoded(photo(90), "PNG"))
    (copy / "a/photo-04.png").unlink()
    (copy / "a/new.png").write_bytes(encoded(photo(91), "PNG"))
    again = check(copy, out=tmp_path / "out")
    assert again.measured == 2
    assert again.summary == check(copy, out=tmp_path / "fresh").summary != first.summary
    assert check(copy, out=tmp_path / "out", reading=Reading(value_range=(0, 100))).measured == 21


def test_processes_give_the_rows_of_one(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder)
    rows = []
    for workers in (0, 2):
        records = Records(tmp_path / f"{workers}.sqlite", "")
        done: list[int] = []
        assert take_survey(source, records, workers, done.append) == 21 and sum(done) == 21
        rows.append(list(records.rows()))
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_killed_at_twenty_moments_it_says_the_same(tmp_path: Path) -> None:
    _kill_and_compare(tmp_path, kills=20, count=600)


def test_killed_at_two_moments_it_says_the_same(tmp_path: Path) -> None:
    _kill_and_compare(tmp_path, kills=2, count=100)


def _kill_and_compare(tmp_path: Path, kills: int, count: int) -> None:
    pictures = tmp_path / "pictures"
    fill(pictures)
    for number in range(count):
        (pictures / "a" / f"many-{number:03d}.png").write_bytes(encoded(photo(number % 50 + 200, 200, 200), "PNG"))
    out = tmp_path / "out"
    code = f"from opendino.cli.check import check; check({str(pictures)!r}, out={str(out)!r})"
    command = [sys.executable, "-c", code]
    generator = random.Random(4)
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.3, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    check(pictures, out=tmp_path / "unbroken")
    for name in ("check.json", "opendino-skip.txt"):
        assert (out / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


class _Ending:
    """A source of five pictures: 1 kills the process that decodes it, 3 keeps it busy in C code for minutes."""

    classes = ()
    skipped = ()
    skip_counts: dict[str, int] = {}  # noqa: RUF012
    fingerprint = "ending"
    reading = Reading()

    def __len__(self) -> int:
        return 5

    def id(self, index: int) -> str:
        return f"{index}.png"

    def label(self, index: int) -> int | None:
        return None

    def stamp(self, index: int) -> tuple[int, int]:
        return 1, 1

    def load(self, index: int) -> bytes:
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 3:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        return encoded(photo(index), "PNG")


def test_a_decoder_that_crashes_or_never_ends_costs_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take, "Watch", lambda: watch.Watch(patience_s=0))
    records = Records(tmp_path / "r.sqlite", "")
    assert take_survey(_Ending(), records, 1, lambda count: None) == 5  # type: ignore[arg-type]
    rows = list(records.rows())
    assert [(row.id, row.reason) for row in rows if row.reason] == [("1.png", "crash"), ("3.png", "too-slow")]
    assert all(row.width == 64 for row in rows if not row.reason)


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    for folder, count in (("train", 120), ("test", 4), ("depth", 3), ("cat", 6)):
        for number in range(count):
            path = tmp_path / "all" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(photo(number, 40, 40), "PNG"))
    result = check(tmp_path / "all", out=tmp_path / "out")
    words = " ".join(result.advice)
    for part in (
        "folders test, train are named as parts of a data set",
        "3 pictures lie in depth: if these are masks or depth maps",
        "Classes of fewer than 5 pictures: 2",
        "uneven, 3 to 120 pictures",
    ):
        assert part in words
    assert "choose the right folder" in result.verdict


def test_one_range_is_proposed_for_one_type_of_numbers_only(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for number in range(3):
        PillowImage.fromarray(photo(number)[:, :, 0].astype(np.float32) * 10).save(folder / f"{number}.tif")
    result = check(folder, out=tmp_path / "out")
    assert "declare the range of the numbers" in result.verdict
    assert any('Declare one range for all: {"value_range": [' in line for line in result.advice)
    PillowImage.fromarray(photo(9)[:, :, 0].astype(np.int32) * 1000 - 9).save(folder / "9.tif")
    advice = check(folder, out=tmp_path / "out").advice
    assert any("of 2 types (F, int32x1), which no one range fits" in line for line in advice)
    sound = tmp_path / "sound"
    sound.mkdir()
    (sound / "1.png").write_bytes(encoded(photo(1), "PNG"))
    assert check(sound, out=tmp_path / "out2").verdict == "Ready to use: 1 picture."


# Duplicates


def test_near_pairs_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 256, (300, 32), dtype=np.uint8)
    for number in range(100):
        bits = np.unpackbits(hashes[number])
        bits[generator.choice(256, generator.integers(0, 20), replace=False)] ^= 1
        hashes[200 + number] = np.packbits(bits)
    bits = np.unpackbits(hashes, axis=1)
    expected = set()
    for first in range(300):
        for second in range(first + 1, 300):
            differ = int((bits[first] != bits[second]).sum())
            if differ <= NEAR_BITS:
                expected.add((first, second, differ))
    found = list(near_pairs(hashes))
    assert len(found) == len(set(found)) and set(found) == expected and len(expected) > 40


def test_pieces_of_the_hash_are_scattered_over_the_picture() -> None:
    """Else pictures of a smooth ground share a piece by the thousand, and near pairs of 10^5 take minutes."""
    assert sorted(duplicates._SCATTERED) == list(range(256))
    for piece in duplicates._SCATTERED.reshape(16, 16):
        assert sorted(piece // 16) == sorted(piece % 16) == list(range(16))


def test_many_equal_hashes_take_bounded_time() -> None:
    hashes = np.tile(np.arange(32, dtype=np.uint8), (3 * MAX_BUCKET, 1))
    pairs = list(near_pairs(hashes))
    assert len(pairs) < 40 * len(hashes)
    assert group_pairs(pairs) == [list(range(len(hashes)))]


def test_the_hash_holds_through_saving_and_resizing() -> None:
    array = photo(7, 200, 300)
    first = np.unpackbits(np.frombuffer(difference_hash(array), np.uint8))
    for size in ((150, 100), (450, 300)):
        small = np.asarray(PillowImage.fromarray(array).resize(size))
        other = np.unpackbits(np.frombuffer(difference_hash(small), np.uint8))
        assert (first != other).sum() <= NEAR_BITS
    other = np.unpackbits(np.frombuffer(difference_hash(photo(8, 200, 300)), np.uint8))
    assert (first != other).sum() > 60
    assert difference_hash(np.zeros((50, 50, 3), np.uint8)) == b""


def test_large_jpegs_are_looked_at_reduced_but_sized_whole() -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    data = encoded(photo(2, 800, 1200), "JPEG", exif=exif.tobytes())
    row = measure(data, Measured("x", len(data), 0), Reading())
    assert (row.height, row.width, row.orientation) == (1200, 800, 6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_is_flat_over_100_000_files(tmp_path: Path) -> None:
    """Hard links under distinct names; more files cost their names and 32 bytes a distinct picture, not more."""
    kept = []
    for number in range(500):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encoded(photo(number, 64, 64), "JPEG"))
        kept.append(path)
    peaks = []
    for count in (10_000, 100_000):
        folder = tmp_path / f"pictures-{count}"
        for number in range(count):
            if number % 1000 == 0:
                (folder / f"{number:06d}").mkdir(parents=True)
            os.link(kept[number % 500], folder / f"{number // 1000 * 1000:06d}" / f"{number}.jpg")
        code = (
            "import resource, time; from opendino.cli.check import check; start = time.time();"
            f"result = check({str(folder)!r}, out={str(tmp_path / f'out-{count}')!r});"
            f"assert result.summary.files == {count};"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.time() - start)"
        )
        answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        peak, seconds = map(float, answer.split())
        print(f"{count} files: {peak:.0f} MB, {count / seconds:.0f} files/s")
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 100 and peaks[1] < 500


def test_train_and_val_are_named_as_parts(tmp_path: Path) -> None:
    for folder in ("train/a", "val/a"):
        for number in range(2):
            path = tmp_path / "all" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(photo(number + len(folder)), "PNG"))
    result = check(tmp_path / "all", out=tmp_path / "out")
    assert result.summary.parts == ("train", "val") and not result.summary.classes
    assert any("train, val are named as parts of a data set and not taken for classes" in one for one in result.advice)
    assert "choose the right folder" in result.verdict


# Numbers beyond 8 bits


def test_the_numbers_of_each_band_are_those_of_a_slow_loop(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    folder = tmp_path / "all"
    folder.mkdir()
    generator = np.random.default_rng(0)
    stacks = [generator.integers(0, 100 * (one + 2), (30, 40, 5)).astype(np.uint16) for one in range(3)]
    for number, stack in enumerate(stacks):
        stack[:, :, 4] += 1000
        tifffile.imwrite(folder / f"{number}.tif", stack, photometric="minisblack", planarconfig="contig")
    result = check(folder, out=tmp_path / "out")
    assert result.summary.readable == 0  # no bands are named yet, and still the numbers are known
    assert [(band.mode, band.band, band.count) for band in result.summary.bands] == [
        ("uint16x5", number, 3) for number in range(5)
    ]
    for band in result.summary.bands:
        planes = [stack[:, :, band.band] for stack in stacks]
        assert (band.smallest, band.largest) == (min(map(np.min, planes)), max(map(np.max, planes)))
        for value, share in ((band.low, 1), (band.middle, 50), (band.high, 99)):
            assert value == pytest.approx(np.mean([np.percentile(plane, share) for plane in planes]))
    assert result.command.endswith("--bands 0 1 2")
    assert "which of 0 to 4" in result.advice[0]
    named = check(folder, out=tmp_path / "out", reading=Reading(bands=(4, 0, 1)))
    assert named.summary.readable == 3 and named.summary.bands == result.summary.bands


def test_missing_pixels_are_not_among_the_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    depth = photo(1)[:, :, 0].astype(np.float32)
    depth[:5], depth[5:9] = np.nan, -9999
    PillowImage.fromarray(depth).save(folder / "depth.tif")
    (band,) = check(folder, out=tmp_path / "out", reading=Reading(nodata=-9999)).summary.bands
    assert (band.smallest, band.largest) == (depth[9:].min(), depth[9:].max())


def test_ordinary_pictures_have_no_table_of_numbers(folder: Path, tmp_path: Path) -> None:
    assert {band.mode for band in check(folder, out=tmp_path / "out").summary.bands} == {"I;16"}


def test_a_survey_of_an_older_format_is_taken_anew(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "1.png").write_bytes(encoded(photo(1), "PNG"))
    out = tmp_path / "out"
    out.mkdir()
    with sqlite3.connect(out / "survey.sqlite") as old:
        old.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT)")
        old.execute("INSERT INTO about VALUES ('made', '[2, \"\"]')")
        old.execute("CREATE TABLE pictures (id, size, PRIMARY KEY (id)) WITHOUT ROWID")
    assert check(folder, out=out).measured == 1


# How a check ends


def test_bad_pictures_end_well_unless_none_can_be_read_or_strictness_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(encoded(photo(1), "JPEG")[:500])
    ask = ["check", str(folder), "--out", str(tmp_path / "out")]
    assert main(ask) == main([*ask, "--json"]) == 3  # nothing to learn from
    (folder / "whole.jpg").write_bytes(encoded(photo(2), "JPEG"))
    assert main(ask) == 0
    assert main([*ask, "--strict"]) == 3
    assert main([*ask, "--apply", "--strict"]) == 0
    assert main([*ask, "--strict"]) == 0  # what is bad is in the list beside the pictures
    (folder / "new.jpg").write_bytes(b"\xff\xd8\xff")
    assert main([*ask, "--strict"]) == 3


def test_a_check_after_applying_says_ready(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))
    (folder / "cut.jpg").write_bytes(encoded(photo(1), "JPEG")[:500])
    before = check(folder, out=tmp_path / "out")
    assert "leave out 1 picture that" in before.verdict and before.command.endswith("--apply") and before.unlisted == 1
    for apply in (True, False):
        after = check(folder, out=tmp_path / "out", apply=apply)
        assert after.verdict == "Ready to use: 4 pictures." and after.unlisted == 0
        assert after.command.startswith("opendino try")


def test_of_a_large_tiff_the_numbers_of_some_rows_are_known_before_its_bands_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr("opendino.data.images.large.LARGE_PIXELS", 1000)
    folder = tmp_path / "all"
    folder.mkdir()
    stack = np.random.default_rng(0).integers(0, 3000, (100, 90, 5)).astype(np.uint16)
    stack[:, :, 2] += 5000
    tifffile.imwrite(folder / "large.tif", stack, photometric="minisblack", planarconfig="contig", tile=(16, 16))
    result = check(folder, out=tmp_path / "out")
    assert result.summary.readable == 0 and [band.mode for band in result.summary.bands] == 5 * ["uint16x5"]
    for band in result.summary.bands:
        plane = stack[:, :, band.band]
        assert plane.min() <= band.smallest <= np.percentile(plane, 1) and band.largest <= plane.max()
        assert band.middle == pytest.approx(np.median(plane), rel=0.05)
    named = check(folder, out=tmp_path / "out", reading=Reading(bands=(0, 1, 2)))
    assert named.summary.readable == 1 and named.summary.bands == result.summary.bands
