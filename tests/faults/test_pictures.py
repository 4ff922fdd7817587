"""Faults of pictures on storage: cut files, bombs, other content under a picture's name, things that are no files, odd
names, rights, and storage that fails now and then (F46, F48-F53).
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from opendino.cli.check import check
from opendino.data.images import ImageError, Reading, read
from opendino.data.images import file as storage
from opendino.data.sources import decode_id, open_source
from tests.data.drawing import encoded, photo, write_photos
from tests.data.test_mutations import seeds
from tests.data.test_sources import make_tar

PNG = encoded(photo(0), "PNG")


def reason(data: bytes) -> str:
    """The short word of the error that reading gives, or "" for a picture."""
    try:
        read(data)
    except ImageError as error:
        assert "\n" not in str(error)
        return error.reason
    return ""


# F46


def test_f46_a_cut_file_is_typed_or_the_whole_picture() -> None:
    """At 1,980 cuts, every 1 % of each kind: never a grey tail. Whole is what needs nothing of the part that is gone,
    as the first frame of an animation.
    """
    for name, data in seeds().items():
        reading = Reading(bands=(0,)) if name == "tiff bands" else Reading()
        whole = read(data, reading=reading).array
        typed = 0
        for percent in range(1, 100):
            start = time.process_time()
            try:
                array = read(data[: len(data) * percent // 100], reading=reading).array
            except ImageError:
                typed += 1
            else:
                assert np.array_equal(array, whole), (name, percent)
            assert time.process_time() - start < 1, (name, percent)
        assert typed >= 49, name


# F48


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *chunks: bytes, rows: int = 0) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(bytes(rows * (1 + 3 * width)), 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + _chunk(b"IEND", b"")


def _tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 200), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 4)]
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0") + b"\x78\x9c\0\0"


def _gif(frames: int) -> bytes:
    one = encoded(np.zeros((16, 16, 3), np.uint8), "GIF")
    start = one.index(b"\x2c\0\0\0\0")
    return one[:start] + one[start:-1] * frames + b";"


def _webp(width: int, height: int) -> bytes:
    bits = 0x2F | (width - 1) << 8 | (height - 1) << 22
    body = b"VP8L" + struct.pack("<I", 8) + bits.to_bytes(5, "little") + bytes(3)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def bombs() -> dict[str, bytes]:
    """Small files that ask for gigabytes or minutes."""
    zeros = zlib.compress(bytes(100_000_000))
    progressive = encoded(photo(1), "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    jpeg = bytearray(encoded(photo(1), "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    return {
        "png of 65,535 x 65,535": _png(65_535, 65_535),
        "png of 13,000 x 13,000 in few bytes": _png(13_000, 13_000),
        "png with a text of 100 MB": _png(16, 16, _chunk(b"zTXt", b"a\0\0" + zeros), rows=16),
        "png with a profile of 100 MB": _png(16, 16, _chunk(b"iCCP", b"a\0\0" + zeros), rows=16),
        "tiff of 10^6 x 10^6": _tiff(10**6, 10**6),
        "gif of 200,000 frames": _gif(200_000),
        "webp of 16,383 x 16,383": _webp(16_383, 16_383),
        "jpeg of 65,535 x 65,535": bytes(jpeg),
        "jpeg of 500 scans": progressive[:scan] + progressive[scan:-2] * 500 + progressive[-2:],
    }


def _explode() -> None:
    """In a process of its own: each bomb's seconds, and the growth of the highest memory over all of them in MB."""
    import resource

    made = bombs()
    read(PNG), reason(made["tiff of 10^6 x 10^6"])  # libraries are loaded
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + 200 * 10**6,) * 2)
    for name, data in made.items():
        start = time.process_time()
        word = reason(data)
        assert time.process_time() - start < 1, name
        print(name, word or "picture", sep="\t")


def test_f48_bombs_are_refused_within_a_second_and_200_mb() -> None:
    code = "from tests.faults import test_pictures as t; t._explode()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    assert found == {
        "png of 65,535 x 65,535": "too-large",
        "png of 13,000 x 13,000 in few bytes": "truncated",
        "png with a text of 100 MB": "truncated",
        "png with a profile of 100 MB": "truncated",
        "tiff of 10^6 x 10^6": "too-large",
        "gif of 200,000 frames": "picture",  # the first of them
        "webp of 16,383 x 16,383": "too-large",
        "jpeg of 65,535 x 65,535": "too-large",
        "jpeg of 500 scans": "too-slow",
    }


# F49

ENDINGS = ("jpg", "png", "gif", "tif", "bmp", "webp", "jp2", "avif", "ppm", "dcm", "txt", "mp4")


def test_f49_content_decides_and_no_ending(tmp_path: Path) -> None:
    files = {name: data for name, data in seeds().items() if name not in ("tiff bands", "video", "tga")}
    for (name, data), ending in zip(files.items(), ENDINGS * 2, strict=False):
        (tmp_path / f"{name}.{ending}").write_bytes(data)
    source = open_source(tmp_path)
    assert len(source) == len(files) > len(ENDINGS)
    for index in range(len(source)):
        name = source.id(index).rpartition(".")[0]
        assert np.array_equal(source.read(index).array, read(files[name]).array)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        *((bytes([byte]), "not-an-image") for byte in (0, 0x0A, 0x42, 0x47, 0x49, 0x4D, 0x50, 0x52, 0x89, 0xFF)),
        (b"<html><body>404 Not Found</body></html>", "not-an-image"),
        (b"  \n<?xml version='1.0'?><svg onload='alert(1)'/>", "not-an-image"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "not-an-image"),  # AppleDouble
        (b'{"error": "expired"}', "not-an-image"),
        (b"PK\x03\x04" + bytes(100), "not-an-image"),
        (b"GIF89a", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
    ],
)
def test_f49_what_is_no_picture_is_named(data: bytes, word: str) -> None:
    assert reason(data) == word


# F50


@pytest.mark.timeout(20)
def test_f50_nothing_but_files_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_photos(root, 2)
    outside = write_photos(tmp_path / "outside", 1)[0]
    os.mkfifo(root / "pipe.jpg")
    (root / "endless.jpg").symlink_to("/dev/zero")
    (root / "one.jpg").symlink_to(root / "other.jpg")
    (root / "other.jpg").symlink_to(root / "one.jpg")
    (root / "out.png").symlink_to(outside)
    (root / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "socket.jpg"))
        source = open_source(root)
    assert [source.id(index) for index in range(len(source))] == ["out.png", "photo-00.png", "photo-01.png"]
    assert source.skip_counts == {"not a regular file": 3, "storage error (Too many levels of symbolic links)": 2}


def test_f50_a_file_that_becomes_a_pipe_does_not_hang(tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1)
    source = open_source(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ImageError, match="not a regular file"):
        source.read(0)


# F51


def nasty_names() -> list[bytes]:
    """40 names that are legal on Linux and break somewhere."""
    texts = [
        "-rf.png", "--help.png", " lead.png", "trail .png", "two\nlines.png", "tab\there.png", "bell\a.png",
        "quote'.png", 'double".png', "back`tick.png", "$(touch x).png", "${HOME}.png", ";ls.png", "a|b.png", "a&b.png",
        "<script>hacked=1<&slash;script>.png", "<img src=x onerror=hacked=1>.png", "back\\slash.png", "star*.png",
        "what?.png", "per%cent.png", "%2e%2e%2f.png", "%00.png", "#hash.png", "a=b.png", "=1+1.png", "@sum.png",
        "crack 🛣️.png", "é.png", "e\u0301.png", "\u202egnp.exe.png", "\u200bzero.png", "\u2028line.png", "日本語.png",
        "CON.png", "~.png", "n" * 250 + ".png", "{{7*7}}.png",
    ]  # fmt: skip
    return [*(text.encode() for text in texts), b"\xff\xfe.png", b"half \xc3.png"]


def test_f51_nasty_names_come_back_and_lie_inert_in_the_page(tmp_path: Path) -> None:
    names = nasty_names()
    assert len(set(names)) == 40
    (tmp_path / "pictures").mkdir()
    for number, name in enumerate(names):
        data = encoded(photo(number), "PNG") if number % 2 else b"\x89PNG\r\n\x1a\n"  # the page names the broken ones
        (tmp_path / "pictures").joinpath(os.fsdecode(name)).write_bytes(data)
    result = check(tmp_path / "pictures", out=tmp_path / "out", apply=True)
    assert result.summary.files == 40 and result.summary.bad["truncated"].count == 20
    assert {decode_id(id) for id in result.summary.bad["truncated"].ids} == set(names[::2])
    page = result.page.read_text()
    for raw in ("<script>hacked", "<img src=x", "\u2028"):
        assert raw not in page.split("</script>")[-1]
    source = open_source(tmp_path / "pictures")  # without those of the skip list
    assert {decode_id(source.id(index)) for index in range(len(source))} == set(names[1::2])
    for index in range(len(source)):
        assert np.array_equal(source.read(index).array, photo(names.index(decode_id(source.id(index)))))


# F52


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_f52_rights_and_files_that_go_or_change(public: Path) -> None:
    paths = write_photos(public, 5)
    source = open_source(public)
    paths[0].chmod(0)
    paths[1].unlink()
    paths[2].write_bytes(b"words")
    paths[3].write_bytes(encoded(photo(7), "PNG"))
    words = _without_rights(lambda: [_reason_of(source, index) for index in range(5)])
    assert words == ["denied", "vanished", "not-an-image", "", ""]
    assert np.array_equal(source.read(3).array, photo(7))


def test_f52_a_folder_without_rights_is_counted(public: Path) -> None:
    write_photos(public / "open", 2)
    write_photos(public / "shut", 2)
    (public / "shut").chmod(0)
    assert _without_rights(lambda: [len(open_source(public)), open_source(public).skip_counts]) == [2, {"denied": 1}]
    (public / "shut").chmod(0o755)


def _reason_of(source: object, index: int) -> str:
    try:
        source.read(index)
    except ImageError as error:
        assert error.thing == source.id(index)
        return error.reason
    return ""


def _without_rights(action: Callable[[], list]) -> list:
    """What an action gives in a child that is not root, whom rights do not bind."""

    def child(send: object) -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        send.send(action())

    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(send,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    return receive.recv()


# F53


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_f53_storage_that_fails_now_and_then_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """ESTALE, EIO and ETIMEDOUT out of stat, open, read and scandir: the pictures are those of a clean run."""
    for name in ("a", "b"):
        write_photos(tmp_path / "folder" / name, 10)
    members = {f"{name}/{number}.png": encoded(photo(number), "PNG") for name in "ab" for number in range(10)}
    (tmp_path / "tars").mkdir()
    make_tar(tmp_path / "tars/t.tar", members)
    generator = random.Random(7)
    failures = 0
    for kind in ("folder", "tars"):
        clean = open_source(tmp_path / kind)
        pixels = [clean.read(index).array for index in range(20)]

        def failing(plain: Callable) -> Callable:
            def action(*args: object, **options: object) -> object:
                nonlocal failures
                if generator.random() < share:
                    failures += 1
                    number = generator.choice([errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
                    raise OSError(number, os.strerror(number))
                return plain(*args, **options)

            return action

        with monkeypatch.context() as patched:
            patched.setattr(storage.time, "sleep", lambda seconds: None)
            for name in ("stat", "open", "scandir", "pread"):
                patched.setattr(os, name, failing(getattr(os, name)))
            shaken = open_source(tmp_path / kind)
            found = [shaken.read(index).array for index in range(20)]
        assert shaken.fingerprint == clean.fingerprint and shaken.skip_counts == clean.skip_counts
        assert all(np.array_equal(one, other) for one, other in zip(found, pixels, strict=True))
    assert failures


def test_f53_when_three_calls_in_ten_fail_a_picture_is_right_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five more tries are not enough for every picture then: about one in ten is lost, and none of them silently."""
    write_photos(tmp_path / "pictures", 60)
    source = open_source(tmp_path / "pictures")
    pixels = [source.read(index).array for index in range(60)]
    generator = random.Random(7)

    def failing(plain: Callable) -> Callable:
        def action(*args: object, **options: object) -> object:
            if generator.random() < 0.3:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return plain(*args, **options)

        return action

    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    for name in ("stat", "open"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    lost = 0
    for index in range(60):
        try:
            assert np.array_equal(source.read(index).array, pixels[index])
        except ImageError as error:
            assert error.reason == "io-fault"
            lost += 1
    assert lost < 15


def test_f53_storage_that_stays_broken_is_typed_and_a_run_of_it_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "pictures", 3)
    source = open_source(tmp_path / "pictures")
    waits: list[float] = []

    def broken(*args: object, **options: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(storage.time, "sleep", waits.append)
    monkeypatch.setattr(storage.os, "open", broken)
    assert _reason_of(source, 0) == "io-fault" and len(waits) == 5 and sum(waits) < 6
