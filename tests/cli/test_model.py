"""How commands choose their model: the default, one line that says which, and the flags that change it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import opendino
from opendino.cli import main
from opendino.cli.model import choose_model
from opendino.data.transform import Transform
from opendino.errors import UsageError, WeightsError
from opendino.features.store import open_store
from opendino.weights import write_model, write_official
from tests.features.child import draw_pictures, save_vit
from tests.weights.conftest import FOLDERS, SETTINGS
from tests.weights.test_where import zeros

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def pictures(tmp_path):
    draw_pictures(tmp_path / "pictures", 4)
    return tmp_path / "pictures"


@pytest.mark.parametrize("command", [["embed"], ["try"], ["show", "pca"]])
def test_without_a_name_weights_or_network_one_line_has_three_ways(command, pictures, home, capsys):
    thing = pictures if len(command) == 1 else pictures / "a" / "000.png"
    assert main([*command, str(thing)]) == 3
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert said.out == "" and "no model named: no weights at hand and HF_HUB_OFFLINE is set" in line
    for word in ("(1) --model", "(2) go online", "(3) fetch", "dinov2_vitb14_reg (Apache-2.0)", f"{home}"):
        assert word in line


def test_without_a_name_the_best_at_hand_is_taken_said_and_found_again(pictures, tmp_path, monkeypatch, capsys):
    write_model(tmp_path / "w" / "dinov2_vits14", zeros("dinov2_vits14"), Transform(size=224, patch=14), {})
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path / "w"))
    line = ["embed", str(pictures), "--size", "28", "--out", "s", "--device", "cpu"]
    assert main(line) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == (
        f"opendino: no model named; the best at hand is dinov2_vits14 from {tmp_path / 'w' / 'dinov2_vits14'} "
        "(at hand in OPENDINO_WEIGHTS; Apache-2.0)"
    )
    assert open_store("s").info.model == "dinov2_vits14"
    photo = str(pictures / "a" / "000.png")
    assert main(["search", "s", "--image", photo]) == 0
    assert main(["show", "pca", photo, "--size", "28", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == "dinov2_vits14"


def test_without_released_weights_the_newest_run_is_taken_and_found_again(pictures, tmp_path, capsys):
    save_vit(tmp_path / "runs" / "mine" / "model")
    line = ["embed", str(pictures), "--out", "s", "--device", "cpu"]
    assert main(line) == 0
    assert "no released weights at hand; runs/mine is the newest run here" in capsys.readouterr().err.splitlines()[0]
    assert open_store("s").info.model == str(tmp_path / "runs" / "mine")
    assert main(["search", "s", "--image", str(pictures / "a" / "000.png")]) == 0


def test_overlapping_patches_make_a_finer_map_and_search_opens_the_model_with_its_stride(pictures, tmp_path, capsys):
    model = save_vit(tmp_path / "m")
    stores = {}
    for stride in ("none", "8", "4", "3"):
        more = [] if stride == "none" else ["--stride", stride]
        line = ["embed", str(pictures), "--model", str(model), "--out", stride, "--patches", "fp16", *more]
        assert main([*line, "--device", "cpu", "--dtype", "fp32"]) == 0
        stores[stride] = open_store(stride)
    rows = {stride: store.row("a/000.png") for stride, store in stores.items()}
    assert np.array_equal(rows["none"].cls, rows["8"].cls)  # stride = patch is bit-equal
    # 32 x 48 px: (32 - 8) / 4 + 1, (48 - 8) / 4 + 1; with 3 the last patch begins at the first multiple that covers.
    grids = {stride: tuple(row.patches.shape[:2]) for stride, row in rows.items()}
    assert grids == {"none": (4, 6), "8": (4, 6), "4": (7, 11), "3": (9, 15)}
    hashes = {stride: store.info.model_hash for stride, store in stores.items()}
    assert hashes["none"] == hashes["8"] and len({hashes["8"], hashes["4"], hashes["3"]}) == 3
    assert "patches one every 4 px" in capsys.readouterr().out
    assert main(["show", "pca", str(pictures / "a" / "000.png"), "--model", str(model), "--stride", "4"]) == 0
    assert f"--model {model} --stride 4 --point 20,30" in capsys.readouterr().out
    found = opendino.search("4", image=pictures / "a" / "000.png", out=tmp_path / "sheet.png").found
    assert found[0].id == "a/000.png" and found[0].cosine > 0.99999
    # Another stride is another model: its features do not go into the same store.
    assert main(["embed", str(pictures), "--model", str(model), "--out", "4", "--stride", "2"]) == 2
    assert main(["embed", str(pictures), "--model", str(model), "--stride", "4", "--tile", "--out", "x"]) == 2
    assert "tiles lie on a grid of whole patches" in capsys.readouterr().err


def test_four_bands_go_through_a_model_of_rgb_weights(tmp_path, capsys):
    tifffile = pytest.importorskip("tifffile")
    model, folder = save_vit(tmp_path / "m"), tmp_path / "bands"
    folder.mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (40, 40, 1), np.uint8)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [0] * 3}
    tifffile.imwrite(folder / "a.tif", grey.repeat(4, 2), **options)
    (folder / "opendino-reading.json").write_text(json.dumps({"bands": [0, 1, 2, 3], "value_range": [0, 255]}))
    line = ["embed", str(folder), "--model", str(model), "--dtype", "fp32", "--device", "cpu", "--out"]
    assert main([*line, "rgb"]) == 3
    assert "has 4 channels, the model takes 3 (--channels 4 changes that)" in capsys.readouterr().err
    assert main([*line, "four", "--channels", "4"]) == 0
    assert open_store("four").info.transform.mean == pytest.approx((0.449,) * 4, abs=1e-3)
    # The rule: a picture that is equal in all bands gets the response that it had as grey in RGB, same mean and std.
    net = opendino.load(model, channels=4)
    plain = opendino.load(model)
    values = torch.randn(1, 1, 32, 32)
    assert torch.allclose(net(values.expand(-1, 4, -1, -1)).cls, plain(values.expand(-1, 3, -1, -1)).cls, atol=1e-5)
    assert opendino.search("four", image=folder / "a.tif", out=tmp_path / "x.png", model=model)


def test_heads_that_no_shape_tells(tmp_path):
    torch.manual_seed(0)
    net = opendino.load(save_vit(tmp_path / "m"))
    file = write_official(tmp_path / "flat", net, net.transform, {"name": "odd"})
    state = torch.load(file)
    torch.save({name: value for name, value in state.items() if "periods" not in name}, tmp_path / "odd.pth")
    said = choose_model(tmp_path / "odd.pth", heads=4)
    assert said.model.config.heads == 4 and said.named == str(tmp_path / "odd.pth")
    assert said.model.card["changed"] == {"heads": 4}


def test_flags_that_a_model_has_no_use_for_are_one_line(tmp_path):
    model = save_vit(tmp_path / "m")
    with pytest.raises(UsageError, match="must be from 1 to the patch side 8, got 9"):
        choose_model(model, stride=9)
    with pytest.raises((UsageError, WeightsError), match="multiple of 4 x heads"):
        choose_model(model, heads=3)
    opened = choose_model(model).model
    again = choose_model(opened)
    assert again.model is opened and again.named == opened.card["source"]
    with pytest.raises(UsageError, match="is open already"):
        choose_model(opened, stride=4)
