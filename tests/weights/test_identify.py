"""Files of one shape and different minds: what tells them apart is said, and what a wrong guess would change."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from opendino.cli import main
from opendino.data.transform import Transform
from opendino.models.family import FAMILY, SATELLITE, build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, read_passport, write_model
from opendino.weights.identify import identify
from opendino.weights.where import Origin
from tests.models.parity import randomise

LARGE = ("vitl16", "vitl16_sat")
HUB = "models--facebook--dinov3-{}/snapshots/0123/model.safetensors"
LVD, SAT = "a" * 8, FAMILY["vitl16_sat"].digest

TOLD = [
    # path, members of its shape, config.json, hash -> member, how, whether one must be careful
    ("dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth", LARGE, None, None, "vitl16", "name", False),
    ("dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth", LARGE, None, None, "vitl16_sat", "name", False),
    (HUB.format("vitl16-pretrain-sat493m"), LARGE, None, None, "vitl16_sat", "name", False),
    (HUB.format("vitl16-pretrain-lvd1689m"), LARGE, None, None, "vitl16", "name", False),
    ("vitl16_sat/model.safetensors", LARGE, None, None, "vitl16_sat", "name", False),
    ("large.pth", LARGE, None, None, "vitl16", "shape", True),
    ("saturday/large.pth", LARGE, None, None, "vitl16", "shape", True),
    ("large.pth", LARGE, None, SAT + "0" * 56, "vitl16_sat", "hash", False),
    ("dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth", LARGE, None, SAT + "0" * 56, "vitl16_sat", "hash", False),
    ("x.pth", ("vitl16_sat",), None, None, "vitl16_sat", "shape", False),
    ("x.pth", LARGE, {"opendino": {"card": {"name": "vitl16_sat"}}}, None, "vitl16_sat", "card", False),
    ("x.pth", LARGE, {"pretrained_cfg": {"tag": "sat493m"}}, None, "vitl16_sat", "name", False),
    ("best.pth", ("vits16",), None, None, "vits16", "shape", False),
    ("run/model/x.pth", (), None, None, None, "nothing", False),
    ("eupe_vits16.pth", ("vits16",), None, None, None, "name", True),
    ("m/model.safetensors", ("vits16",), {"pretrained_cfg": {"tag": "eupe_lvd1689m"}}, None, None, "name", True),
]


@pytest.mark.parametrize(("path", "names", "raw", "digest", "member", "how", "careful"), TOLD)
def test_what_tells_a_file_from_its_look_alikes(path, names, raw, digest, member, how, careful):
    file = Path("/data") / path
    opened = SimpleNamespace(file=file, folder=file.parent, names=names, raw=raw)
    found = identify(opened, Origin(opened.file), digest)
    assert (found.spec.name if found.spec else None, found.how) == (member, how)
    assert bool(found.careful) == careful
    if how == "shape" and len(names) > 1:
        assert "it could be either" in found.words and found.others == ("vitl16_sat",)
        assert "--mean 0.43,0.411,0.296 --std 0.213,0.156,0.143" in found.careful
    if how == "name" and member and len(names) > 1:
        assert "has its shape, too" in found.words
    if "eupe" in str(path) + str(raw):
        assert found.foreign == "EUPE" and "EUPE" in found.words


@pytest.fixture
def twins(monkeypatch, tmp_path):
    """A file without a card whose shape two members have, one of them for satellite pictures."""
    config = ViTConfig(dim=64, depth=2, heads=1, hidden=96)
    for name, base in (("tinyl16", "vitl16"), ("tinyl16_sat", "vitl16_sat")):
        monkeypatch.setitem(FAMILY, name, replace(FAMILY[base], name=name, config=config, digest="f" * 8))
    write_model(tmp_path / "m", randomise(build_from_config(config)), Transform(), {})
    save_file(load_file(tmp_path / "m" / "model.safetensors"), tmp_path / "net.safetensors")
    return tmp_path


def test_a_passport_and_a_load_say_that_it_could_be_either(twins, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["weights", str(twins / "net.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "tinyl16 or tinyl16_sat, by its shape alone: it could be either" in out and "--mean 0.43,0.411,0.296" in out
    model = load(twins / "net.safetensors")
    assert model.transform.mean == (0.485, 0.456, 0.406)
    assert "if it is tinyl16_sat: --mean" in capsys.readouterr().err


def test_a_name_or_a_file_beside_it_settles_the_normalisation(twins, capsys):
    (twins / "net.safetensors").rename(twins / "tinyl16_sat.safetensors")
    model = load(twins / "tinyl16_sat.safetensors")
    assert (model.transform.mean, model.transform.std) == SATELLITE
    (twins / "net").mkdir()
    (twins / "tinyl16_sat.safetensors").rename(twins / "net" / "other.safetensors")
    (twins / "net" / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    assert load(twins / "net" / "other.safetensors").transform.mean == (0.1, 0.2, 0.3)
    assert capsys.readouterr().err == ""
    assert "could be either" in read_passport(twins / "net" / "other.safetensors").identity


def test_another_family_of_the_same_shape_gets_no_licence_of_ours(twins):
    (twins / "net.safetensors").rename(twins / "eupe_tiny.safetensors")
    passport = read_passport(twins / "eupe_tiny.safetensors")
    assert "EUPE's by its name" in passport.identity and "DINOv3" not in passport.licence
