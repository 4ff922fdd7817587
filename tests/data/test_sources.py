"""Sources: what is found in folders and tars, in which order, under which ids and classes."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendino.data import images, listing, tar
from opendino.data.sources import decode_id, encode_id, open_source, split_stratified, subset
from opendino.errors import DataError, UsageError
from tests.data.drawing import encoded, photo, write_photos

PNG = encoded(photo(0), "PNG")


def fill(root: Path, *names: str, data: bytes = PNG) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def ids(source: object) -> list[str]:
    return [source.id(index) for index in range(len(source))]


def labels(source: object) -> list[int | None]:
    return [source.label(index) for index in range(len(source))]


def make_tar(path: Path, members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# Folders


def test_pictures_are_found_below_and_sorted_by_bytes(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "a-b/1.png", "a/1.png", "B.png", "é.png", "a/deep/er/3.JPG"]
    source = open_source(fill(tmp_path, *names))
    assert ids(source) == sorted(names, key=os.fsencode)
    assert np.array_equal(source.read(2).array, photo(0))


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "._a.png", ".hidden.png", ".git/x.png", "@eaDir/a.png", "Thumbs.db")
    fill(tmp_path, "zero.jpg", data=b"")
    fill(tmp_path, "notes.txt", "captions.json", data=b"not a picture")
    fill(tmp_path, "large.png", data=b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "missing")
    source = open_source(tmp_path)
    assert ids(source) == ["a.png"]
    assert source.skip_counts == {
        "AppleDouble": 1,
        "hidden": 2,
        "system file": 2,
        "empty": 1,
        "no image": 2,
        "pointer of large-file storage": 1,
        "not a regular file": 1,
        "broken link": 1,
    }
    assert {skipped.id: skipped.reason for skipped in source.skipped}["zero.jpg"] == "empty"


def test_names_of_the_skipped_are_bounded_and_counts_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_NAMED", 5)
    fill(tmp_path, "a.png")
    fill(tmp_path, *(f"{number}.txt" for number in range(20)), data=b"words")
    source = open_source(tmp_path)
    assert len(source.skipped) == 5 and source.skip_counts == {"no image": 20}


def test_links(tmp_path: Path) -> None:
    """Links to files are read; links to folders only on request, and loops end."""
    outside = fill(tmp_path / "outside", "o.png")
    root = fill(tmp_path / "root", "a.png", "sub/b.png")
    (root / "file.png").symlink_to(outside / "o.png")
    (root / "folder").symlink_to(outside)
    (root / "sub" / "loop").symlink_to(root)
    source = open_source(root)
    assert ids(source) == ["a.png", "file.png", "sub/b.png"]
    assert source.skip_counts == {"link to a folder": 2}
    followed = open_source(root, follow=True)
    assert ids(followed) == ["a.png", "file.png", "folder/o.png", "sub/b.png"]
    assert followed.skip_counts == {"folder met before": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_folder_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "shut/b.png")
    (tmp_path / "shut").chmod(0)
    try:
        assert open_source(tmp_path).skip_counts == {"denied": 1}
    finally:
        (tmp_path / "shut").chmod(0o755)


def test_classes_are_first_folders_in_byte_order(tmp_path: Path) -> None:
    source = open_source(fill(tmp_path, "dog/1.png", "Leopards/1.png", "cat/x/1.png", "cat/2.png"))
    assert source.classes == ("Leopards", "cat", "dog")
    assert labels(source) == [0, 1, 1, 2]


def test_no_classes_without_a_sorted_folder(tmp_path: Path) -> None:
    assert open_source(fill(tmp_path / "flat", "1.png", "2.png")).classes == ()
    assert open_source(fill(tmp_path / "one", "a/1.png", "a/2.png")).classes == ()
    mixed = open_source(fill(tmp_path / "mixed", "a/1.png", "b/2.png", "3.png"))
    assert mixed.classes == () and labels(mixed) == [None] * 3


def test_a_stray_picture_does_not_take_the_classes_away(tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for name in "ab" for number in range(60)]
    source = open_source(fill(tmp_path, "cover.png", *names))
    assert source.classes == ("a", "b")
    assert labels(source)[ids(source).index("cover.png")] is None


def test_errors_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: no such file or folder; the nearest that exists is"):
        open_source(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no pictures found \(it is empty\).*folder of pictures"):
        open_source(tmp_path / "empty")
    with pytest.raises(DataError, match=r"no pictures found \(2 no image\)"):
        open_source(fill(tmp_path / "texts", "a.txt", "b.md", data=b"words"))
    with pytest.raises(DataError, match="is one picture; give a folder"):
        open_source(fill(tmp_path, "one.png", data=PNG) / "one.png")
    with pytest.raises(DataError, match="is neither a folder nor a tar"):
        open_source(fill(tmp_path, "one.bin", data=PNG) / "one.bin")
    with pytest.raises(IndexError):
        open_source(fill(tmp_path / "some", "a.png")).id(1)


@given(st.binary(min_size=1, max_size=60))
@settings(max_examples=300)
def test_ids_give_the_bytes_back(name: bytes) -> None:
    id = encode_id(name)
    assert decode_id(id) == name
    assert id.isprintable() or all(character >= " " for character in id)
    id.encode("utf-8")


def test_odd_names_are_read(tmp_path: Path) -> None:
    names = [b"%41.png", b"A.png", b"raw\xff.png", b"new\nline.png", b"-rf.png", b"'\"<b>.png", "e\u0301.png".encode(),
             "\u00e9.png".encode(), b"x" * 251 + b".png"]  # fmt: skip
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(encoded(photo(number), "PNG"))
    source = open_source(tmp_path)
    assert len(set(ids(source))) == len(names)
    for index, id in enumerate(ids(source)):
        assert "\n" not in id
        assert np.array_equal(source.read(index).array, photo(names.index(decode_id(id))))


def test_read_errors_name_the_id(tmp_path: Path) -> None:
    source = open_source(fill(tmp_path, "a/cut.png", data=PNG[:500]))
    with pytest.raises(images.Truncated) as caught:
        source.read(0)
    assert caught.value.thing == "a/cut.png"
    (tmp_path / "a/cut.png").unlink()
    with pytest.raises(images.Vanished):
        source.read(0)


def test_a_large_folder_is_scanned_quickly_and_kept_small(tmp_path: Path) -> None:
    """20,000 files: seconds and bytes for each stay far below what 10^6 files may take (60 us, 500 bytes)."""
    first = fill(tmp_path, "00/first.png") / "00/first.png"
    for folder in range(20):
        (tmp_path / f"{folder:02d}").mkdir(exist_ok=True)
        for number in range(1000 if folder else 999):
            os.link(first, tmp_path / f"{folder:02d}/{number:04d}.png")
    started = time.process_time()
    source = open_source(tmp_path)
    assert len(source) == 20_000
    assert (time.process_time() - started) / len(source) < 60e-6
    assert len(pickle.dumps(source)) / len(source) < 60


# Tars


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_read_like_its_folder(tmp_path: Path, format: int) -> None:
    long = "n" * 90
    names = ["b/1.png", "a/2.png", f"a/{long}/3.png", "a/4"]
    if format != tarfile.USTAR_FORMAT:
        names += [f"b/{long}{long}.png", "b/ünï.png"]
    members = {name: encoded(photo(number), "PNG") for number, name in enumerate(names)}
    for name, data in members.items():
        fill(tmp_path / "folder", name, data=data)
    folder, packed = open_source(tmp_path / "folder"), open_source(make_tar(tmp_path / "t.tar", members, format))
    assert ids(packed) == ids(folder) and labels(packed) == labels(folder)
    assert packed.classes == folder.classes == ("a", "b")
    assert packed.fingerprint == folder.fingerprint
    for index in range(len(packed)):
        assert np.array_equal(packed.read(index).array, folder.read(index).array)


def test_fingerprints_see_names_and_sizes(tmp_path: Path) -> None:
    def fingerprint(name: str, **files: bytes) -> str:
        for file, data in files.items():
            fill(tmp_path / name, f"{file}.png", data=data)
        return open_source(tmp_path / name).fingerprint

    base = fingerprint("one", a=PNG, b=PNG)
    assert base == fingerprint("two", a=PNG, b=PNG)
    assert base != fingerprint("three", a=PNG, c=PNG)
    assert base != fingerprint("four", a=PNG, b=PNG + b" ")


def test_a_folder_of_tars_is_one_source(tmp_path: Path) -> None:
    make_tar(tmp_path / "s-1.tar", {"a/3.png": PNG, "b/4.png": PNG})
    make_tar(tmp_path / "s-0.tar", {"b/1.png": PNG, "a/2.png": PNG, "a/info.json": b"{}"})
    source = open_source(tmp_path)
    assert ids(source) == ["s-0.tar/a/2.png", "s-0.tar/b/1.png", "s-1.tar/a/3.png", "s-1.tar/b/4.png"]
    assert source.classes == ("a", "b") and labels(source) == [0, 1, 0, 1]
    assert source.skip_counts == {"no image": 1}
    fill(tmp_path, "loose.png")
    mixed = open_source(tmp_path)
    assert ids(mixed) == ["loose.png"] and mixed.skip_counts == {"tar beside pictures": 2}


def test_tars_at_different_depths_have_the_same_classes(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    make_tar(tmp_path / "x.tar", {"a/1.png": PNG, "b/2.png": PNG})
    make_tar(tmp_path / "more/y.tar", {"b/3.png": PNG})
    source = open_source(tmp_path)
    assert ids(source) == ["more/y.tar/b/3.png", "x.tar/a/1.png", "x.tar/b/2.png"]
    assert source.classes == ("a", "b") and labels(source) == [1, 0, 1]


def test_hostile_members_are_ids_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("../../escape.png", tarfile.REGTYPE),
            ("/etc/passwd.png", tarfile.REGTYPE),
            ("./dotted.png", tarfile.REGTYPE),
            ("._apple.png", tarfile.REGTYPE),
            ("sub/.hidden/x.png", tarfile.REGTYPE),
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("null.png", tarfile.CHRTYPE),
            ("fifo.png", tarfile.FIFOTYPE),
            ("folder.png", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(PNG) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(PNG) if info.size else None)
    source = open_source(path)
    assert ids(source) == ["../../escape.png", "/etc/passwd.png", "dotted.png"]
    assert source.skip_counts == {"AppleDouble": 1, "hidden": 1, "link": 2, "device": 2}
    assert source.read(0).array.shape == (48, 64, 3)
    assert sorted(tmp_path.iterdir()) == [path]


def test_of_two_members_with_one_name_the_later_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for number in (1, 2):
            data = encoded(photo(number), "PNG")
            info = tarfile.TarInfo("same.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = open_source(tmp_path / "t.tar")
    assert len(source) == 1 and np.array_equal(source.read(0).array, photo(2))
    assert sum(source.skip_counts.values()) == 1


@pytest.mark.parametrize("end", [512 * 3 + 100, 512 * 2, 700])
def test_a_cut_tar_keeps_what_is_whole(tmp_path: Path, end: int) -> None:
    small = encoded(photo(0, 8, 8), "PNG")[:500].ljust(500, b"\0")
    path = make_tar(tmp_path / "t.tar", {"a.png": small, "b.png": small}, tarfile.USTAR_FORMAT)
    path.write_bytes(path.read_bytes()[:end])
    other = make_tar(tmp_path / "u.tar", {"c.png": small})
    assert other.exists()
    source = open_source(tmp_path)
    whole = [] if end < 1024 else ["t.tar/a.png"]
    assert ids(source) == [*whole, "u.tar/c.png"]
    assert bool(source.skip_counts) == (end != 1024)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((124, b"\xff" * 12), "damaged|no tar"),
        ((124, b"zzzzzzzzzzz\0"), "damaged|no tar"),
        ((124, b"77777777777\0"), "goes beyond the end"),
        ((148, b"0000000\0"), "no tar file"),
    ],
)
def test_damaged_headers_are_typed(tmp_path: Path, change: tuple[int, bytes], words: str) -> None:
    path = make_tar(tmp_path / "t.tar", {"a.png": PNG}, tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    place, value = change
    data[place : place + len(value)] = value
    if place != 148:
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        open_source(path)


def test_sizes_beyond_octal_are_read() -> None:
    assert tar._number(b"\x80" + (2**33).to_bytes(11, "big")) == 2**33
    assert tar._number(b"00000000012\0") == 10
    with pytest.raises(tar.TarError):
        tar._number(b"\xff" * 12)


def test_a_huge_extra_header_is_refused(tmp_path: Path) -> None:
    header = bytearray(512)
    header[:8], header[156:157] = b"long-one", b"L"
    header[124:136] = b"%011o\0" % (2**21)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "t.tar").write_bytes(bytes(header) + b"\0" * 2**22)
    with pytest.raises(DataError, match="extra header"):
        open_source(tmp_path / "t.tar")


@given(st.binary(max_size=200), st.integers(0, 511))
@settings(max_examples=200, deadline=None)
def test_pax_records_never_crash(body: bytes, place: int) -> None:
    with contextlib.suppress(tar.TarError):
        tar._parse_pax(body)


def test_compressed_tars_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    with pytest.raises(DataError, match="is compressed"):
        open_source(tmp_path / "t.tar")


def test_a_tar_source_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    source = open_source(make_tar(tmp_path / "t.tar", {"a.png": PNG, "b.png": encoded(photo(1), "PNG")}))
    source.read(0)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.read(1).array, photo(1))
    assert copy.fingerprint == source.fingerprint


def test_a_tar_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "t.tar", {"a.png": PNG})
    source = open_source(path)
    os.truncate(path, 600)
    with pytest.raises(images.Truncated, match="shorter"):
        source.read(0)
    path.unlink()
    with pytest.raises(images.Vanished):
        pickle.loads(pickle.dumps(source)).read(0)


# Parts


def test_subsets_keep_ids_and_classes(tmp_path: Path) -> None:
    source = open_source(fill(tmp_path, "a/1.png", "a/2.png", "b/3.png", "c/4.png"))
    part = subset(source, [3, 0])
    assert ids(part) == ["c/4.png", "a/1.png"]
    assert labels(part) == [2, 0] and part.classes == ("a", "b", "c")
    assert part.fingerprint != source.fingerprint != subset(source, [0, 3]).fingerprint
    assert part.fingerprint == subset(source, np.array([3, 0])).fingerprint != subset(source, [0, 3]).fingerprint
    assert ids(pickle.loads(pickle.dumps(subset(part, [1])))) == ["a/1.png"]
    with pytest.raises(UsageError, match="from 0 to 3"):
        subset(source, [4])
    with pytest.raises(IndexError):
        part.id(-1)


def test_splits_take_the_same_share_of_each_class(tmp_path: Path) -> None:
    names = [
        f"{name}/{number}.png" for name, count in (("a", 40), ("b", 20), ("c", 2), ("d", 1)) for number in range(count)
    ]
    source = open_source(fill(tmp_path, *names))
    train, val = split_stratified(source, 0.1, seed=0)
    assert sorted([*train, *val]) == list(range(63))
    assert list(train) == sorted(train) and list(val) == sorted(val)
    counts = np.bincount([source.label(index) for index in val], minlength=4)
    assert list(counts) == [4, 2, 1, 0]
    again = split_stratified(source, 0.1, seed=0)
    assert np.array_equal(val, again[1])
    assert not np.array_equal(val, split_stratified(source, 0.1, seed=1)[1])
    with pytest.raises(UsageError, match="fraction"):
        split_stratified(source, 1.0, seed=0)


def test_splits_work_without_classes(tmp_path: Path) -> None:
    write_photos(tmp_path, 10)
    train, val = split_stratified(open_source(tmp_path), 0.3, seed=4)
    assert len(train) == 7 and len(val) == 3


def test_classes_of_one_picture_each_are_split_as_one_group(tmp_path: Path) -> None:
    for name in "abcdefghij":
        write_photos(tmp_path / name, 1)
    train, val = split_stratified(open_source(tmp_path), 0.3, seed=4)
    assert len(train) == 7 and len(val) == 3


def test_folders_of_train_and_val_are_parts_and_no_classes(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "Val/cat"):
        write_photos(tmp_path / folder, 2)
    whole = open_source(tmp_path)
    assert whole.parts == ("Val", "train") and whole.classes == () and whole.label(0) is None
    assert subset(whole, [0]).parts == whole.parts
    assert open_source(tmp_path / "train").classes == ("cat", "dog")
    write_photos(tmp_path / "bird", 2)
    mixed = open_source(tmp_path)
    assert mixed.parts == () and mixed.classes == ("Val", "bird", "train"), "one other folder: the names may be classes"
