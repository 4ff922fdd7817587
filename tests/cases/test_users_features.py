"""What users asked for about features (users.md) and public complaints (cases.md): one test a row."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import opendino
from opendino.cli.embed import embed, run
from opendino.data.sources import decode_id
from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.features.search import find_neighbours
from opendino.features.store import open_store
from opendino.models.family import build_model
from opendino.weights import write_model
from tests.features.child import draw_pictures, save_vit

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_vit(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path):
    draw_pictures(tmp_path / "pictures", 6)
    return tmp_path / "pictures"


def test_l2_picture_in_vector_out_in_three_lines_and_the_transform_is_printed(pictures, model, tmp_path, capsys):
    opendino.embed(pictures, model, tmp_path / "s")
    store = opendino.open_store(tmp_path / "s")
    assert store.matrix("cls").shape == (6, store.info.dim)
    assert run([str(pictures), "--model", str(model), "--out", str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    assert (
        "short side 32 px, shape kept, padded to patches of 8 px; bilinear; mean and std 0.485, 0.456, 0.406, 0.229"
        in said
    )


def test_l3_vectors_have_names_and_no_untrained_layer_is_among_them(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32", patches="fp16")
    row = open_store(tmp_path / "s").row("a/000.png")
    net = opendino.load(model)
    assert row.cls.shape == row.mean.shape == (net.dim,)
    assert row.patches is not None and row.patches.ndim == 3 and row.patches.shape[2] == net.dim
    columns = open_store(tmp_path / "s").table().column_names
    assert {"cls", "mean", "patches"} <= set(columns) and not any("pool" in name for name in columns)


def test_l4_the_store_records_that_the_whole_picture_was_seen(pictures, model, tmp_path):
    assert embed(pictures, model, tmp_path / "s").info.transform.mode == "padded"
    assert open_store(tmp_path / "s").info.transform.mode == "padded"


def test_f3_cosine_exact_and_no_row_that_does_not_exist(pictures, model, tmp_path):
    embed(pictures, model, tmp_path / "s", dtype="fp32")
    store = open_store(tmp_path / "s")
    found = find_neighbours(store, 7 * store.matrix()[2], 100)
    assert found[0].id == store.ids()[2] and abs(found[0].cosine - 1) < 1e-5
    assert sorted(one.id for one in found) == store.ids()


def test_f4_same_picture_other_batch_same_vector(pictures, model, tmp_path):
    """users.md F4, cases.md C43: cosine of at least 0.9999, in bf16 too, alone and among others."""
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "000.png").write_bytes((pictures / "a" / "000.png").read_bytes())
    for dtype in ("fp32", "bf16"):
        embed(pictures, model, tmp_path / f"{dtype}-all", dtype=dtype)
        embed(alone, model, tmp_path / f"{dtype}-one", dtype=dtype)
        one = open_store(tmp_path / f"{dtype}-one").row("000.png").cls
        among = open_store(tmp_path / f"{dtype}-all").row("a/000.png").cls
        assert one @ among / np.linalg.norm(one) / np.linalg.norm(among) >= 0.9999


def test_h1_sides_that_are_no_multiple_of_the_patch_are_padded_and_it_is_said(tmp_path, model, capsys):
    """users.md H1 and "Input height 320 is not a multiple of 14"; cases.md C19."""
    (tmp_path / "p").mkdir()
    for height, width in ((341, 255), (17, 900), (16, 16), (15, 15)):
        Image.new("RGB", (width, height), "red").save(tmp_path / "p" / f"{height}x{width}.png")
    line = [str(tmp_path / "p"), "--model", str(model), "--out", str(tmp_path / "s"), "--size", "35"]
    assert run([*line, "--patches", "fp16", "--dtype", "fp32"]) == 0
    said = capsys.readouterr().out
    assert "--size 35 rounded to 32: whole patches of 8 px" in said and "padded to patches of 8 px" in said
    store = open_store(tmp_path / "s")
    grids = {name: tuple(store.row(name).patches.shape[:2]) for name in store.ids()}
    # 341 x 255: 42.8 x 32 px; 17 x 900: 32 x 1694.1 px; the last patch in part padding.
    assert grids == {"341x255.png": (6, 4), "17x900.png": (4, 212), "16x16.png": (4, 4), "15x15.png": (4, 4)}
    assert store.row("341x255.png").valid == (5, 4)


def test_too_many_patches_are_told_before_memory_is(tmp_path, model):
    """ "CUDA out of memory at new size": the number of patches and the way out, and the other pictures go on."""
    (tmp_path / "p").mkdir()
    Image.new("L", (40_000, 8)).save(tmp_path / "p" / "strip.png")
    Image.new("L", (40, 40)).save(tmp_path / "p" / "usual.png")
    made = embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32")
    assert made.rows == 1 and [(one.id, one.reason) for one in made.skipped] == [("strip.png", "too-large")]


def test_c11_a_flat_folder_and_a_single_class_embed(tmp_path, model):
    for name in ("flat", "one/class"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (40, 40), (index * 90, 0, 0)).save(folder / f"{index}.png")
    for name in ("flat", "one"):
        embed(tmp_path / name, model, tmp_path / f"{name}.store", dtype="fp32")
        store = open_store(tmp_path / f"{name}.store")
        assert len(store) == 3 and store.row(store.ids()[0]).label is None


def test_c16_names_come_back_from_store_csv_and_search(tmp_path, model):
    names = ["crack 🛣️ \u00e9.jpg", "crack 🛣️ e\u0301.jpg", "two\nlines.jpg", "it's.jpg", "-dash.jpg"]
    (tmp_path / "p").mkdir()
    for index, name in enumerate(names):
        Image.new("RGB", (40, 40), (50 * index, 0, 99)).save(tmp_path / "p" / name, "JPEG")
    embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32")
    store = open_store(tmp_path / "s")
    assert sorted(map(decode_id, store.ids())) == sorted(map(os.fsencode, names))
    with open(tmp_path / "ids.csv", "w", newline="") as file:
        csv.writer(file).writerows([one] for one in store.ids())
    with open(tmp_path / "ids.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == store.ids()
    for name in store.ids():
        assert opendino.search(store, id=name, k=9, out=tmp_path / "sheet.png").found
        assert store.row(name).id == name


def test_c34_a_vector_that_is_not_finite_never_becomes_a_row(pictures, model, tmp_path):
    net = opendino.load(model)
    calls = []

    def poison(module, inputs, features):
        calls.append(len(features.cls))
        if len(calls) > 1:  # the second batch, pictures of another shape
            return type(features)(features.cls * float("nan"), features.registers, features.patches)
        return features

    net.register_forward_hook(poison)
    made = embed(pictures, net, tmp_path / "s", dtype="fp32")
    assert made.rows == calls[0] and {one.reason for one in made.skipped} == {"features are not finite"}
    assert np.isfinite(open_store(tmp_path / "s").matrix()).all()


def test_c37_the_cards_own_mean_and_std_are_used_and_printed(pictures, tmp_path, capsys):
    torch.manual_seed(0)
    satellite = Transform(size=32, patch=8, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
    card = {"name": "sat", "licence": "DINOv3 License", "source": "x"}
    write_model(tmp_path / "m", build_model("vit_tiny", depth=1, patch=8), satellite, card)
    assert run([str(pictures), "--model", str(tmp_path / "m"), "--out", str(tmp_path / "s")]) == 0
    assert "mean and std 0.430, 0.411, 0.296, 0.213, 0.156, 0.143" in capsys.readouterr().out
    assert open_store(tmp_path / "s").info.transform.mean == satellite.mean


def test_a2_the_licence_of_the_weights_travels_with_the_features(pictures, model, tmp_path, capsys):
    assert run([str(pictures), "--model", str(model), "--out", str(tmp_path / "s")]) == 0
    assert "licence: test" in capsys.readouterr().out
    store = open_store(tmp_path / "s")
    assert store.info.licence == "test" and store.table(["id"]).schema.metadata[b"opendino.licence"] == b"test"


def test_a_folder_that_is_none_says_so(model, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        embed(Path(tmp_path / "nothing"), model, tmp_path / "s")
