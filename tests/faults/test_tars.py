"""Faults of tar files of pictures: hostile names, links and devices, sizes, extra headers, cuts, copies, members that
would be executed elsewhere, and damage at random (F56-F61). Nothing is ever written, and the next tar is read.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from opendino.data.images import ImageError
from opendino.data.sources import Source, open_source
from opendino.errors import DataError
from tests.data.drawing import encoded, photo

PNG = encoded(photo(0, 16, 16), "PNG")


def member(name: bytes = b"a.png", data: bytes = PNG, flag: bytes = b"0", size: bytes | None = None) -> bytes:
    """A header with a right sum, and the data."""
    header = bytearray(512)
    header[: min(100, len(name))] = name[:100]
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[124:136] = b"%011o\0" % len(data) if size is None else size
    header[136:148], header[156:157], header[257:265] = b"00000000000\0", flag, b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def pax(**records: bytes) -> bytes:
    """An extra header of the newer form."""
    body = b""
    for key, value in records.items():
        rest = b" " + key.replace("_", ".").encode() + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += str(length).encode() + rest
    return member(b"pax", body, b"x")


END = bytes(1024)


def opened(folder: Path, first: bytes) -> tuple[Source, list[str]]:
    """A folder of two tars, the first one hostile; its pictures. The second is read whatever the first holds, and
    no file is made anywhere beside them.
    """
    (folder / "shards").mkdir(parents=True)
    (folder / "shards/0.tar").write_bytes(first)
    (folder / "shards/1.tar").write_bytes(member(b"sound.png") + END)
    start = time.process_time()
    source = open_source(folder / "shards")
    assert time.process_time() - start < 1
    ids = [source.id(index) for index in range(len(source))]
    assert ids[-1] == "1.tar/sound.png" and source.read(len(ids) - 1).array.shape == (16, 16, 3)
    for index in range(len(source)):
        with contextlib.suppress(ImageError):
            source.read(index)
    assert sorted(os.listdir(folder)) == ["shards"] and sorted(os.listdir(folder / "shards")) == ["0.tar", "1.tar"]
    return source, [id.removeprefix("0.tar/") for id in ids[:-1]]


# F56

NAMES = (
    b"/etc/passwd.png", b"../up.png", b"../../../../tmp/up.png", b"a/../../up.png", b"a\\..\\up.png", b"C:\\up.png",
    b"~/up.png", b"-rf.png", b"new\nline.png", b"\x1b[31mred.png", b"\xff\xfe.png", b"<img src=x>.png", b"%2e%2e.png",
    b" .png", b"//host/share.png", b"$(id).png", b"n" * 100,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_f56_names_are_ids_and_no_paths(tmp_path: Path, name: bytes) -> None:
    source, ids = opened(tmp_path, member(name) + END)
    assert len(ids) == 1 and ids[0].isprintable()
    assert not source.skip_counts and np.array_equal(source.read(0).array, photo(0, 16, 16))


def test_f56_a_name_ends_at_its_zero_byte(tmp_path: Path) -> None:
    assert opened(tmp_path, member(b"a.png\0/../../evil.sh") + END)[1] == ["a.png"]


# F57


@pytest.mark.parametrize(
    ("flag", "reason"),
    [(b"1", "link"), (b"2", "link"), (b"3", "device"), (b"4", "device"), (b"6", "device"), (b"S", "sparse")]
    + [(flag, "unknown type of member") for flag in (b"9", b"A", b"V", b"\xff")],
)
def test_f57_what_is_no_file_is_counted_and_passed_over(tmp_path: Path, flag: bytes, reason: str) -> None:
    data = b"" if flag in b"12346" else PNG
    source, ids = opened(tmp_path, member(b"odd.png", data, flag) + member(b"b.png") + END)
    assert ids == ["b.png"] and source.skip_counts == {reason: 1}


# F58


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (b"77777777777\0", "cut: a member goes beyond the end"),
        (b"\x80" + (2**40).to_bytes(11, "big"), "cut: a member goes beyond the end"),
        (b"\x80" + (2**80).to_bytes(11, "big"), "damaged header (negative or impossible size)"),
        (b"\xff" * 12, "damaged header (negative or impossible size)"),
        (b"-0000000001\0", "damaged header (a number is none)"),
        (b"-7777777777\0", "damaged header (a number is none)"),
        (b"0x10        ", "damaged header (a number is none)"),
        (b"1e3\0\0\0\0\0\0\0\0\0", "damaged header (a number is none)"),
        (b"0_1_2_3_4_5\0", "damaged header (a number is none)"),
    ],
)
def test_f58_sizes_that_cannot_be(tmp_path: Path, size: bytes, words: str) -> None:
    source, ids = opened(tmp_path, member(b"whole.png") + member(b"b.png", size=size) + END)
    assert ids == ["whole.png"] and source.skip_counts == {words: 1}


@pytest.mark.parametrize("size", [b"-1", b"1e9", b"9" * 19, b"", b"\xb2", b"0x9", b"1_0"])
def test_f58_sizes_of_extra_headers(tmp_path: Path, size: bytes) -> None:
    source, ids = opened(tmp_path, member(b"whole.png") + pax(size=size) + member(b"b.png") + END)
    assert ids == ["whole.png"] and source.skip_counts == {"damaged header (size in a pax header)": 1}


# F59


@pytest.mark.parametrize("flag", [b"L", b"K", b"x", b"g"])
def test_f59_extra_headers_of_megabytes_are_refused(tmp_path: Path, flag: bytes) -> None:
    first = member(b"whole.png") + member(b"long", b"n" * (2**20 + 1), flag) + member(b"b.png") + END
    source, ids = opened(tmp_path, first)
    assert ids == ["whole.png"] and source.skip_counts == {"extra header of 1048577 bytes": 1}


def test_f59_chains_of_extra_headers_take_no_time_and_no_memory(tmp_path: Path) -> None:
    chain = member(b"long", b"x.png\0", b"L") * 2000 + pax(path=b"y.png") * 2000
    assert opened(tmp_path, chain + member(b"b.png") + END)[1] == ["y.png"]


@pytest.mark.parametrize(
    "body",
    [b"99999999 path=a\n", b"0 \n", b"5\n", b"a path=b\n", b"-9 path=b\n", b"7 path\n3", b"\xff" * 40, b"1 path=b\n"],
)
def test_f59_records_that_make_no_sense(tmp_path: Path, body: bytes) -> None:
    source, ids = opened(tmp_path, member(b"whole.png") + member(b"pax", body, b"x") + member(b"b.png") + END)
    assert ids == ["whole.png"] and source.skip_counts == {"damaged header (pax)": 1}


@pytest.mark.parametrize("packed", [gzip.compress(bytes(10**7)), b"BZh9" + bytes(600), b"\xfd7zXZ\0" + bytes(600)])
def test_f59_packed_tars_are_named_and_not_unpacked(tmp_path: Path, packed: bytes) -> None:
    source, ids = opened(tmp_path, packed)
    assert ids == [] and [reason.partition(",")[0] for reason in source.skip_counts] == ["is compressed"]


# F60


def test_f60_a_tar_cut_anywhere_keeps_what_is_whole(tmp_path: Path) -> None:
    data = b"".join(member(f"{number}.png".encode()) for number in range(4)) + END
    length = len(member())
    for end in range(0, len(data), 173):
        source, ids = opened(tmp_path / str(end), data[:end])
        whole = min(4, sum(end >= number * length + 512 + len(PNG) for number in range(4)))
        assert ids == [f"{number}.png" for number in range(whole)], end
        between = end >= 4 * length or end % length == 0 or end % length >= 512 + len(PNG)
        assert bool(source.skip_counts) == (end == 0 or not between), end  # an empty file is named, too


def test_f60_of_copies_the_last_counts(tmp_path: Path) -> None:
    copies = b"".join(member(b"same.png", encoded(photo(number, 16, 16), "PNG")) for number in range(5))
    source, ids = opened(tmp_path, copies + END)
    assert ids == ["same.png"] and np.array_equal(source.read(0).array, photo(4, 16, 16))
    assert source.skip_counts == {"replaced by a later member of the same name": 4}


def test_a_tar_of_nothing_is_one_line(tmp_path: Path) -> None:
    for number, data in enumerate((END, member(b"a.txt", b"words") + END, member(b"folder/", b"", b"5") + END)):
        (tmp_path / f"{number}.tar").write_bytes(data)
        with pytest.raises(DataError, match="no pictures found"):
            open_source(tmp_path / f"{number}.tar")


# F61


class _Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple:
        return open, (str(self._path), "w")


@pytest.mark.parametrize(
    "ending", ["pickle", "pkl", "pyd", "pth", "pt", "npy", "npz", "pyc", "png", "json", "cls", "exe"]
)
def test_f61_no_member_is_executed(tmp_path: Path, ending: str) -> None:
    canary = tmp_path / "canary"
    data = pickle.dumps(_Canary(canary))
    if ending in ("npy", "npz"):
        buffer = io.BytesIO()
        np.save(buffer, np.array([_Canary(canary)], object), allow_pickle=True)
        data = buffer.getvalue()
    pickle.loads(pickle.dumps(_Canary(tmp_path / "fires"))).close()
    assert (tmp_path / "fires").exists()
    source, ids = opened(tmp_path / "place", member(f"evil.{ending}".encode(), data) + member(b"b.png") + END)
    assert ids == (["b.png", "evil.png"] if ending == "png" else ["b.png"])
    if ending == "png":
        with pytest.raises(ImageError, match="no picture"):
            source.read(1)
    else:
        assert source.skip_counts == {"no image": 1}
    assert not canary.exists()


# Damage at random


def _damaged(count: int, seed: int, path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a/1.png", "b/" + "n" * 150 + ".png", "ü/3.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    sound = buffer.getvalue()
    generator = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(sound)
        for _ in range(generator.integers(1, 4)):
            block = 512 * int(generator.integers(0, len(data) // 512))
            place = block + int(generator.choice([generator.integers(0, 512), generator.integers(100, 160)]))
            data[place : place + 1] = bytes([generator.integers(0, 256)]) * int(generator.choice([1, 1, 1, 12, 0, 2]))
            if generator.random() < 0.7 and len(data) >= block + 512:  # the sum of a header is made right again
                data[block + 148 : block + 156] = b" " * 8
                data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        path.write_bytes(data)
        try:
            source = open_source(path)
        except DataError as error:
            assert "\n" not in str(error)
            continue
        for index in range(len(source)):
            with contextlib.suppress(ImageError):
                source.read(index)


def test_f60_damage_at_random_is_typed(tmp_path: Path) -> None:
    _damaged(500, 0, tmp_path / "t.tar")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_f60_ten_thousand_damaged_tars(tmp_path: Path, seed: int) -> None:
    _damaged(1000, seed, tmp_path / "t.tar")
