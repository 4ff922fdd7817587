"""What people meet with odd pictures (the rows I1 to I8, P3 and the table of messages), and what opendino says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from opendino.cli import main
from opendino.data.beside import read_reading, read_skip_list
from opendino.data.images import Reading, read
from opendino.data.sources import open_source
from opendino.errors import DataError, OpendinoError
from tests.data.drawing import encoded, photo
from tests.data.test_image_families import video


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(photo(number), "PNG"))
    return folder


def said(pictures: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["check", str(pictures), "--out", str(pictures.parent / "out"), *flags]) == 0
    return capsys.readouterr().out


def test_i1_16_bit_is_not_white_and_its_range_is_said(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sensor = np.random.default_rng(0).integers(700, 4096, (64, 64)).astype(np.uint16)
    (pictures / "sensor.png").write_bytes(encoded(sensor, "PNG"))
    assert 100 < read(pictures / "sensor.png").array.mean() < 200
    assert "0 to 4095 become 0 to 255 (12 of 16 bits, which hold 99.9 % of its pixels)" in said(pictures, capsys)


def test_i3_a_broken_file_is_counted_named_and_left_out(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "half.jpg").write_bytes(encoded(photo(9), "JPEG")[:700])
    words = said(pictures, capsys, "--apply")
    assert "cannot be read: 1 truncated, e.g. half.jpg" in words and "1 of 4 pictures cannot be read" in words
    source = open_source(pictures)
    assert len(source) == 3 and source.skip_counts["skip list: truncated"] == 1


def test_i4_other_channels_name_their_way_on(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 256, (10, 40, 40), dtype=np.uint8)
    (pictures / "ten.tif").write_bytes(b"")
    tifffile.imwrite(
        pictures / "ten.tif", values, photometric="minisblack", planarconfig="separate", extrasamples=[0] * 9
    )
    assert "has 10 bands; say which of 0 to 9" in said(pictures, capsys)
    assert "cannot be read" not in said(pictures, capsys, "--bands", "2", "1", "0")


def test_i5_which_range_is_answered_with_numbers(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(pictures / "heights.tif", np.linspace(-50, 950, 6400, dtype=np.float32).reshape(80, 80))
    words = said(pictures, capsys)
    assert "without a stated range" in words and '{"value_range": [-49, 949]' in words
    assert "(declared)" in said(pictures, capsys, "--value-range", "0", "1000")


def test_i6_names_outside_ascii_are_read(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "Übergröße 测试 🐈.png").write_bytes(encoded(photo(9), "PNG"))
    assert "4 pictures, 4 readable" in said(pictures, capsys)


def test_i8_video_frames_come_by_number(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [photo(number, 32, 48) for number in range(5)]
    (pictures / "clip.mkv").write_bytes(video(frames))
    assert np.array_equal(read(pictures / "clip.mkv", reading=Reading(frame=3)).array, frames[3])
    assert "left out by the scan: 1 video" in said(pictures, capsys)


def test_p3_a_flat_folder_needs_no_classes(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No class folders: k-NN scores need labels, neighbours are shown instead." in said(pictures, capsys)


def test_d3_normalisation_is_answered_with_numbers(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(encoded(photo(number) // 4, "PNG"))
    words = said(pictures, capsys)
    assert "--data.mean 0.1" in words and "keep the normalisation on their card" in words


def test_machines_get_one_json_object(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(said(pictures, capsys, "--json"))
    assert value["files"] == 3 and value["measured"] == 3 and Path(value["page"]).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no reading"),
        ('{"band": [0]}', "is no reading"),
        ('{"bands": "all of them"}', "is no reading"),
        ('{"value_range": [1]}', "is no reading"),
        ('{"value_range": [5, 5]}', "the smaller first"),
    ],
)
def test_a_wrong_reading_is_one_line(pictures: Path, text: str, words: str) -> None:
    (pictures / "opendino-reading.json").write_text(text)
    with pytest.raises(OpendinoError, match=words):
        open_source(pictures)


def test_readings_and_skip_lists_are_read_back(pictures: Path) -> None:
    path = pictures / "opendino-reading.json"
    path.write_text('{"bands": [3, 1], "value_range": [0, 10.5], "window": [0, 1, 20, 30], "alpha": "mask"}')
    assert read_reading(path) == Reading(bands=(3, 1), value_range=(0, 10.5), window=(0, 1, 20, 30), alpha="mask")
    skips = pictures / "opendino-skip.txt"
    skips.write_bytes(b"# words\na b.png\ttruncated\tcut, at 5 %\n%23x.png\n\nc%0Ad.png\tmine\r\n")
    assert read_skip_list(skips) == {b"a b.png": "truncated", b"#x.png": "by hand", b"c\nd.png": "mine"}
    skips.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="skip list cannot be read"):
        open_source(pictures)


def test_a_hint_of_size_decodes_less_and_changes_no_identity(pictures: Path) -> None:
    (pictures / "large.jpg").write_bytes(encoded(photo(3, 800, 1200), "JPEG"))
    whole, hinted = open_source(pictures), open_source(pictures, at_least=200)
    assert whole.read(3).array.shape == (800, 1200, 3) and hinted.read(3).array.shape == (200, 300, 3)
    assert whole.fingerprint == hinted.fingerprint


def test_another_skip_list_can_be_given_or_none(pictures: Path) -> None:
    (pictures / "opendino-skip.txt").write_text("0.png\n")
    other = pictures.parent / "other.txt"
    other.write_text("1.png\n2.png\nnot-there.png\n")
    source = open_source(pictures, skip=other)
    assert [source.id(index) for index in range(len(source))] == ["0.png"]
    assert source.skip_counts["in the skip list, but not there"] == 1
    assert len(open_source(pictures, skip=False)) == 3 and len(open_source(pictures)) == 2


def test_a_pipe_of_pictures_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="1 not a regular file"):
        open_source(tmp_path)


def test_every_command_takes_another_skip_list_and_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model remembers how its pictures were read, and features of pictures read otherwise are announced."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        grey = (photo(number, 40, 40)[:, :, 0].astype(np.uint16) * 16).copy()
        (pictures / f"{number}.png").write_bytes(encoded(grey, "PNG"))
    (tmp_path / "mine.txt").write_text("5.png\n")
    (pictures / "opendino-skip.txt").write_text("3.png\n4.png\n")
    run, out = tmp_path / "run", tmp_path / "o.store"
    flags = ["--skip", str(tmp_path / "mine.txt"), "--value-range", "0", "2000"]
    small = ["--data.batch-size", "2", "--data.crops.global-px", "32", "--data.crops.num-locals", "0"]
    assert main(["pretrain", str(pictures), *flags, "--steps", "1", "--out", str(run), *small]) == 0
    assert "5 pictures" in capsys.readouterr().err
    card = json.loads((run / "model/config.json").read_text())["opendino"]["card"]
    assert card["reading"] == {"value_range": [0.0, 2000.0]}
    assert main(["embed", str(pictures), "--model", str(run), "--out", str(out), *flags]) == 0
    printed = capsys.readouterr()
    assert f"{out}: 5 rows" in printed.out and "careful" not in printed.err
    assert main(["embed", str(pictures), "--model", str(run), "--skip", "none", "--out", str(tmp_path / "all")]) == 0
    printed = capsys.readouterr()
    assert "all: 6 rows" in printed.out
    words = "the model learned from pictures read with value_range [0.0, 2000.0]; these are read with nothing declared"
    assert words in printed.err
    assert main(["embed", str(pictures), "--model", str(run), "--skip", "gone.txt"]) == 3
    assert "--skip gone.txt: no such file" in capsys.readouterr().err
