"""Folder to store: right rows, nothing decoded twice, changes said, strangers refused, processes that agree."""

import importlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import torch
from PIL import Image

import opendino
from opendino.cli.embed import embed, in_words, run
from opendino.cli.search import search
from opendino.cli.try_ import try_
from opendino.data.folder import FolderSource
from opendino.data.images import Reading, read
from opendino.data.sources import open_source
from opendino.data.transform import Transform
from opendino.errors import DataError, OpendinoError, StoppedError, UsageError
from opendino.features.embed import Changes, Embedded
from opendino.features.encode import Encoder, hash_content, load_picture
from opendino.features.store import open_store
from opendino.models.family import build_model
from opendino.weights import write_model
from tests.features.child import draw_pictures, save_vit, start

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_vit(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path):
    draw_pictures(tmp_path / "pictures", 9)
    return tmp_path / "pictures"


@pytest.fixture
def decodes(monkeypatch):
    """Names of the pictures that were decoded."""
    seen = []
    reader = importlib.import_module("opendino.data.images.read")
    real = reader.read_stored

    def counted(data, name, reading):
        seen.append(name)
        return real(data, name, reading)

    monkeypatch.setattr(reader, "read_stored", counted)
    return seen


def test_each_row_is_that_of_its_picture_alone(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32", patches="fp16")
    store, net = open_store(tmp_path / "s"), opendino.load(model)
    transform = Transform(size=32, patch=8, mode="padded")
    source = open_source(pictures)
    assert store.ids() == [source.id(index) for index in range(9)]
    for index in range(9):
        image = source.read(index)
        prepared = transform.prepare(image)
        with torch.no_grad():
            features = net(prepared.pixels[None])
        row = store.row(source.id(index))
        np.testing.assert_allclose(row.cls, features.cls[0], rtol=1e-4, atol=1e-5)
        rows, columns = row.valid
        # 40 x 60 becomes 32 x 48 (whole patches); the mean leaves nothing out and takes nothing in.
        slow = features.patches[0, :rows, :columns].reshape(-1, net.dim).mean(0)
        np.testing.assert_allclose(row.mean, slow, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(row.patches, features.patches[0], rtol=2e-3, atol=2e-3)
        assert (row.height, row.width) == image.array.shape[:2] and row.label == source.id(index)[0]
        assert row.source_hash == hash_content(source, index)


def test_the_second_run_decodes_nothing(pictures, model, tmp_path, decodes):
    (pictures / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    first = embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert first.changes.added == 10 and first.rows == 9
    assert [(one.id, one.reason) for one in first.skipped] == [("a/cut.jpg", "truncated")]
    decodes.clear()
    again = embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert decodes == [] and again.read == 0 and again.changes.kept == 10
    assert again.skipped == first.skipped and again.version == first.version
    # A new time alone is no new picture.
    os.utime(pictures / "a" / "000.png", ns=(1, 1))
    assert embed(pictures, model, tmp_path / "s", dtype="fp32").read == 0 and decodes == []


def test_changed_removed_and_added_pictures(pictures, model, tmp_path, decodes):
    old = embed(pictures, model, tmp_path / "s", dtype="fp32")
    before = open_store(tmp_path / "s")
    kept = {one: before.row(one).cls for one in before.ids()}
    (pictures / "a" / "002.png").unlink()
    draw_pictures(tmp_path / "new", 2, seed=5)
    (tmp_path / "new" / "a" / "000.png").replace(pictures / "b" / "it's new.png")
    (tmp_path / "new" / "b" / "001.png").replace(pictures / "a" / "000.png")
    decodes.clear()
    made = embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert (made.changes.added, made.changes.changed, made.changes.removed, made.changes.kept) == (1, 1, 1, 7)
    assert set(decodes) == {"a/000.png", "b/it's new.png"} and made.rows == 9
    now = open_store(tmp_path / "s")
    assert sorted(now.ids()) == sorted({*kept, "b/it's new.png"} - {"a/002.png"}) and len(set(now.ids())) == 9
    assert not np.allclose(now.row("a/000.png").cls, kept["a/000.png"])
    assert np.array_equal(now.row("a/004.png").cls, kept["a/004.png"])
    assert np.isfinite(now.row("b/it's new.png").cls).all()
    # The version from before stays as it was.
    assert before.ids() == list(kept) == open_store(tmp_path / "s", old.version).ids()
    assert now.versions()[-1].rows == 9 and now.versions()[-1].number == made.version
    assert old.version in [one.number for one in now.versions()]


def test_another_model_transform_form_or_folder_is_refused(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    other = save_vit(tmp_path / "other", seed=1)
    for asked, options, words in (
        (other, {}, rf"model vit \(\w+, {model}\), asked is model vit \(\w+, {other}\)"),
        (model, {"size": 64}, "size 32, asked is size 64"),
        (model, {"crop": True}, "mode padded, asked is mode center"),
        (model, {"patches": "fp16"}, "patches none, asked is patches fp16"),
        (model, {"tile": True}, r"tiles None, asked is tiles \(512, 384\)"),
    ):
        with pytest.raises(UsageError, match=f"{words}; choose another --out"):
            embed(pictures, asked, tmp_path / "s", dtype="fp32", **options)
    with pytest.raises(UsageError, match="number type fp32"):
        embed(pictures, model, tmp_path / "s", dtype="bf16")
    draw_pictures(tmp_path / "elsewhere" / "x", 2)
    with pytest.raises(UsageError, match="none of which is in"):
        embed(tmp_path / "elsewhere", model, tmp_path / "s", dtype="fp32")
    assert len(open_store(tmp_path / "s")) == 9


def test_a_folder_of_other_files_is_no_place_for_a_store(pictures, model, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "lance" / "rows.lance").mkdir(parents=True)  # of another program
    (tmp_path / "file").write_text("mine")
    for name, words in (
        ("notes", r"is no feature store and holds other files \(a.txt\)"),
        ("lance", r"other files \(rows.lance\)"),
        (pictures.name, r"other files \(a and \d more\)"),
        ("file", "is a file, and a store is a folder"),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError, match=words):
            embed(pictures, model, tmp_path / name, dtype="fp32")
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    assert embed(pictures, model, tmp_path / "hidden", dtype="fp32").rows == 9


def test_a_mistyped_column_or_store_names_the_one_that_was_meant(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    store = open_store(tmp_path / "s")
    for ask, words in (
        (lambda: store.table(["id", "widht"]), "column widht: none of that name .* did you mean width?"),
        (lambda: store.table(["zzzz"]), "column zzzz: .* there are: id, picture, .*, cls, mean"),
        (lambda: store.table(where="widht > 3"), "Did you mean 'width'?"),
        (lambda: store.matrix("clss"), "did you mean cls?"),
        (lambda: store.matrix("width"), "there are: cls, mean"),
        (lambda: store.row("a/04.png"), r"did you mean a/004.png\?"),
        (lambda: open_store(tmp_path / "picture"), r"no such folder; did you mean .*pictures\?"),
    ):
        with pytest.raises((UsageError, DataError), match=words):
            ask()


def test_a_smaller_type_says_its_drift_and_an_existing_store_keeps_its_type(pictures, model, tmp_path):
    made = embed(pictures, model, tmp_path / "s", dtype="bf16")
    assert made.info.drift is not None and 0.99 < made.info.drift.cls < 1 and made.info.drift.pictures == 9
    exact = embed(pictures, model, tmp_path / "exact", dtype="fp32")
    assert exact.info.drift is None
    rough, fine = open_store(tmp_path / "s").matrix(), open_store(tmp_path / "exact").matrix()
    cosine = (rough * fine).sum(1) / np.linalg.norm(rough, axis=1) / np.linalg.norm(fine, axis=1)
    # Batches differ from single pictures by rounding, no more.
    assert abs(cosine.min() - made.info.drift.cls) < 2e-4
    assert embed(pictures, model, tmp_path / "s").info.dtype == "bf16"


def test_auto_takes_a_smaller_type_only_where_it_pays_and_drifts_little(pictures, model, tmp_path, monkeypatch):
    def choose(out, **patches):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
            for name, value in patches.items():
                patch.setattr(f"opendino.features.embed.{name}", value)
            return embed(pictures, model, tmp_path / out, device="cpu").info

    assert choose("fast", is_faster=lambda *_: True).dtype == "bf16"
    slow = choose("slow", is_faster=lambda *_: False)
    assert slow.dtype == "fp32" and slow.drift is None
    far = choose("far", is_faster=lambda *_: True, LEAST_COSINE=1.1)
    assert far.dtype == "fp32" and far.drift is not None and in_words_of(far).count("drifted too far") == 1


def in_words_of(info):
    return " ".join(in_words(Embedded(Changes(0, 0, 0, 0), 0, 0, (), 1, info)))


@pytest.mark.parametrize("kind", ["int8", "pca"])
def test_smaller_patches_say_their_loss_and_it_is_true(pictures, model, tmp_path, kind):
    made = embed(pictures, model, tmp_path / "s", dtype="fp32", patches=kind)
    embed(pictures, model, tmp_path / "exact", dtype="fp32", patches="fp16")
    store, exact = open_store(tmp_path / "s"), open_store(tmp_path / "exact")
    cosines = [
        torch.nn.functional.cosine_similarity(store.row(one).patches, exact.row(one).patches, dim=-1).flatten()
        for one in store.ids()[1::2]  # PCA is fitted on the others
    ]
    assert made.info.loss is not None
    assert abs(float(torch.cat(cosines).mean()) - made.info.loss.cosine_mean) < 1e-3
    assert made.info.loss.cosine_mean > 0.95 and 0 <= made.info.loss.neighbour_kept <= 1


def test_rows_open_in_arrow_pandas_and_parquet(pictures, model, tmp_path):
    import lance
    import pyarrow.parquet as parquet

    embed(pictures, model, tmp_path / "s", dtype="fp32", patches="int8")
    table = lance.dataset(str(tmp_path / "s" / "rows.lance")).to_table()
    told = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert told["opendino.model"] == "vit" and told["opendino.licence"] == "test"
    assert json.loads(told["opendino.card"])["source"] == "x" and json.loads(told["opendino.transform"])["do_normalize"]
    assert set(table["model_hash"].to_pylist()) == {told["opendino.model_hash"]}
    store = open_store(tmp_path / "s")
    parquet.write_table(store.table(), tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet").equals(store.table())
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: to_pandas not tried")
    frame = store.table(["id", "cls"]).to_pandas()
    assert isinstance(frame, pandas.DataFrame) and np.array_equal(np.stack(frame["cls"]), store.matrix())
    wide = store.table(["id"], where="width > 55").to_pandas()["id"]
    assert list(wide) == [one for one in store.ids() if store.row(one).width > 55]


def test_what_is_no_store_is_said(tmp_path, pictures, model):
    with pytest.raises(DataError, match="no feature store"):
        open_store(tmp_path)
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    with pytest.raises(UsageError, match="version 999"):
        open_store(tmp_path / "s", 999)
    with pytest.raises(UsageError, match="not in"):
        open_store(tmp_path / "s").row("nothing")
    info = tmp_path / "s" / "store.json"
    told = json.loads(info.read_text())
    # A field that came later may be missing, one without which vectors have no meaning may not.
    info.write_text(json.dumps({key: value for key, value in told.items() if key not in ("agreement", "reading")}))
    assert len(open_store(tmp_path / "s")) == 9
    info.write_text(json.dumps({key: value for key, value in told.items() if key != "model_hash"}))
    with pytest.raises(DataError, match=r"is damaged.*model_hash"):
        open_store(tmp_path / "s")
    info.write_text(json.dumps({**told, "format": 2}))
    with pytest.raises(DataError, match="newer"):
        open_store(tmp_path / "s")


def test_only_broken_pictures_is_an_error(tmp_path, model):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    for dtype, words in (
        ("bf16", "none of 1 pictures"),
        ("fp32", r"no picture could be embedded \(a.jpg: jpeg with a header that is cut"),
    ):
        with pytest.raises(DataError, match=words):
            embed(tmp_path / "p", model, tmp_path / dtype, dtype=dtype)


def test_bands_that_are_not_there_leave_no_store_that_refuses_the_right_ones(tmp_path, model):
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "p").mkdir()
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 256, (40, 40, 5), np.uint8)
        tifffile.imwrite(tmp_path / f"p/{number}.tif", values, photometric="minisblack", planarconfig="contig")
    for bands, words in (((7,), "has 5 bands, band 7 was asked for.*ask for 0 to 4"), (None, "--bands 0 1 2")):
        with pytest.raises(DataError, match=words):
            embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", reading=Reading(bands=bands))
    assert embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", reading=Reading(bands=(4, 0, 1))).rows == 2


@pytest.mark.parametrize("crop", [False, True])
def test_a_mark_at_the_border_counts_unless_a_crop_is_asked(tmp_path, model, crop):
    """cases.md C40."""
    (tmp_path / "p").mkdir()
    for name, mark in (("plain", False), ("marked", True)):
        array = np.full((100, 100, 3), 128, np.uint8)
        if mark:
            array[:2] = (255, 0, 0)
        Image.fromarray(array).save(tmp_path / "p" / f"{name}.png")
    embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", crop=crop)
    marked, plain = open_store(tmp_path / "s").matrix()
    assert (np.abs(marked - plain).max() < 1e-5) == crop
    assert open_store(tmp_path / "s").info.transform.mode == ("center" if crop else "padded")


def test_neighbours_of_other_sizes_change_nothing(tmp_path, model):
    """cases.md C43: one picture alone and among seventeen of other sizes."""
    draw_pictures(tmp_path / "many", 17)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "000.png").write_bytes((tmp_path / "many" / "a" / "000.png").read_bytes())
    for name in ("many", "one"):
        embed(tmp_path / name, model, tmp_path / f"{name}.store", dtype="fp32")
    among = open_store(tmp_path / "many.store").row("a/000.png").cls
    alone = open_store(tmp_path / "one.store").row("000.png").cls
    np.testing.assert_allclose(among, alone, rtol=1e-5, atol=1e-6)


def test_the_command_prints_what_a_person_needs_and_json_for_machines(pictures, model, tmp_path, capsys):
    (pictures / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    line = [str(pictures), "--model", str(model), "--out", str(tmp_path / "s"), "--dtype", "bf16", "--patches", "int8"]
    assert run(line) == 0
    said = capsys.readouterr().out
    for words in (
        "licence: test",
        "shape kept",
        "0.485",
        "worst cosine to fp32",
        "nearest patch",
        "a/cut.jpg (truncated)",
    ):
        assert words in said
    assert "9 rows" in said and said.splitlines()[-1].startswith("next: opendino search")
    assert run([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 9 and told["read"] == 0 and told["skipped"] == [{"id": "a/cut.jpg", "reason": "truncated"}]


def test_a_tar_gives_the_rows_of_its_folder_and_only_a_changed_member_is_read_again(pictures, model, tmp_path, decodes):
    def pack():
        with tarfile.open(tmp_path / "p.tar", "w") as tar:
            for file in sorted(pictures.rglob("*.png")):
                tar.add(file, file.relative_to(pictures))

    pack()
    embed(pictures, model, tmp_path / "folder", dtype="fp32")
    embed(tmp_path / "p.tar", model, tmp_path / "s", dtype="fp32")
    columns = ["id", "picture", "label", "source_hash", "width", "height", "cls", "mean"]
    assert open_store(tmp_path / "s").table(columns).equals(open_store(tmp_path / "folder").table(columns))
    (pictures / "a" / "000.png").write_bytes((pictures / "a" / "004.png").read_bytes())
    pack()
    decodes.clear()
    made = embed(tmp_path / "p.tar", model, tmp_path / "s", dtype="fp32")
    assert decodes == ["a/000.png"] and made.changes == Changes(8, 0, 1, 0)
    answer = search(tmp_path / "s", id="a/000.png", k=1, out=tmp_path / "sheet.png")
    assert answer.found[0].id == "a/004.png" and answer.sheet is not None


def test_a_skip_list_is_honoured_counted_and_takes_rows_out(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    (pictures / "opendino-skip.txt").write_text("a/002.png\tduplicate\tof a/000.png\nb/001.png\tblack\n")
    made = embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert made.changes.removed == 2 and made.rows == 7
    left_out = {one.id: one.reason for one in made.skipped}
    assert left_out["a/002.png"] == "skip list: duplicate" and left_out["b/001.png"] == "skip list: black"
    assert not {"a/002.png", "b/001.png"} & set(open_store(tmp_path / "s").ids())
    tried = try_(pictures, model, tmp_path / "t")
    assert tried.pictures == 7 and "skip list: duplicate" in tried.page.read_text()


def test_without_a_network_a_local_model_embeds_and_a_name_that_is_not_there_is_one_line(
    pictures, model, tmp_path, monkeypatch
):
    """cases.md C44."""
    asked = []

    def refused(*arguments, **_):
        asked.append(arguments)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    assert embed(pictures, model, tmp_path / "s", dtype="fp32").rows == 9 and asked == []
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    begun = time.monotonic()
    with pytest.raises(OpendinoError) as missing:
        embed(pictures, "vitb16", tmp_path / "t", dtype="fp32")
    assert time.monotonic() - begun < 30 and "\n" not in str(missing.value) and "vitb16" in str(missing.value)
    assert not (tmp_path / "t").exists()


def test_a_folder_that_was_moved_is_the_same_folder(pictures, model, tmp_path, decodes):
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    pictures.rename(tmp_path / "moved")
    decodes.clear()
    assert embed(tmp_path / "moved", model, tmp_path / "s", dtype="fp32").read == 0 and decodes == []
    assert open_store(tmp_path / "s").info.source == str(tmp_path / "moved")


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(pictures, model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("OPENDINO_FAULT", "store.append:1=ENOSPC")
        with pytest.raises(OpendinoError, match="No space left on device"):
            embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert embed(pictures, model, tmp_path / "s", dtype="fp32").rows == 9


def test_convolutional_networks_embed_too(tmp_path, model):
    net = build_model("conv_mini")
    transform = Transform(size=2 * net.patch, patch=net.patch)
    write_model(tmp_path / "m", net, transform, {"name": "conv", "licence": "x", "source": "x"})
    (tmp_path / "p").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 131, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p" / "a.png")
    embed(tmp_path / "p", tmp_path / "m", tmp_path / "s", dtype="fp32", patches="fp16")
    row = open_store(tmp_path / "s").row("a.png")
    scaled = round(131 * transform.size / 50)
    assert row.patches.shape == (2, -(-scaled // net.patch), net.dim) and np.isfinite(row.mean).all()


def test_joining_the_pieces_of_many_writes_changes_no_row(pictures, model, tmp_path, monkeypatch):
    monkeypatch.setattr("opendino.features.embed.CHUNK", 2)
    monkeypatch.setattr("opendino.features.writer.COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("opendino.features.writer.COMMIT_SHARE", 0.0)
    embed(pictures, model, tmp_path / "pieces", dtype="fp32")
    monkeypatch.setattr("opendino.features.writer.COMPACT_FRAGMENTS", 2)
    embed(pictures, model, tmp_path / "joined", dtype="fp32")
    pieces, joined = open_store(tmp_path / "pieces"), open_store(tmp_path / "joined")
    assert joined.version > pieces.version and joined.table().equals(pieces.table())


def test_ctrl_c_keeps_what_was_written_and_the_same_call_goes_on(pictures, model, tmp_path, monkeypatch):
    draw_pictures(pictures, 12)
    monkeypatch.setattr("opendino.features.embed.CHUNK", 4)
    monkeypatch.setattr("opendino.features.writer.COMMIT_SECONDS", 0.0)
    real, turns = Encoder.encode, []

    def interrupted(self, reading):
        turns.append(reading)
        if len(turns) == 3:
            raise KeyboardInterrupt
        return real(self, reading)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", interrupted)
        with pytest.raises(StoppedError, match="goes on") as stopped:
            embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert stopped.value.exit_code == 75 and len(open_store(tmp_path / "s")) == 8
    assert embed(pictures, model, tmp_path / "s", dtype="fp32").read == 4


def test_two_processes_give_the_rows_of_one(tmp_path, model):
    """Processes as torchrun starts them, from a server that has torch imported."""
    draw_pictures(tmp_path / "p", 26)
    (tmp_path / "p" / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    children = [
        start(tmp_path / "p", model, tmp_path / "two", environment={**where, "RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    one = start(tmp_path / "p", model, tmp_path / "one")
    for child in (*children, one):
        child.join(120)
        assert child.exitcode == 0
    apart, together = open_store(tmp_path / "two"), open_store(tmp_path / "one")
    assert len(apart) == 26 and apart.table().equals(together.table()) and apart.skipped() == together.skipped()


@pytest.mark.slow
def test_the_command_under_torchrun_gives_the_rows_of_one(tmp_path, model):
    draw_pictures(tmp_path / "p", 150)  # three chunks
    embed(tmp_path / "p", model, tmp_path / "one", dtype="fp32")
    line = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "opendino"),
        *("embed", str(tmp_path / "p"), "--model", str(model), "--out", str(tmp_path / "two"), "--dtype", "fp32"),
    ]
    done = subprocess.run([*line, "--json"], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["rows"] == 150
    assert open_store(tmp_path / "two").table().equals(open_store(tmp_path / "one").table())


def large_jpegs(folder):
    """Photograph-like JPEGs many times larger than the model sees, one of them turned by EXIF, one lying across."""
    folder.mkdir()
    y, x = np.mgrid[0:402, 0:603] / 40
    pixels = np.stack([127 + 100 * np.sin(y + k * x) for k in (0.5, 1, 2)], 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "a.jpg", quality=95)
    Image.fromarray(pixels).save(folder / "turned.jpg", quality=95, exif=exif)
    Image.fromarray(pixels[:200, :130]).save(folder / "small.jpg", quality=95)
    return folder


def test_large_jpegs_decode_reduced_by_every_way_to_a_row(model, tmp_path, monkeypatch):
    folder = large_jpegs(tmp_path / "p")
    sizes = []
    real = Transform.prepare
    monkeypatch.setattr(
        Transform, "prepare", lambda self, image: sizes.append(image.array.shape[:2]) or real(self, image)
    )
    embed(folder, model, tmp_path / "s", dtype="fp32")
    # 402 / 4 = 100.5 rounded up is the smallest that is twice the 32 px of the model, 200 x 130 stays at half. The
    # decoding threads finish in any order.
    assert sorted(sizes) == [(100, 65), (101, 151), (151, 101)]
    store = open_store(tmp_path / "s")
    turned = store.row("turned.jpg")
    assert (turned.height, turned.width) == (603, 402) and turned.valid == (6, 4)
    assert search(store, image=folder / "a.jpg", k=1).found[0].cosine > 0.999999
    # Without the fast decoder, and from a source that was opened with another hint.
    monkeypatch.setattr("opendino.data.images.jpeg.fast_decoder", lambda: None)
    embed(folder, model, tmp_path / "pillow", dtype="fp32")
    assert open_store(tmp_path / "pillow").table().equals(store.table())
    hinted = open_source(folder, at_least=1)
    loaded = load_picture(hinted, 0, store.info.transform, None)
    assert torch.equal(
        loaded.prepared.pixels, load_picture(open_source(folder), 0, store.info.transform, None).prepared.pixels
    )
    # What it costs: sides that are rounded up to whole pixels move the far end by less than a pixel of the model.
    whole = real(store.info.transform, read(folder / "a.jpg")).pixels
    pair = torch.stack([whole.flatten(), loaded.prepared.pixels.flatten()])
    assert 0.998 < float(torch.corrcoef(pair)[0, 1]) < 1


def test_a_picture_file_is_read_once(pictures, model, tmp_path, monkeypatch):
    opened = []
    real = FolderSource.load
    monkeypatch.setattr(FolderSource, "load", lambda self, index: opened.append(index) or real(self, index))
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    assert sorted(opened) == list(range(9))


def test_another_way_of_reading_makes_another_store(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    (pictures / "opendino-reading.json").write_text('{"value_range": [0, 100]}')
    with pytest.raises(UsageError, match=r"value_range None, asked is value_range \[0.0, 100.0\]"):
        embed(pictures, model, tmp_path / "s", dtype="fp32")
    embed(pictures, model, tmp_path / "bright", dtype="fp32")
    bright = open_store(tmp_path / "bright")
    assert bright.info.reading.value_range == (0, 100)
    # A question from outside is read in the same way.
    found = search(bright, image=pictures / "a" / "004.png", k=1).found[0]
    assert found.id == "a/004.png" and found.cosine > 0.999999
