"""`opendino show` on real files and freshly built models: sizes, points, errors, what it prints."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.cli.show import run, show
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError, WeightsError
from opendino.models.family import build_model
from opendino.weights import write_model


def save_model(folder: Path, name: str, **changes) -> Path:
    torch.manual_seed(0)
    model = build_model(name, **changes)
    transform = Transform(size=model.patch * 4, patch=model.patch)
    write_model(folder, model, transform, {"name": name, "licence": "x", "source": "x"})
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "vit", "vit_tiny", depth=2, patch=16)


@pytest.fixture(scope="module")
def conv(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "conv", "conv_mini")


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / "a cat.jpg", tmp_path / "tall.png"]
    for path, (height, width) in zip(paths, [(60, 120), (130, 70)], strict=True):
        Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("kind", ["pca", "similarity", "attention"])
def test_each_kind_writes_a_picture(vit, pictures, tmp_path, kind):
    out = show(kind, pictures, vit, out=tmp_path / f"{kind}.png", layer=None if kind != "attention" else 0)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG" and sheet.width > sheet.height / 4 and sheet.mode == "RGB"


def test_layers_differ_and_foreground_is_taken(vit, pictures, tmp_path):
    def pixels(**options) -> bytes:
        return Image.open(show("pca", pictures, vit, out=tmp_path / "x.png", **options)).tobytes()

    last = pixels()
    assert pixels() == last, "the same command draws the same picture"
    assert pixels(layer=0) != last and pixels(foreground=True) != last
    assert pixels(layer=1) == pixels(layer=-1) == last


def test_the_point_is_in_pixels_of_the_file(vit, pictures, tmp_path):
    first = show("similarity", pictures, vit, out=tmp_path / "1.png", point=(0, 0)).read_bytes()
    last = show("similarity", pictures, vit, out=tmp_path / "2.png", point=(59, 119)).read_bytes()
    assert first != last
    with pytest.raises(UsageError, match="60 x 120 px"):
        show("similarity", pictures, vit, out=tmp_path / "3.png", point=(60, 0))


def test_words_say_sizes_file_and_next_command(vit, pictures, tmp_path, capsys):
    out = tmp_path / "out.png"
    code = run(["pca", *map(str, pictures), "--model", str(vit), "--out", str(out), "--size", "70"])
    said = capsys.readouterr().out
    assert code == 0 and out.exists()
    assert "a cat.jpg: 60 x 120 px, seen whole at 64 x 128 (height x width), 4 x 8 patches" in said
    assert "--size 70 rounded to 64: whole patches of 16 px" in said
    assert f"wrote {out}" in said and "next: opendino show similarity '" in said


def test_json_is_one_object(vit, pictures, tmp_path, capsys):
    run(
        [
            "similarity",
            str(pictures[1]),
            "--model",
            str(vit),
            "--out",
            str(tmp_path / "o.png"),
            "--point",
            "5,6",
            "--json",
        ]
    )
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "similarity" and told["pictures"][0]["patches"] == [7, 4]


def test_the_default_name_follows_from_the_command(vit, pictures, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert show("pca", pictures[:1], vit) == Path("pca-a cat.png")
    assert show("pca", pictures, vit) == Path("pca-a cat-and-1-more.png")


def test_drawings_from_other_inputs_stay_and_so_do_files_of_the_user(vit, conv, pictures, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = show("pca", pictures[:1], vit)
    content = first.read_bytes()
    assert show("pca", pictures[:1], vit) == first
    others = [show("pca", pictures[:1], model, size=size) for model, size in ((conv, None), (vit, 96))]
    assert others == [Path("pca-a cat-2.png"), Path("pca-a cat-3.png")]
    assert first.read_bytes() == content
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not drawn by opendino"):
        show("pca", pictures[:1], vit, out=tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_bands_and_ranges_by_flag_or_by_the_file_of_a_folder_above(vit, tmp_path, capsys):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: bands not tried")
    (tmp_path / "pictures" / "class").mkdir(parents=True)
    five = np.random.default_rng(0).integers(0, 900, (40, 50, 5), np.uint16)
    bands = tmp_path / "pictures" / "class" / "a.tif"
    tifffile.imwrite(bands, five, photometric="minisblack", planarconfig="contig")
    line = ["pca", str(bands), "--model", str(vit), "--size", "64"]
    with pytest.raises(DataError, match="bands"):
        run([*line, "--out", str(tmp_path / "x.png")])
    flags = ["--bands", "2", "1", "0", "--value-range", "0", "900"]
    assert run([*line, *flags, "--out", str(tmp_path / "x.png")]) == 0
    said = capsys.readouterr().out
    assert "--bands 2 1 0 --value-range 0.0 900.0" in said and "--size 64" in said
    (tmp_path / "pictures" / "opendino-reading.json").write_text('{"bands": [2, 1, 0], "value_range": [0, 900]}')
    assert run([*line, "--out", str(tmp_path / "y.png")]) == 0
    drawn = [np.asarray(Image.open(tmp_path / name)) for name in ("x.png", "y.png")]
    np.testing.assert_array_equal(*drawn)
    assert run([*shlex.split(said.partition("next: opendino show ")[2]), "--out", str(tmp_path / "z.png")]) == 0


def test_convolutional_networks_have_pca_but_no_attention(conv, pictures, tmp_path):
    assert show("pca", pictures, conv, out=tmp_path / "x.png").exists()
    with pytest.raises(UsageError, match="has none"):
        show("attention", pictures, conv, out=tmp_path / "y.png")
    assert not (tmp_path / "y.png").exists()


def test_errors_name_the_way_out(vit, pictures, tmp_path):
    with pytest.raises(UsageError, match="did you mean pca"):
        show("pcaa", pictures, vit)
    with pytest.raises(UsageError, match="kinds: pca, similarity, attention"):
        show("xyz", pictures, vit)
    with pytest.raises(UsageError, match="one of the pictures"):
        show("pca", [pictures[1]], vit, out=pictures[1])
    with pytest.raises(UsageError, match=r"\.png"):
        show("pca", pictures, vit, out=tmp_path / "x.gif")
    with pytest.raises(UsageError, match="2 layers"):
        show("attention", pictures, vit, layer=2, out=tmp_path / "x.png")
    with pytest.raises(UsageError, match="must be Y,X"):
        run(["similarity", str(pictures[0]), "--model", str(vit), "--point", "3"])
    with pytest.raises(WeightsError):
        show("pca", pictures, tmp_path / "nothing", out=tmp_path / "x.png")
    with pytest.raises(UsageError, match="at least 1"):
        show("pca", pictures, vit, size=0, out=tmp_path / "x.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        show("pca", [tmp_path / "broken.jpg"], vit, out=tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
