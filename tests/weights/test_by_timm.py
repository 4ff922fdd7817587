"""Backbones of timm for frozen use: the features are timm's own, and what cannot be done is said in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from opendino import load, open_store
from opendino.cli import main
from opendino.cli.embed import embed
from opendino.cli.evaluate import evaluate
from opendino.data.images import read
from opendino.errors import DataError, UsageError, WeightsError
from tests.data.drawing import encoded, write_photos
from tests.evaluation import layouts

timm = pytest.importorskip("timm")

NETWORKS = [
    "resnet10t",
    "mobilenetv3_small_050",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights by the name of the network, as timm saves them, classifier and all."""
    folder = tmp_path_factory.mktemp("timm")

    def named(network, **changes):
        torch.manual_seed(0)
        save_file(timm.create_model(network, **changes).state_dict(), folder / f"{network}.safetensors")
        return f"timm:{network}={folder / network}.safetensors"

    return named


@pytest.mark.parametrize("network", NETWORKS)
def test_features_are_those_of_timm(network, weights):
    model = load(weights(network))
    assert not model.training and not any(one.requires_grad for one in model.parameters())
    images = torch.randn(2, 3, 224, 224 + 2 * model.patch)
    with torch.no_grad():
        features, layers = model(images), model.intermediate(images, range(model.num_layers))
        final = model.network.forward_features(images)
    grid = (2, 224 // model.patch, 224 // model.patch + 2, model.dim)
    assert features.patches.shape == grid and features.cls.shape == (2, model.dim) and features.registers.shape[1] == 0
    if final.ndim == 3:
        torch.testing.assert_close(features.patches.flatten(1, 2), final[:, model.network.num_prefix_tokens :])
        torch.testing.assert_close(features.cls, final[:, 0])
    else:
        own = final if final.shape[-1] == model.dim else final.permute(0, 2, 3, 1)
        torch.testing.assert_close(features.patches, own)
        if model.network.head_hidden_size == model.dim:
            torch.testing.assert_close(features.cls, model.network.forward_head(final, pre_logits=True))
        else:
            torch.testing.assert_close(features.cls, own.mean((1, 2)))
    assert len(layers) == model.num_layers
    torch.testing.assert_close(layers[-1].patches, features.patches)
    torch.testing.assert_close(layers[0].cls, layers[0].patches.mean((1, 2)))


def test_a_model_of_the_family_gives_the_same_through_timm(weights):
    named = weights("vit_small_patch16_dinov3")
    ours, theirs = load(named.partition("=")[2]), load(named)
    assert ours.patch == theirs.patch and theirs.transform.size == 256
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for one, other in (
            (ours(images), theirs(images)),
            (ours.intermediate(images, [5])[0], theirs.intermediate(images, [5])[0]),
            (ours.intermediate(images, [11], norm=False)[0], theirs.intermediate(images, [11], norm=False)[0]),
        ):
            torch.testing.assert_close(one.patches, other.patches, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(ours(images).cls, theirs(images).cls, atol=2e-4, rtol=1e-3)


def test_the_transform_is_timms(weights):
    model = load(weights("vit_tiny_patch16_224"))
    transform = model.transform
    assert (transform.size, transform.mode, transform.filter, transform.short_side) == (224, "center", "bicubic", 248)
    assert transform.mean == (0.5, 0.5, 0.5) == transform.std
    assert model.card["name"] == "vit_tiny_patch16_224" and model.card["licence"] == "not stated"


@pytest.mark.parametrize("network", ["vit_tiny_patch16_224", "resnet10t"])
def test_pictures_go_through_what_timm_makes_of_them(network, weights):
    model = load(weights(network))
    array = np.kron(np.random.default_rng(0).integers(0, 256, (25, 32, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    settings = {**timm.data.resolve_model_data_config(model.network), "input_size": (3, *[model.transform.size] * 2)}
    wanted = timm.data.create_transform(**settings)(Image.fromarray(array))
    found = model.transform.apply(read(encoded(array, "PNG")))
    # Odd margins are cut half a pixel apart.
    limit = 1e-3 if model.transform.short_side % 2 == 0 else 0.4
    assert float((found - wanted).abs().mean()) < limit


def test_a_final_norm_is_left_out_when_it_is_not_wanted(weights):
    model = load(weights("swin_tiny_patch4_window7_224"))
    model.network.norm.weight.data.mul_(3)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        (normed,), (plain,) = (model.intermediate(images, [3], norm=norm) for norm in (True, False))
        expected = model.network.forward_intermediates(images)[1][-1].permute(0, 2, 3, 1)
    torch.testing.assert_close(plain.patches, expected)
    assert not torch.allclose(plain.patches, normed.patches)


def test_padding_reaches_whole_patches_and_sizes_that_do_not_fit_say_so(weights):
    model = load(weights("resnet10t"))
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        padded = torch.nn.functional.pad(images, (0, 26, 0, 14))
        torch.testing.assert_close(model(images, pad=True).patches, model(padded).patches)
        with pytest.raises(DataError, match="does not take them"):
            load(weights("mixer_s32_224"))(torch.randn(1, 3, 224, 256))
    with pytest.raises(UsageError, match="only used frozen"):
        model(images, mask=torch.zeros(1, 2, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="not read from models of timm"):
        model.attention(images, 0)


def test_checkpoints_of_training_scripts_are_unwrapped(weights, tmp_path):
    plain = load(weights("resnet10t"))
    state = timm.create_model("resnet10t").state_dict()
    ours = {**state, **{name.removeprefix("network."): tensor for name, tensor in plain.state_dict().items()}}
    wrapped = {f"module.{name}": tensor for name, tensor in ours.items()}
    for number, saved in enumerate(({"model": ours, "epoch": 3}, {"state_dict": wrapped})):
        torch.save(saved, tmp_path / f"{number}.pth")
        again = load(f"timm:resnet10t={tmp_path / str(number)}.pth")
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(again(images).cls, plain(images).cls)


def test_files_of_a_larger_network_or_of_two_are_refused(tmp_path):
    deep = timm.create_model("vit_tiny_patch16_224", depth=14).state_dict()
    save_file(deep, tmp_path / "deep.safetensors")
    with pytest.raises(WeightsError, match="holds 24 tensors more than this network"):
        load(f"timm:vit_tiny_patch16_224={tmp_path / 'deep.safetensors'}")
    state = timm.create_model("resnet10t").state_dict()
    both = {f"{prefix}.{name}": tensor.clone() for prefix in ("model", "model_ema") for name, tensor in state.items()}
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(WeightsError, match=r"holds 2 models \(model., model_ema.\)"):
        load(f"timm:resnet10t={tmp_path / 'both.safetensors'}")


@pytest.mark.parametrize("network", ["inception_v3", "crossvit_tiny_240", "levit_128s"])
def test_networks_whose_map_is_no_grid_of_patches_are_refused(network, weights):
    with pytest.raises(WeightsError, match="its last feature map is no grid of patches"):
        load(weights(network))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("timm:resnet1O", "did you mean timm:resnet1"),
        ("timm:resnet10t=", "names no file after ="),
        ("timm:resnet10t=nowhere.safetensors", "no such file"),
        ("timm:resnet18=OTHER", "tensors do not fit"),
    ],
)
def test_wrong_names_and_files_are_one_line(what, said, weights, capsys, tmp_path):
    other = weights("resnet10t").partition("=")[2]
    model = what.replace("OTHER", other)
    assert main(["show", "pca", str(tmp_path / "a.jpg"), "--model", model]) > 1
    words = capsys.readouterr().err
    assert said in words and words.count("\n") == 1, words


def test_weights_that_cannot_be_got_name_the_way_on(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("cannot reach the hub\nsecond line")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WeightsError, match=r"cannot reach the hub.*timm:resnet10t=FILE"):
        load("timm:resnet10t")


def test_options_of_the_family_and_training_are_refused(weights, tmp_path, capsys):
    named = weights("resnet10t")
    with pytest.raises(UsageError, match="takes no stride"):
        load(named, stride=8)
    with pytest.raises(UsageError, match="takes no partial"):
        load(named, partial=True)
    for kind in ("cats", "dogs"):
        write_photos(tmp_path / "photos" / kind, 12)
    photos = str(tmp_path / "photos")
    for command in (
        ["adapt", photos, "--model", named, "--out", str(tmp_path / "a"), "--steps", "2"],
        ["advise", photos, "--model", named, "--out", str(tmp_path / "b"), "--minutes", "1"],
        ["distill", photos, "--teacher", named, "--student", "vit_tiny", "--out", str(tmp_path / "c"), "--steps", "2"],
        ["pretrain", photos, "--stage", "highres", "--from", named, "--out", str(tmp_path / "d"), "--steps", "2"],
    ):
        assert main(command) == UsageError.exit_code, command
        assert "is no model of the family" in capsys.readouterr().err, command


def test_it_is_scored_beside_models_of_the_family_and_embedded(weights, tmp_path, monkeypatch):
    data = layouts.ade20k(tmp_path / "masks")
    named = [weights(one) for one in ("resnet10t", "vit_tiny_patch16_224")]
    settings = {"rows": "3", "steps": "30"}
    done = evaluate("seg-linear,health", model=named, data=data, out=tmp_path / "out", settings=settings, quiet=True)
    assert not done.failures and {result.config["model"] for result in done.results} == {
        "resnet10t",
        "vit_tiny_patch16_224",
    }
    write_photos(tmp_path / "photos", 4)
    monkeypatch.chdir(Path(named[0].partition("=")[2]).parent)
    embed(tmp_path / "photos", "timm:resnet10t=resnet10t.safetensors", tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert len(store) == 4 and store.info.dim == 512 and store.info.model == named[0], "it opens again from elsewhere"
