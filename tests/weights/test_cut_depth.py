"""A file without the last blocks of a family member is that model in part, unless its depth is asked for."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from opendino.cli.weights import run
from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import FAMILY, build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, read_passport, write_model, write_official
from tests.models.parity import images, randomise

ROWS = {
    "vits16": ViTConfig(dim=128, depth=4, heads=1, hidden=192),  # heads of 128, which only the family tells
    "dinov2_vits14_reg": Dinov2Config(dim=64, depth=4, heads=1, hidden=128, registers=4, position_side=5),
    "convnext_tiny": ConvNeXtConfig(depths=(1, 2, 4, 1), dims=(16, 32, 48, 64)),
    "convnext_small": ConvNeXtConfig(depths=(1, 2, 8, 1), dims=(16, 32, 48, 64)),
}
CUT = {  # name: what stands before the numbers of blocks in official and transformers names, numbers that are dropped
    "vits16": ("blocks.", "layer.", (3,), "without block 3;"),
    "dinov2_vits14_reg": ("blocks.", "encoder.layer.", (2, 3), "without blocks 2 to 3;"),
    "convnext_tiny": ("stages.2.", "stages.2.layers.", (2, 3), "without blocks 2 to 3 of stage 2;"),
    "convnext_small": ("stages.2.", "stages.2.layers.", (7,), "without block 7 of stage 2;"),
}


@pytest.fixture(autouse=True)
def family(monkeypatch):
    """The family with small models in the place of four."""
    for name, config in ROWS.items():
        monkeypatch.setitem(FAMILY, name, replace(FAMILY[name], config=config))


def written(name, layout, folder):
    """The whole model, and a lone weights file of it without its last blocks."""
    model = randomise(build_from_config(ROWS[name]))
    transform = Transform(patch=model.patch, size=model.patch * 4)
    if layout == "official":
        tensors = torch.load(write_official(folder, model, transform, {"name": "x"}), weights_only=True)
    else:
        write_model(folder, model, transform, {"name": "x"})
        tensors = load_file(folder / "model.safetensors")
    prefix = CUT[name][0 if layout == "official" else 1]
    gone = tuple(f"{prefix}{number}." for number in CUT[name][2])
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(gone)}
    assert len(kept) < len(tensors)
    (folder / "lone").mkdir()
    save_file(kept, folder / "lone" / "cut.safetensors")
    return model, folder / "lone" / "cut.safetensors", len(kept), len(tensors)


@pytest.mark.parametrize("layout", ["official", "transformers"])
@pytest.mark.parametrize("name", ROWS)
def test_missing_last_blocks_are_named_and_refused(name, layout, tmp_path):
    model, file, kept, whole = written(name, layout, tmp_path)
    passport = read_passport(file)
    assert name in passport.models and not passport.whole
    assert passport.coverage.startswith(f"{kept}/{whole} tensors")
    with pytest.raises(WeightsError) as caught:
        load(file)
    assert CUT[name][3] in str(caught.value) and f"look like {name}" in str(caught.value)
    assert f"{kept} of {whole} tensors match: refused" in str(caught.value) and "\n" not in str(caught.value)
    assert load(file, partial=True).config == replace(model.config, **plain(load(file, partial=True).config))


def plain(config):
    """Fields that stand in no file of tensors."""
    names = ("layer_scale", "position_resize", "rope_rounded")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def test_a_depth_that_is_asked_for_is_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    _, file, kept, _ = written("dinov2_vits14_reg", "official", tmp_path)
    assert run([str(file)]) == 3 and "without blocks 2 to 3" in capsys.readouterr().out
    assert run([str(file), "--depth", "2", "--to", "hf", "--out", str(tmp_path / "two")]) == 0
    assert f"{kept}/{kept} tensors" in capsys.readouterr().out
    two = load(file, depth=2)
    assert two.config.depth == 2
    x = images(28, 42)
    assert torch.equal(load(tmp_path / "two")(x).patches, two(x).patches)
    with pytest.raises(WeightsError, match=r"unexpected blocks\.1"):
        load(file, depth=1)
    with pytest.raises(WeightsError, match=r"\{'depth': 1\} changes"):
        load(tmp_path / "two", depth=1)


def test_the_depths_of_a_convnext_can_be_asked_for(tmp_path):
    _, file, _, _ = written("convnext_tiny", "official", tmp_path)
    assert load(file, depths=(1, 2, 2, 1)).config.depths == (1, 2, 2, 1)


def test_a_config_that_states_more_blocks_says_the_same(tmp_path):
    _, file, _, _ = written("vits16", "transformers", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(WeightsError, match="look like vits16 in transformers names, without block 3; --partial"):
        load(tmp_path)


def test_other_heads_than_the_family_member_has_are_another_model(tmp_path):
    _, file, _, _ = written("dinov2_vits14_reg", "official", tmp_path)
    assert load(file, heads=2).config.depth == 2


def test_more_blocks_than_any_of_the_family_are_a_model_of_their_own(tmp_path):
    model = randomise(build_from_config(replace(ROWS["vits16"], depth=5, heads=2)))
    file = write_official(tmp_path, model, Transform(), {"name": "x"})
    assert read_passport(file).whole and read_passport(file).models == ()
