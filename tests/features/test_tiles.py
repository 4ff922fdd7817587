"""Tiles of large pictures: covered, merged, measured; from memory and from a file that is never decoded whole."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import opendino
from opendino.cli.embed import embed, in_words
from opendino.data.images import large, read
from opendino.data.transform import Transform
from opendino.features.store import open_store
from tests.features.child import save_vit

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_vit(tmp_path_factory.mktemp("model"))


def test_tiles_cover_the_picture_and_their_merged_map_is_kept(tmp_path, model):
    generator = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    Image.fromarray(generator.integers(0, 256, (100, 150, 3), np.uint8)).save(tmp_path / "p" / "large.png")
    Image.fromarray(generator.integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / "p" / "small.png")
    embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", patches="fp16", tile=True, tile_px=64)
    store, net = open_store(tmp_path / "s"), opendino.load(model)
    whole = store.row("large.png")
    assert whole.patches.shape == (13, 19, net.dim) and whole.valid == (13, 19)  # ceil(100 / 8), ceil(150 / 8)
    tiles = [store.row(one) for one in store.ids() if "#" in one]
    # 13 patches by tiles of 8, step 6: starts 0, 5; 19: 0, 6, 11.
    assert [one.tile for one in tiles] == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    seen = np.zeros((100, 150), bool)
    for tile in tiles:
        y, x, height, width = tile.box
        seen[y : y + height, x : x + width] = True
        cut = read(tmp_path / "p" / "large.png").array[y : y + height, x : x + width]
        with torch.no_grad():
            alone = net(Transform(size=32, patch=8, mode="padded").prepare_unscaled(cut).pixels[None])
        np.testing.assert_allclose(tile.cls, alone.cls[0], rtol=1e-4, atol=1e-5)
        assert tile.picture == "large.png" and tile.patches is None
    assert seen.all()
    assert store.row("small.png").patches.shape == (4, 5, net.dim)  # 32 x 38.4 px: its short side is the transform's


def test_the_agreement_of_tiles_with_whole_pictures_is_measured_and_said(tmp_path, model):
    """cases.md C28."""
    generator = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    for name, sides in (("small", (40, 40)), ("wide", (64, 96)), ("wider", (60, 200))):
        Image.fromarray(generator.integers(0, 256, (*sides, 3), np.uint8)).save(tmp_path / "p" / f"{name}.png")
    made = embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", patches="fp16", tile=True, tile_px=64)
    store, net = open_store(tmp_path / "s"), opendino.load(model)
    cosines = []
    for name, left, side in (("wide", 0, 96), ("wider", 36, 128)):  # at most two tiles: the middle 128 px
        cut = read(tmp_path / "p" / f"{name}.png").array[:, left : left + side]
        with torch.no_grad():
            whole = net(Transform(size=32, patch=8).prepare_unscaled(cut).pixels[None]).patches[0]
        if name == "wide":
            merged = store.row("wide.png").patches
        else:
            Image.fromarray(cut).save(tmp_path / "cut.png")
            (tmp_path / "q").mkdir()
            (tmp_path / "cut.png").rename(tmp_path / "q" / "cut.png")
            embed(tmp_path / "q", model, tmp_path / "t", dtype="fp32", patches="fp16", tile=True, tile_px=64)
            merged = open_store(tmp_path / "t").row("cut.png").patches
        cosines.append(torch.nn.functional.cosine_similarity(whole, merged, dim=-1).flatten())
    told, every = made.info.agreement, torch.cat(cosines)
    assert told is not None and told.pictures == 2
    assert abs(told.mean - float(every.mean())) < 1e-3 and abs(told.worst - float(every.quantile(0.01))) < 1e-3
    assert f"{told.mean:.3f} mean, {told.worst:.3f} for the worst patch in 100" in " ".join(in_words(made))
    only = tmp_path / "only"
    only.mkdir()
    (tmp_path / "p" / "small.png").rename(only / "small.png")
    made = embed(only, model, tmp_path / "u", dtype="fp32", tile=True, tile_px=64)
    assert made.info.agreement is None and "no picture looked at was large enough" in " ".join(in_words(made))


def test_tiles_of_a_large_tiff_are_those_of_the_whole_and_it_is_never_decoded_whole(model, tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: large TIFFs not tried")
    generator = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    colour = generator.integers(0, 256, (203, 410, 3), np.uint8)
    tifffile.imwrite(tmp_path / "p" / "colour.tif", colour, tile=(64, 64), compression="deflate")
    grey = np.cumsum(generator.integers(0, 20, (203, 410)), 1).astype(np.uint16)  # 12 of 16 bits, darker on the left
    tifffile.imwrite(tmp_path / "p" / "grey.tif", grey, rowsperstrip=5)
    options = {"dtype": "fp32", "patches": "fp16", "tile": True, "tile_px": 64}
    made = embed(tmp_path / "p", model, tmp_path / "whole", **options)
    monkeypatch.setattr(large, "LARGE_PIXELS", 1000)
    asked, real = [], large.read_values
    monkeypatch.setattr(large, "read_values", lambda page, part, name: asked.append(part) or real(page, part, name))
    monkeypatch.setattr(large, "_BAND_PIXELS", 64 * 410)
    parts = embed(tmp_path / "p", model, tmp_path / "parts", **options)
    assert asked and max(height for _, _, height, _ in asked) <= 2 * 64
    assert made.rows == parts.rows == 2 * (1 + 4 * 9) and made.info.agreement == parts.info.agreement
    left, right = (open_store(tmp_path / name).table() for name in ("whole", "parts"))
    for name in left.column_names:
        if name not in ("cls", "mean"):
            assert left[name].to_pylist() == right[name].to_pylist(), name
    tiles = [place for place, tile in enumerate(left["tile"].to_pylist()) if tile]
    for name in ("cls", "mean"):
        values = [np.stack(table[name].to_pylist()) for table in (left, right)]
        np.testing.assert_array_equal(values[0][tiles], values[1][tiles])
        unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in values]
        assert (unit[0] * unit[1]).sum(1).min() > 0.99  # the pictures' own rows are of means of 2 x 2 pixels
    embed(tmp_path / "p", model, tmp_path / "plain", dtype="fp32")
    plain, own = open_store(tmp_path / "plain"), open_store(tmp_path / "parts")
    for name in plain.ids():
        np.testing.assert_array_equal(plain.row(name).cls, own.row(name).cls)


def test_a_large_file_that_fails_between_its_tiles_costs_itself_alone(model, tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: large TIFFs not tried")
    (tmp_path / "p").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "p" / f"{name}.tif", np.full((200, 200, 3), 90, np.uint8), tile=(64, 64))
    monkeypatch.setattr(large, "LARGE_PIXELS", 1000)
    real, asked = large.LargeTiff.window, []

    def window(self, top, *sides):
        asked.append(top)
        if len(asked) == 4:  # two bands for the agreement, one of tiles, and then
            (tmp_path / "p" / "a.tif").unlink()
        return real(self, top, *sides)

    monkeypatch.setattr(large.LargeTiff, "window", window)
    made = embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", tile=True, tile_px=64)
    store = open_store(tmp_path / "s")
    assert [one.id for one in made.skipped] == ["a.tif"] and made.skipped[0].reason == "vanished"
    assert {row.split("#")[0] for row in store.ids()} == {"b.tif"}
    assert json.loads((tmp_path / "s" / "skipped.json").read_text())[0]["id"] == "a.tif"


def test_tiles_are_cut_from_the_whole_picture(model, tmp_path):
    (tmp_path / "p").mkdir()
    Image.effect_noise((500, 402), 60).convert("RGB").save(tmp_path / "p" / "a.jpg")
    embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32", tile=True, tile_px=256)
    row = open_store(tmp_path / "s").row("a.jpg#1,0")
    assert row.box == (152, 0, 250, 256)  # the last tile ends with the 51st row of patches: it begins at row 19
