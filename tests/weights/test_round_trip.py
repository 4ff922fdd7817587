"""What we write opens again, in opendino and in transformers, with equal outputs; and what transformers writes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import opendino
from opendino.data.images import Image
from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.conv_mini import ConvMiniConfig
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.family import FAMILY, build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, write_model
from tests.models.parity import gap, hf_model, images, randomise

CARD = {"name": "tiny", "licence": "CC0-1.0", "source": "a test"}
SMALL = {"dim": 32, "depth": 2, "heads": 2, "hidden": 48}
CONFIGS = {
    "vit": ViTConfig(**SMALL, layer_scale=0.5, drop_path=0.2, rope_shift=0.1, rope_jitter=1.2),
    "vit_gated_no_bias": ViTConfig(**SMALL, swiglu=True, qkv_bias=False, patch=8),
    "vit_no_registers": ViTConfig(**SMALL, registers=0, rope_rescale=None),
    "vit_key_bias": ViTConfig(**SMALL, mask_k_bias=False),
    "convnext": ConvNeXtConfig(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), layer_scale=0.3),
    "vit_local_norm": ViTConfig(**SMALL, local_cls_norm=True),
    "vit_rounded": ViTConfig(**SMALL, rope_rounded=True),
    "conv_mini": ConvMiniConfig(stem_width=8, width=16, dim=24, inner=12, blocks=(0, 2)),
    "conv_kmeans": ConvMiniConfig(stem="kmeans", stem_width=16, width=16, dim=32, inner=8),
}
IN_TRANSFORMERS = ["vit", "vit_gated_no_bias", "vit_no_registers", "vit_key_bias", "convnext", "vit_local_norm"]


def made(name, folder):
    config = CONFIGS[name]
    model = randomise(build_from_config(config), seed=4)
    transform = Transform(size=64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), patch=model.patch)
    write_model(folder, model.train(), transform, CARD)
    return model.eval(), transform


@pytest.mark.parametrize("name", CONFIGS)
def test_write_then_load_is_exact(name, tmp_path):
    model, transform = made(name, tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.config == model.config and not again.training
    assert again.transform == transform
    assert {key: again.card[key] for key in CARD} == CARD and again.card["ignored"] == []
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        if key.endswith("qkv.bias"):
            tensor = tensor * model.state_dict()[f"{key}_mask"]  # the layout has no place for the masked part
        assert torch.equal(state[key], tensor), key
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in again.parameters())
    x = images(64, 96)
    with torch.inference_mode():
        left, right = again(x), model(x)
    assert torch.equal(left.cls, right.cls) and torch.equal(left.patches, right.patches)


@pytest.mark.parametrize("name", IN_TRANSFORMERS)
def test_transformers_opens_what_we_write(name, tmp_path):
    from transformers import AutoModel

    model, _ = made(name, tmp_path)
    theirs = AutoModel.from_pretrained(tmp_path).eval()
    x = images(64, 96)
    with torch.inference_mode():
        ours, last = model(x), theirs(x).last_hidden_state
    assert gap(ours.cls, last[:, 0]) < 1e-5
    prefix = 1 + model.num_registers
    assert gap(ours.patches.flatten(1, 2), last[:, prefix:]) < 1e-5
    if name.startswith("vit"):
        assert torch.equal(theirs.embeddings.mask_token[0], model.mask_token)


def test_vit_tiny_opens_in_transformers(tmp_path):
    from transformers import AutoModel

    model = randomise(build_from_config(FAMILY["vit_tiny"].config))
    write_model(tmp_path, model, Transform(patch=8), CARD)
    x = images(64, 64)
    with torch.inference_mode():
        assert gap(model(x).cls, AutoModel.from_pretrained(tmp_path)(x).pooler_output) < 1e-5


def test_the_transform_opens_in_transformers_with_equal_pixels(tmp_path):
    from transformers import AutoImageProcessor

    _, transform = made("vit", tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(images=picture, return_tensors="pt")["pixel_values"][0]
    ours = load(tmp_path).transform.apply(Image(picture, "RGB", 8, {}))
    assert ours.equal(transform.apply(Image(picture, "RGB", 8, {})))
    assert gap(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", ["vit", "vit_gated_no_bias", "vit_no_registers", "convnext"])
def test_we_open_what_transformers_writes(name, tmp_path):
    theirs = hf_model(CONFIGS[name])
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.config == CONFIGS[name] and ours.card["ignored"] == []
    x = images(64, 96)
    with torch.inference_mode():
        assert gap(ours(x).cls, theirs(x).pooler_output) < 1e-5
    assert "DINOv3 License" in ours.card["licence"]
    assert ours.transform == Transform(patch=ours.patch)
    for name_in_hf, tensor in theirs.state_dict().items():
        if name_in_hf.endswith("mask_token"):
            assert torch.equal(ours.mask_token, tensor[0])


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "backbone.", "module._orig_mod.backbone."])
@pytest.mark.parametrize("release", [4, 5])
@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_names_of_both_releases_and_wrappers(name, release, prefix, tmp_path):
    """Cases C05 and C07."""
    model, _ = made(name, tmp_path)
    old = load_file(tmp_path / "model.safetensors")
    new = {}
    for key, tensor in old.items():
        inner = release == 5 and key.startswith(("layer.", "stages."))
        new[prefix + ("model." if inner else "") + key] = tensor
    save_file(new, tmp_path / "model.safetensors")
    x = images(32, 64)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path)(x).cls, model(x).cls)


def test_transformers_names_are_complete_in_both_releases(tmp_path):
    """What we write, under v5's module names, is exactly transformers' own state; no more, no less."""
    made("vit", tmp_path)
    ours = {
        key.replace("layer.", "model.layer.", 1) if key.startswith("layer.") else key
        for key in load_file(tmp_path / "model.safetensors")
    }
    assert ours == set(hf_model(CONFIGS["vit"]).state_dict())


def test_shards_open_like_one_file(tmp_path):
    model, _ = made("vit", tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = list(whole)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"model-0000{number}.safetensors"
        save_file({key: whole[key] for key in part}, tmp_path / shard)
        weight_map |= dict.fromkeys(part, shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(load(tmp_path)(images(32, 32)).cls, model(images(32, 32)).cls)
    for bad in ("../model-00000.safetensors", "/etc/passwd", "x.pth", 3):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(WeightsError, match="shard name"):
            load(tmp_path)


def test_half_precision_files_load_as_fp32(tmp_path):
    model, _ = made("vit", tmp_path)
    half = {key: tensor.bfloat16() for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(half, tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}
    assert gap(again(images(32, 32)).cls, model(images(32, 32)).cls) < 0.1


def test_a_run_directory_opens_its_model(tmp_path):
    (tmp_path / "config.json").write_text('{"recipe": "small"}')
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WeightsError, match="no model yet"):
        load(tmp_path)
    model, _ = made("conv_mini", tmp_path / "model")
    for path in (tmp_path, str(tmp_path), tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        assert torch.equal(opendino.load(path)(images(32, 32)).cls, model(images(32, 32)).cls)


def test_writing_again_replaces_and_does_not_touch_the_model(tmp_path):
    model, transform = made("vit", tmp_path)
    with torch.no_grad():
        model.norm.weight.add_(1)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    write_model(tmp_path, model.train(), transform, CARD)
    assert model.training and all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert torch.equal(load(tmp_path).norm.weight, model.norm.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_our_own_kinds_and_rounded_positions_say_what_transformers_does_not_do(tmp_path):
    for name, word in (("conv_mini", "transformers"), ("conv_kmeans", "transformers"), ("vit_rounded", "periods")):
        made(name, tmp_path / name)
        assert word in load(tmp_path / name).card["note"]
    assert json.loads((tmp_path / "conv_mini" / "config.json").read_text())["model_type"] == "opendino_conv_mini"


def test_a_model_moved_in_half_precision_is_written_in_fp32(tmp_path):
    model = randomise(build_from_config(replace(CONFIGS["vit"], depth=1))).bfloat16()
    write_model(tmp_path, model, Transform(), CARD)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


def test_loading_leaves_the_global_generator_alone(tmp_path):
    """A teacher loaded in the middle of a run must not change what the run draws."""
    for name in ("vit", "convnext", "conv_mini", "conv_kmeans"):
        made(name, tmp_path / name)
        state = torch.get_rng_state()
        load(tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)


def test_shards_of_a_pickled_model(tmp_path):
    """pytorch_model.bin.index.json, as transformers 4 wrote it for large models."""
    torch.manual_seed(0)
    write_model(tmp_path, build_from_config(ViTConfig(dim=64, depth=2, heads=1, hidden=96)), Transform(), {})
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a-00001-of-00002.bin": names[::2], "a-00002-of-00002.bin": names[1::2]}
    for shard, part in shards.items():
        torch.save({name: tensors[name] for name in part}, tmp_path / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    model = load(tmp_path)
    assert model.card["coverage"] == f"{len(names)}/{len(names)} tensors, 0 unexpected"
    assert torch.equal(model.cls_token, tensors["embeddings.cls_token"])


def test_a_run_that_still_trains_gives_its_best_weights_so_far(tmp_path, capsys):
    for kind, name, words in (
        ("vit", "model-start", "the weights of its start"),
        ("conv_mini", "model-best", "its best weights so far"),
    ):
        model, _ = made(kind, tmp_path / name)
        assert torch.equal(load(tmp_path)(images(32, 32)).cls, model(images(32, 32)).cls)
        assert words in capsys.readouterr().err
        load(tmp_path / name)
        assert capsys.readouterr().err == "", "named itself, it is what was meant"


def test_a_folder_without_its_preprocessor_says_what_pictures_are_shown_at(tmp_path, capsys):
    made("vit", tmp_path)
    load(tmp_path)
    assert capsys.readouterr().err == ""
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["opendino"].pop("transform", None)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
    assert load(tmp_path).transform.size == 224
    assert "no preprocessor_config.json beside it; pictures are shown at 224 px" in capsys.readouterr().err
