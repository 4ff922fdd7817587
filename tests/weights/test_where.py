"""Where a name's weights come from: at hand, with a token, from the mirror, or one line with three ways on."""

import json
import os
from importlib import import_module
from pathlib import Path

import pytest
import torch

from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.family import FAMILY
from opendino.weights import load, write_model, write_official
from opendino.weights.folder import read_transform
from opendino.weights.hub import Refused, Unreachable, hub_cache
from opendino.weights.licences import memory
from opendino.weights.opened import empty_model
from opendino.weights.where import Origin, locate, own_folder, search_folders


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Models in the true shape of the smallest of each family, all zeros: folders to link under any name."""
    root = tmp_path_factory.mktemp("stock")
    for name in ("vits16", "dinov2_vits14", "convnext_tiny"):
        model = zeros(name)
        side = 224 // model.patch * model.patch
        write_model(root / name, model, Transform(patch=model.patch, size=side), {})
        config = json.loads((root / name / "config.json").read_text())
        config["opendino"].pop("card")  # as a foreign file
        (root / name / "config.json").write_text(json.dumps(config))
    write_official(root / "pth", zeros("vits16"), Transform(), {"name": "official"})
    (root / "pth" / "official.json").unlink()
    return root


def zeros(name):
    model = empty_model(FAMILY[name].config).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    return model


class Hub:
    """Stands for the download: repositories that answer, and those that refuse."""

    def __init__(self, folders=(), refuses=()):
        self.folders, self.refuses, self.asked = dict(folders), refuses, []

    def __call__(self, repository):
        self.asked.append(repository)
        if repository in self.refuses:
            raise Refused("it has not been let in yet")
        if repository not in self.folders:
            raise Unreachable("no network")
        return self.folders[repository]


@pytest.fixture
def said():
    return []


def find(name, hub, said, **more):
    return locate(name, download=hub, say=said.append, **more)


def link(target, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


GATED, MIRROR = FAMILY["vits16"].repository, FAMILY["vits16"].mirror


@pytest.mark.parametrize("place", ["chosen", "ours", "torch", "hub", "mirror in hub"])
def test_a_file_at_hand_comes_first(place, stock, tmp_path, monkeypatch, said):
    official = "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    if place == "chosen":
        monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
        link(stock / "vits16", tmp_path / "vits16")
    elif place in ("ours", "torch"):
        folder = {words.split()[-2]: folder for words, folder in search_folders()}
        link(stock / "pth" / "official.pth", folder["opendino's" if place == "ours" else "torch's"] / official)
    else:
        repository = GATED if place == "hub" else MIRROR
        link(stock / "vits16", hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc")
    hub = Hub()
    origin = find("vits16", hub, said)
    assert origin.name == "vits16" and not hub.asked
    assert len(said) == 1 and "vits16 from" in said[0] and "at hand" in said[0] and "DINOv3 License" in said[0]


def test_load_by_name_carries_licence_and_source(stock, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
    link(stock / "vits16", tmp_path / "vits16")
    model = load("vits16")
    assert model.card["name"] == "vits16" and model.card["licence"] == "DINOv3 License"
    assert "facebook/dinov3-vits16" in model.card["source"] and "0 unexpected" in model.card["coverage"]
    assert len(capsys.readouterr().err.splitlines()) == 1
    write_model(tmp_path / "out", model, model.transform, model.card)
    again = load(tmp_path / "out")
    assert (again.card["licence"], again.card["source"]) == (model.card["licence"], model.card["source"])


def test_another_model_is_never_returned_under_the_name(stock, tmp_path, monkeypatch, said):
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
    link(stock / "vits16", tmp_path / "vitb16")
    link(stock / "convnext_tiny", tmp_path / "dinov3_vitb16_pretrain_lvd1689m")
    (tmp_path / "vitb16.pth").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no weights at hand"):
        find("vitb16", Hub(), said)
    assert len(said) == 3 and all("passed over" in line for line in said)
    assert any("holds vits16" in line for line in said) and any("holds convnext_tiny" in line for line in said)


def test_a_satellite_file_is_not_taken_for_photographs(stock, tmp_path, monkeypatch, said):
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
    for name in ("dinov3_vitl16_pretrain_sat493m-eadcf0ff", "vitl16_sat", "vitl16plus"):
        link(stock / "vits16", tmp_path / name)
    with pytest.raises(WeightsError):
        find("vitl16", Hub(), said)
    assert said == []  # none of the three carries the name vitl16


def test_satellite_models_have_their_own_statistics(tmp_path):
    """Case C37: their mean and std, not ImageNet's, unless the folder says otherwise."""
    for name, mean in (("vitl16_sat", (0.430, 0.411, 0.296)), ("vitl16", (0.485, 0.456, 0.406))):
        assert read_transform(tmp_path, None, 16, FAMILY[name]).mean == mean


def test_timm_and_dinov2_say_size_filter_and_crop(tmp_path):
    fields = {"mean": [0.5] * 3, "std": [0.2] * 3, "input_size": [3, 518, 518], "interpolation": "bicubic"}
    theirs = Transform(size=518, mode="center", mean=(0.5,) * 3, std=(0.2,) * 3, patch=14, filter="bicubic", share=1.0)
    assert read_transform(tmp_path, {"pretrained_cfg": {**fields, "crop_pct": 1.0}}, 14, None) == theirs
    nine = read_transform(
        tmp_path, {"pretrained_cfg": {**fields, "input_size": [3, 224, 224], "crop_pct": 0.9}}, 14, None
    )
    assert (nine.size, nine.short_side) == (224, 248)  # timm rounds 248.9 down
    dinov2 = read_transform(tmp_path, None, 14, FAMILY["dinov2_vits14"])
    assert dinov2 == Transform(size=224, mode="center", patch=14, filter="bicubic")


def test_a_token_leads_to_hugging_face(stock, monkeypatch, said):
    monkeypatch.setenv("HF_TOKEN", "x")
    hub = Hub({GATED: stock / "vits16"})
    assert find("vits16", hub, said).source == f"huggingface.co/{GATED}"
    assert hub.asked == [GATED] and GATED in said[0]


def test_the_mirror_is_taken_once_its_licence_was_accepted_and_that_is_remembered(stock, said, capsys):
    hub = Hub({MIRROR: stock / "vits16"})
    with pytest.raises(WeightsError, match="no Hugging Face token") as caught:
        find("vits16", hub, said)
    assert not hub.asked and not memory().exists() and "\n" not in str(caught.value)
    for word in (GATED, MIRROR, "--accept-licence", "hf auth login", str(own_folder()), "pretrain_lvd1689m.pth"):
        assert word in str(caught.value)
    origin = find("vits16", hub, said, accept_licence=True)
    assert origin.source == f"huggingface.co/{MIRROR}, a mirror of {GATED}"
    assert "since no Hugging Face token" in said[-1] and "DINOv3 License" in said[-1]
    assert "dinov3-license" in capsys.readouterr().err
    assert json.loads(memory().read_text()) == {"accepted": ["DINOv3 License"]}
    assert find("vits16", hub, said).source == origin.source  # nobody asks again
    assert capsys.readouterr().err == ""


def test_an_account_that_is_refused_goes_on_to_the_mirror_and_is_told_why(stock, monkeypatch, said):
    monkeypatch.setenv("HF_TOKEN", "x")
    hub = Hub({MIRROR: stock / "vits16"}, refuses=[GATED])
    with pytest.raises(WeightsError, match="refuses this account"):
        find("vits16", hub, said)
    monkeypatch.setenv("OPENDINO_ACCEPT_LICENCE", "1")
    assert find("vits16", hub, said).name == "vits16"
    assert "refuses this account" in said[-1] and hub.asked == [GATED, GATED, MIRROR]


def test_no_network(monkeypatch, said):
    monkeypatch.setenv("HF_TOKEN", "x")
    for name in ("vits16", "dinov2_vits14", None):
        with pytest.raises(WeightsError, match="no network") as caught:
            find(name, Hub(), said)
        line = str(caught.value)
        assert "\n" not in line and all(f"({way})" in line for way in (1, 2, 3))
    assert said == []


def test_the_real_library_offline_fails_in_one_line(said):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(WeightsError, match="no weights at hand and HF_HUB_OFFLINE is set") as caught:
        locate("dinov2_vits14", say=said.append)
    assert "huggingface.co/facebook/dinov2-small is open" in str(caught.value)


def test_a_repository_that_holds_another_model_is_refused(stock, monkeypatch):
    room = import_module("opendino.weights.load")  # the package's attribute of this name is the function
    monkeypatch.setattr(room, "locate", lambda *_, **__: Origin(stock / "convnext_tiny", "vits16", "a wrong mirror"))
    with pytest.raises(WeightsError, match=r"vits16 was asked.*convnext_tiny"):
        load("vits16")


def test_an_open_model_needs_no_token(stock, said):
    hub = Hub({"facebook/dinov2-small": stock / "dinov2_vits14"})
    assert find("dinov2_vits14", hub, said).name == "dinov2_vits14" and "Apache-2.0" in said[0]


def test_without_a_name_the_best_at_hand_and_dinov2_before_nothing(stock, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    hub = Hub({FAMILY["dinov2_vitb14_reg"].repository: stock / "dinov2_vits14"})
    assert find(None, hub, said).name == "dinov2_vitb14_reg" and "none at hand" in said[-1]
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
    for name in ("dinov2_vits14", "convnext_tiny", "vits16"):
        link(stock / name, tmp_path / name)
        assert find(None, hub, said).name == name
    assert len(hub.asked) == 1


def test_without_a_name_the_newest_run_comes_after_released_weights_and_before_a_download(
    stock, tmp_path, monkeypatch, said
):
    monkeypatch.chdir(tmp_path)
    for age, (run, part) in enumerate((("new", "model-best"), ("old", "model"), ("begun", "model-start"))):
        folder = tmp_path / "runs" / run / part
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"")
        os.utime(folder / "model.safetensors", (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "runs" / "begun" / "model-start" / "model.safetensors")
    hub = Hub({})
    assert find(None, hub, said).path == Path("runs/new") and not hub.asked
    assert said == ["no model named and no released weights at hand; runs/new is the newest run here"]
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
    link(stock / "vits16", tmp_path / "vits16")
    assert find(None, hub, said).name == "vits16" and said[-1] == "--model runs/new takes your newest run instead"


def test_a_path_wins_over_a_name_and_our_own_kinds_have_no_released_weights(stock, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    link(stock / "vits16", tmp_path / "vits16")
    assert find("vits16", Hub(), said).name is None
    with pytest.raises(WeightsError, match="vitb15: no such file, folder or model; did you mean vitb16"):
        find("vitb15", Hub(), said)
    with pytest.raises(WeightsError, match="no released weights; opendino pretrain"):
        find("vit_tiny", Hub(), said)
