"""The feature store under faults (reliability.md F71-F78): what was written is what is read, or the damage is named."""

import itertools
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import opendino
from opendino.cli.embed import embed, in_words
from opendino.cli.search import search
from opendino.errors import DataError, OpendinoError, UsageError
from opendino.features.seal import manifest_of
from opendino.features.search import find_neighbours
from opendino.features.store import open_store
from opendino.files import exclusive
from tests.features.child import draw_pictures, save_vit

lance = pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return opendino.load(save_vit(tmp_path_factory.mktemp("model")))


@pytest.fixture
def pictures(tmp_path):
    draw_pictures(tmp_path / "pictures", 9)
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Chunks of four pictures, each written at once."""
    monkeypatch.setattr("opendino.features.embed.CHUNK", 4)
    monkeypatch.setattr("opendino.features.writer.COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("opendino.features.writer.COMMIT_SHARE", 0.0)


def update(pictures, net, path, **options):
    return embed(pictures, net, path, dtype="fp32", workers=1, **options)


def content(path):
    store = open_store(path)
    return store.table().sort_by("id").to_pydict(), store.skipped()


def files_of(path):
    return {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def files_of_newest(path, kind):
    """Files of the newest version: of rows, lists of deleted rows, or its list of pieces."""
    if kind == "manifest":
        return [manifest_of(path)]
    pieces = [one.metadata for one in lance.dataset(str(path / "rows.lance")).get_fragments()]
    if kind == "data":
        return [path / "rows.lance" / "data" / one.path for piece in pieces for one in piece.files]
    return [path / "rows.lance" / one.deletion_file.path(one.id) for one in pieces if one.deletion_file]


def flip(file, generator):
    data = bytearray(file.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)


def test_f71_four_writers_lose_and_double_nothing(pictures, net, tmp_path):
    """One writes at a time: the others are refused in one line that names the holder, and try again."""
    draw_pictures(pictures, 32)
    refused = []

    def write():
        for _ in range(1000):
            try:
                update(pictures, net, tmp_path / "s")
                return
            except UsageError as error:
                refused.append(str(error))

    writers = [threading.Thread(target=write) for _ in range(4)]
    with exclusive(tmp_path / "hold.lock"):  # a lock of another store is no obstacle
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    # Between taking the lock and signing it there is a moment without a name.
    assert refused and all("in use by process" in one or "in use by another process" in one for one in refused)
    update(pictures, net, tmp_path / "alone")
    assert content(tmp_path / "s") == content(tmp_path / "alone")
    numbers = [one.number for one in open_store(tmp_path / "s").versions()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_f72_readers_see_their_version_while_it_is_written_on(pictures, net, tmp_path, monkeypatch):
    monkeypatch.setattr("opendino.features.writer.COMPACT_FRAGMENTS", 1)
    update(pictures, net, tmp_path / "s")
    ended, seen, failures = threading.Event(), [0, 0], []

    def read(place):
        try:
            store = open_store(tmp_path / "s")
            expected = store.table()
            while not ended.is_set() or not seen[place]:
                assert store.table().equals(expected)
                newest = open_store(tmp_path / "s")
                assert len(newest.ids()) == len(set(newest.ids())) == len(newest.matrix())
                seen[place] += 1
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(place,)) for place in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(5):
        draw_pictures(pictures, 5 + 3 * turn, seed=turn + 1)
        update(pictures, net, tmp_path / "s")
    ended.set()
    for reader in readers:
        reader.join()
    assert failures == [] and min(seen) >= 1


@pytest.mark.parametrize("kind", ["data", "deletions", "manifest"])
def test_f73_flipped_bits_are_found_the_rest_is_served_and_made_whole_again(pictures, net, tmp_path, kind):
    update(pictures, net, tmp_path / "whole")
    whole, _ = content(tmp_path / "whole")
    generator, path = random.Random(kind), tmp_path / "s"
    gone = pictures / "b" / "001.png"
    data = gone.read_bytes()
    update(pictures, net, path)
    gone.unlink()
    update(pictures, net, path)  # makes a list of deleted rows
    gone.write_bytes(data)
    update(pictures, net, path)
    for _ in range(1 if kind == "deletions" else 8):
        assert open_store(path, verify=True).damaged == ()
        victim = generator.choice(files_of_newest(path, kind))
        flip(victim, generator)
        if kind == "manifest":
            with pytest.raises(DataError, match=r"manifest: differs from what was written; .*--verify"):
                open_store(path)
        else:
            served = open_store(path, verify=True)
            (damage,) = served.damaged
            assert damage.file.endswith(victim.name) and damage.reason == "differs from what was written"
            lost = damage.rows[1] - damage.rows[0] + 1
            assert len(served) == len(served.ids()) == len(whole["id"]) - lost
            for place, name in enumerate(served.ids()):
                assert np.array_equal(served.matrix()[place], whole["cls"][whole["id"].index(name)])
            assert len(find_neighbours(served, served.matrix()[0], 99)) == len(served)
        made = update(pictures, net, path, verify=True)
        assert len(made.mended) == 1 and "made anew: " + made.mended[0] in " ".join(in_words(made))
        again, _ = content(path)
        assert again["id"] == whole["id"] and again["source_hash"] == whole["source_hash"]
        # A row that is made anew may stand in a batch with other neighbours.
        np.testing.assert_allclose(again["cls"], whole["cls"], rtol=1e-4, atol=1e-5)
        whole = again


def test_f73_joining_pieces_does_not_hide_damage(pictures, net, tmp_path, monkeypatch):
    path = tmp_path / "s"
    update(pictures, net, path)
    flip(next((path / "rows.lance" / "data").iterdir()), random.Random(0))
    monkeypatch.setattr("opendino.features.writer.COMPACT_FRAGMENTS", 1)
    with pytest.raises(DataError, match=r"rows are lost.*--verify"):
        update(pictures, net, path)
    assert update(pictures, net, path, verify=True).mended and open_store(path, verify=True).damaged == ()


def test_f73_a_damaged_list_of_hashes_or_basis_is_said(pictures, net, tmp_path):
    path = tmp_path / "s"
    update(pictures, net, path, patches="pca")
    basis, sums = path / "pca.safetensors", path / "sums.json"
    whole = basis.read_bytes()
    basis.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="cannot be decoded"):
        open_store(path).row("a/000.png")
    basis.write_bytes(whole)
    sums.write_text(sums.read_text().replace('": [\n      ', '": [\n      1', 1))
    with pytest.raises(DataError, match=r"sums.json: differs"):
        open_store(path)
    sums.unlink()
    update(pictures, net, path, patches="pca")
    assert sums.exists() and open_store(path, verify=True).damaged == ()


POINTS = ("file.write", "store.append", "store.appended", "store.delete", "store.compact")


@pytest.mark.parametrize("point", POINTS)
def test_f74_a_full_disk_at_any_write_leaves_the_version_before(pictures, net, tmp_path, monkeypatch, point):
    monkeypatch.setattr("opendino.features.writer.COMPACT_FRAGMENTS", 1)
    old = draw_pictures(tmp_path / "more", 3, seed=9)
    reached = 0
    for nth in itertools.count(1):
        folder, path = tmp_path / f"p{nth}", tmp_path / f"s{nth}"
        folder.mkdir()
        for file in pictures.rglob("*.png"):
            (folder / file.name).write_bytes(file.read_bytes())
        update(folder, net, path)
        before = open_store(path)
        expected = before.table()
        (folder / "001.png").unlink()
        (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
        (folder / "002.png").write_bytes(old[1].read_bytes())
        monkeypatch.setattr("opendino.files._passages", type(opendino.files._passages)())
        with monkeypatch.context() as patch:
            patch.setenv("OPENDINO_FAULT", f"{point}:{nth}=ENOSPC")
            try:
                update(folder, net, path, only_newest=point == "store.compact" and nth == 2)
            except OpendinoError as error:
                assert "(No space left on device); make room" in str(error)
                reached += 1
            else:
                break
        assert open_store(path, before.version).table().equals(expected)
        between = open_store(path).ids()
        assert len(between) == len(set(between))
        update(folder, net, path)
        update(folder, net, tmp_path / f"fresh{nth}")
        (made, made_skipped), (fresh, fresh_skipped) = content(path), content(tmp_path / f"fresh{nth}")
        assert made["id"] == fresh["id"] and made["source_hash"] == fresh["source_hash"]
        assert made_skipped == fresh_skipped
        np.testing.assert_allclose(made["cls"], fresh["cls"], rtol=1e-4, atol=1e-5)
    assert reached >= 1


def test_f76_a_store_that_may_not_be_written_is_searched_and_gets_no_file(pictures, net, tmp_path):
    path = tmp_path / "s"
    update(pictures, net, path)
    before = files_of(path)
    for folder in (path, *(one for one in path.rglob("*") if one.is_dir())):
        folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:  # for root nothing is read-only
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (path / "x").write_text("")
        store = open_store(path, verify=True)
        assert search(store, id="a/000.png", k=3).found and store.damaged == ()
        with pytest.raises(OpendinoError, match=r"cannot be written \(Permission denied\)"):
            update(pictures, net, path)
    finally:
        os.seteuid(user)
        for folder in (path, *(one for one in path.rglob("*") if one.is_dir())):
            folder.chmod(0o755)
    assert files_of(path) == before


def test_f77_what_is_deleted_is_gone_everywhere(pictures, net, tmp_path):
    path = tmp_path / "s"
    old = update(pictures, net, path)
    row = open_store(path).row("a/004.png")
    secrets = (b"a/004.png", row.cls.tobytes(), row.source_hash.encode())
    assert any(secret in data for secret in secrets for data in files_of(path).values())
    (pictures / "a" / "004.png").unlink()
    update(pictures, net, path)
    store = open_store(path)
    assert "a/004.png" not in store.ids()
    assert "a/004.png" not in [one.id for one in find_neighbours(store, row.cls, 99)]
    assert "a/004.png" in open_store(path, old.version).ids(), "an earlier version changed"
    made = update(pictures, net, path, only_newest=True)
    now = open_store(path)
    assert made.read == 0 and made.version == now.version and len(now) == 8 and len(now.versions()) == 1
    for name, data in files_of(path).items():
        assert not any(secret in data for secret in secrets), f"still in {name}"
    with pytest.raises(UsageError, match="not in"):
        open_store(path, old.version)
    with pytest.raises(DataError, match="rows cannot be read"):
        store.ids()  # opened at a version that is gone
    assert open_store(path, verify=True).damaged == ()


@pytest.mark.parametrize("steps", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_f78_any_order_of_changes_gives_what_a_dictionary_says(net, tmp_path, monkeypatch, steps):
    """Pictures come, go, change, break, are touched and renamed; runs fail, compact, prune. Then store = dictionary."""
    stock = [file.read_bytes() for file in draw_pictures(tmp_path / "stock", 12)]
    embed(tmp_path / "stock", net, tmp_path / "stock.store", dtype="fp32")
    truth = open_store(tmp_path / "stock.store")
    vector = {stock.index((tmp_path / "stock" / name).read_bytes()): truth.row(name).cls for name in truth.ids()}
    draw, folder, path = random.Random(steps), tmp_path / "p", tmp_path / "s"
    folder.mkdir()
    now: dict[str, int] = {}
    broken: set[str] = set()

    def place(name, index):
        (folder / name).write_bytes(stock[index])
        now[name] = index
        broken.discard(name)

    place("first.png", 0)
    versions: dict[int, dict[str, int]] = {}
    for step in range(steps):
        kind = draw.choice(("add", "add", "change", "remove", "break", "touch", "rename", "fail", "run", "run"))
        name = draw.choice(sorted(now)) if now else "first.png"
        if kind == "add" or not now:
            place(f"{draw.randrange(30)}.png", draw.randrange(12))
        elif kind == "change":
            place(name, draw.randrange(12))
        elif kind == "remove" and len(now) > 1:
            (folder / name).unlink()
            del now[name]
        elif kind == "break" and len(now) > 1:
            (folder / name).write_bytes(stock[now.pop(name)][:60])
            broken.add(name)
        elif kind == "touch":
            os.utime(folder / name, ns=(step, step))
        elif kind == "rename":
            new = f"renamed {draw.randrange(9)}.png"
            (folder / name).rename(folder / new)
            now[new] = now.pop(name)
            broken.discard(new)
        elif kind == "fail":
            monkeypatch.setattr("opendino.files._passages", type(opendino.files._passages)())
            with monkeypatch.context() as patch:
                patch.setenv("OPENDINO_FAULT", f"{draw.choice(POINTS)}:{draw.randrange(1, 3)}=ENOSPC")
                try:
                    update(folder, net, path)
                except OpendinoError as error:
                    assert "No space left" in str(error)
        else:
            if draw.random() < 0.3:
                monkeypatch.setattr("opendino.features.writer.COMPACT_FRAGMENTS", draw.choice((1, 64)))
            prune = draw.random() < 0.1
            made = update(folder, net, path, only_newest=prune, verify=draw.random() < 0.2)
            versions = {made.version: dict(now)} if prune else {**versions, made.version: dict(now)}
            for number in {made.version, draw.choice(sorted(versions))}:
                store = open_store(path, number)
                expected = versions[number]
                assert sorted(store.ids()) == sorted(expected)
                for id, found in zip(store.ids(), store.matrix(), strict=True):
                    np.testing.assert_allclose(found, vector[expected[id]], rtol=1e-4, atol=1e-5)
            assert {one.id for one in store.skipped()} == broken
    assert versions


FILL = """
import subprocess, sys
from pathlib import Path
import opendino
from opendino.errors import OpendinoError
from opendino.features import embed as chunks, writer
from opendino.features.store import open_store

pictures, model, disk, fresh = map(Path, sys.argv[1:])
chunks.CHUNK, writer.COMMIT_SECONDS, writer.COMMIT_SHARE, writer.COMPACT_FRAGMENTS = 4, 0.0, 0.0, 4
net, full = opendino.load(model), 0
opendino.embed(pictures, net, fresh, dtype="fp32")
for size in range(8, 400, 28):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        opendino.embed(pictures, net, disk / "s", dtype="fp32")
    except OpendinoError as error:
        full += 1
        assert "cannot be written" in str(error) and "No space left" in str(error), error
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    opendino.embed(pictures, net, disk / "s", dtype="fp32")
    assert open_store(disk / "s").table().equals(open_store(fresh).table()), size
    assert open_store(disk / "s", verify=True).damaged == ()
    subprocess.run(["umount", disk], check=True)
print("full", full)
"""


@pytest.mark.slow
def test_f74_a_disk_that_fills_up_inside_lance(pictures, tmp_path):
    """A real small disk, full at many different writes of ours and of Lance."""
    model = save_vit(tmp_path / "model")
    (tmp_path / "disk").mkdir()
    line = ["unshare", "-rm", sys.executable, "-c", FILL]
    line += [str(one) for one in (pictures, model, tmp_path / "disk", tmp_path / "fresh")]
    done = subprocess.run(line, capture_output=True, text=True)
    if "unshare failed" in done.stderr:
        pytest.skip("no namespaces here: a full disk was not made")
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= 3, "the disk was never full: the test tried nothing"
