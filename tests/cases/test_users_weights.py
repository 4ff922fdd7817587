"""What users asked for about weights, licences and working offline (users.md), and public complaints (cases.md)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import opendino
from opendino.cli import doctor as doctor_module
from opendino.cli import main
from opendino.cli.model import choose_model
from opendino.data.transform import Transform
from opendino.errors import UsageError, WeightsError
from opendino.models.contract import Features
from opendino.models.family import build_from_config
from opendino.models.stem import resample_patch
from opendino.models.vit import ViTConfig
from opendino.weights import load, write_model, write_official
from opendino.weights.apart import convert
from opendino.weights.hub import Refused, download
from tests.models.parity import images, randomise
from tests.weights.conftest import FOLDERS, SETTINGS

TINY = ViTConfig(dim=64, depth=2, heads=1, hidden=96)
CARD = {"name": "tiny", "licence": "CC0-1.0", "source": "a test"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nobody's caches and no network; pickles are read here, by what their child runs."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)

    def here(path, folder):
        convert(path, folder / "t.safetensors")
        return folder / "t.safetensors"

    monkeypatch.setattr("opendino.weights.read.read_apart", here)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model():
    return randomise(build_from_config(TINY))


@pytest.fixture
def folder(tmp_path, model):
    write_model(tmp_path / "m", model, Transform(size=64), CARD)
    return tmp_path / "m"


def edited(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    return path


def line_of(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_l1_the_source_is_told_by_its_keys_and_the_count_is_printed(folder, tmp_path, capsys):
    count = len(load_file(folder / "model.safetensors"))
    assert main(["weights", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"{count}/{count} tensors, 0 unexpected" in said and "transformers names" in said
    flat = write_official(tmp_path / "flat", load(folder), Transform(size=64), CARD)
    assert main(["weights", str(flat)]) == 0
    assert "official names" in capsys.readouterr().out


def test_loaded_and_features_like_noise(folder, capsys):
    """ "2 of 211 tensors match: refused": everything but two tensors has other names."""
    keep = ("embeddings.cls_token", "norm.weight", "embeddings.patch_embeddings.weight", "layer.0.norm1.weight")
    edited(folder, lambda all_: {name if name in keep else f"x.{name}": value for name, value in all_.items()})
    total = len(load_file(folder / "model.safetensors"))
    with pytest.raises(WeightsError, match=rf"4 of {total} tensors match: refused; missing .*; unexpected x\."):
        load(folder)
    assert main(["weights", str(folder)]) == 3
    assert f"4/{total} tensors" in capsys.readouterr().out


def test_missing_and_unexpected_keys_of_no_known_source(tmp_path):
    save_file({"resnet.conv1.weight": torch.zeros(2), "resnet.bn.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    words = "keys look like resnet.bn.bias, resnet.conv1.weight: no layout that is known; known: official, transformers"
    with pytest.raises(WeightsError, match=words):
        load(tmp_path / "w.safetensors")


def test_c05_prefixes_of_wrappers_and_training_checkpoints(model, tmp_path, capsys):
    flat = torch.load(write_official(tmp_path, model, Transform(size=64), CARD))
    (tmp_path / "tiny.json").unlink()
    expected = model(images(32, 32)).cls
    for prefix in ("module.", "_orig_mod.", "backbone.", "teacher.backbone.", "student.module.backbone."):
        for outer in (None, "model", "state_dict"):
            state = {prefix + name: value for name, value in flat.items()}
            torch.save(state if outer is None else {outer: state, "epoch": 3}, tmp_path / "w.pth")
            assert (load(tmp_path / "w.pth", heads=1)(images(32, 32)).cls - expected).abs().max() < 1e-6
    both = {f"teacher.{name}": value for name, value in flat.items()}
    both |= {f"student.{name}": torch.zeros_like(value) for name, value in flat.items()}
    torch.save(both, tmp_path / "w.pth")
    loaded = load(tmp_path / "w.pth", heads=1)
    assert (loaded(images(32, 32)).cls - expected).abs().max() < 1e-6
    assert f"{len(flat)} of heads or other models left out" in loaded.card["coverage"]
    assert main(["weights", str(tmp_path / "w.pth"), "--heads", "1"]) == 0
    assert "official names behind teacher." in capsys.readouterr().out


def test_c07_names_differ_between_releases_of_transformers(folder, model):
    expected = model(images(32, 32)).cls
    for form in ("model.{}", "{}"):

        def renamed(tensors, form=form):
            return {form.format(name) if name.startswith("layer.") else name: value for name, value in tensors.items()}

        good = load_file(folder / "model.safetensors")
        edited(folder, renamed)
        assert (load(folder)(images(32, 32)).cls - expected).abs().max() < 1e-5
        save_file(good, folder / "model.safetensors")


def test_c08_other_patch_side_is_one_line_with_two_ways_out(folder, capsys):
    """ "weights are /14, you asked /16; use /14, or --resample-patch"."""
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "patch_size": 14}))
    assert main(["show", "pca", "x.png", "--model", str(folder)]) == 3
    said = line_of(capsys)
    assert "the weights have patches /16, /14 is asked" in said
    assert "set patch_size to 16 in config.json; then --resample-patch 14 changes them" in said
    path.write_text(json.dumps(fields))
    changed = load(folder, patch=14)
    assert changed.patch == changed.transform.patch == 14 and changed.transform.size == 56
    assert changed(images(56, 56)).patches.shape[1:3] == (4, 4)


def test_a_resampled_patch_answers_an_enlarged_picture_as_before(model):
    small = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    big = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear")
    weight = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    before = torch.einsum("nchw,dchw->nd", small, weight)
    after = torch.einsum("nchw,dchw->nd", big, resample_patch(weight, 16))
    assert torch.allclose(before, after, atol=1e-4)
    assert resample_patch(weight, 8) is weight


def test_other_channels_are_one_line_with_the_way_out(folder, capsys):
    """ "--bands r,g,b or --channels 4 --init mean"; the pictures' side is tests/cli/test_model.py."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_channels": 4}))
    assert main(["show", "pca", "x.png", "--model", str(folder)]) == 3
    said = line_of(capsys)
    assert "the weights have 3 input channels, 4 are asked" in said
    assert "set num_channels to 3 in config.json; --channels 4 then spreads them" in said


def test_tokens_are_named_and_no_untrained_layer_is_offered(folder):
    """ "reshape of N tokens fails" and "pooler newly initialized"."""
    found = load(folder)(images(32, 48))
    assert isinstance(found, Features) and list(vars(found)) == ["cls", "registers", "patches"]
    assert found.patches.shape[1:] == (2, 3, 64)


def test_l5_and_c44_a_local_file_needs_no_network_and_a_name_fails_at_once(folder, monkeypatch, capsys):
    def refuse(*_, **__):
        pytest.fail("went online")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load(folder).card["name"] == "tiny"
    with pytest.raises(WeightsError, match="vitb16: no weights at hand, no Hugging Face token") as caught:
        load("vitb16")
    for word in ("(1) put dinov3_vitb16_pretrain_lvd1689m.pth", "(2) ask at huggingface.co/facebook/", "(3) accept"):
        assert word in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="unshare is of Linux")
def test_c44_without_any_network_interface(folder):
    code = f"import opendino; opendino.load({str(folder)!r}); opendino.load('dinov2_vits14')"
    command = ["unshare", "-rn", sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path}; {code}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "unshare" in done.stderr:
        pytest.skip("this kernel lets no user unshare the network")
    assert "dinov2_vits14: no weights at hand and" in done.stderr.splitlines()[-1]


def test_l6_doctor_says_speed_and_memory_here(monkeypatch, capsys):
    monkeypatch.setattr(doctor_module, "_MEASURE_S", 0.0) if hasattr(doctor_module, "_MEASURE_S") else None
    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for word in ("device: cpu", "memory: ", "attention: ", "images/s", "disk: ", "weights: "):
        assert word in said


def test_l7_attention_in_one_call(folder):
    maps = load(folder).attention(images(32, 48), -1 % TINY.depth)
    assert maps.shape[1:] == (1, 2, 3) and bool((maps > 0).all())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "the link has expired"),
        ("<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", "denies access"),
        ("<!doctype html><title>Sign in</title>", "a web page or XML, not weights"),
    ],
)
def test_a1_a_saved_refusal_is_told_from_an_expired_link(text, words, tmp_path, capsys):
    """ "403 / AccessDenied": which of the two, and what works without."""
    (tmp_path / "dinov3_vitb16.pth").write_text(text)
    assert main(["weights", str(tmp_path / "dinov3_vitb16.pth")]) == 3
    assert words in line_of(capsys)


@pytest.mark.parametrize(("status", "words"), [(401, "not valid, or has expired"), (403, "not been let in yet")])
def test_a1_the_hubs_refusals_are_told_apart(status, words, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import GatedRepoError

    class Answer:
        status_code, headers, text, request = status, {}, "", None

    def refuse(*_, **__):
        error = GatedRepoError.__new__(GatedRepoError)
        error.response = Answer()
        raise error

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(Refused, match=words):
        download("facebook/x")


def test_a2_the_ancestors_licence_follows_the_file(folder, tmp_path, capsys):
    """Through conversion both ways, and through an override; the store is in test_users_features.py."""
    assert main(["weights", str(folder), "--to", "official", "--out", str(tmp_path / "flat")]) == 0
    assert main(["weights", str(tmp_path / "flat" / "tiny.pth"), "--to", "hf", "--out", str(tmp_path / "back")]) == 0
    card = load(tmp_path / "back", stride=8).card
    assert (card["licence"], card["source"], card["changed"]) == ("CC0-1.0", "a test", {"stride": 8})
    unnamed = json.loads((folder / "config.json").read_text())
    unnamed.pop("opendino")
    (folder / "config.json").write_text(json.dumps(unnamed))
    assert load(folder).card["licence"] == "not stated; released DINOv3 weights are under the DINOv3 License"


def test_c37_satellite_statistics_and_an_override_that_is_recorded(tmp_path, model):
    satellite = Transform(size=64, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
    write_model(tmp_path / "s", model, satellite, CARD)
    opened = load(tmp_path / "s")
    assert opened.transform == satellite
    write_model(tmp_path / "o", opened, replace(opened.transform, mean=(0.5,) * 3), opened.card)
    assert load(tmp_path / "o").transform.mean == (0.5,) * 3
    assert opendino.load(tmp_path / "o").transform.std == satellite.std
    assert choose_model(tmp_path / "s", mean="0.1,0.2,0.3").model.transform == replace(satellite, mean=(0.1, 0.2, 0.3))
    for mean in ("0.1,x,0.3", "0.1,0.2"):
        with pytest.raises(UsageError):
            choose_model(tmp_path / "s", mean=mean)
