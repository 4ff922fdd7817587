"""Wrong, damaged and hostile weights: one line, nothing executed, nothing allocated."""

import json
import pickle
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.family import build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, write_model

VIT = ViTConfig(dim=64, depth=2, heads=2, hidden=96)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    write_model(tmp_path, build_from_config(VIT), Transform(), {"name": "tiny"})
    return tmp_path


def refused(path, *words):
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for word in words:
        assert word in message, message
    return message


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def edit_tensors(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "resnet"}, ["resnet", "not known"]),
        ({"model_type": None}, ["not known"]),
        ({"model_type": ["dinov3_vit"]}, ["not known"]),
        ({"num_hidden_layers": 201}, ["num_hidden_layers", "200"]),
        ({"num_hidden_layers": 10**30}, ["num_hidden_layers"]),
        ({"hidden_size": 65_540}, ["hidden_size", "65536"]),
        ({"hidden_size": -64}, ["hidden_size"]),
        ({"hidden_size": 62}, ["multiple of 4 x heads"]),
        ({"hidden_size": "64"}, ["hidden_size"]),
        ({"hidden_size": 64.0}, ["hidden_size"]),
        ({"hidden_size": True}, ["hidden_size"]),
        ({"hidden_size": [64] * 10_000}, ["hidden_size"]),
        ({"patch_size": [16, 8]}, ["patch_size"]),
        ({"patch_size": 0}, ["patch_size"]),
        ({"num_attention_heads": 0}, ["num_attention_heads"]),
        ({"num_register_tokens": 10**9}, ["num_register_tokens"]),
        ({"layer_norm_eps": "nan"}, ["layer_norm_eps"]),
        ({"layer_norm_eps": -1}, ["layer_norm_eps"]),
        ({"rope_theta": None}, ["rope_theta"]),
        ({"pos_embed_rescale": 0}, ["pos_embed_rescale"]),
        ({"drop_path_rate": 1.0}, ["drop_path"]),
        ({"use_gated_mlp": "yes"}, ["use_gated_mlp"]),
        ({"hidden_act": "relu"}, ["hidden_act"]),
        ({"proj_bias": False}, ["proj_bias"]),
        ({"query_bias": False}, ["query_bias"]),
        ({"model_type": "dinov3_convnext", "depths": [3, 3, 3]}, ["4 depths"]),
        ({"model_type": "dinov3_convnext", "depths": [3, 3, 10**9, 3]}, ["depths"]),
        ({"model_type": "dinov3_convnext", "hidden_sizes": "wide"}, ["hidden_sizes"]),
        ({"model_type": "opendino_conv_mini"}, ["no config"]),
        ({"model_type": "opendino_conv_mini", "config": {"width": 10**9}}, ["width"]),
        ({"model_type": "opendino_conv_mini", "config": {"blocks": [201, 1]}}, ["blocks"]),
        ({"model_type": "opendino_conv_mini", "config": {"stem": "layer"}}, ["stem"]),
        ({"model_type": "opendino_conv_mini", "config": {"gain": "x"}}, ["gain"]),
    ],
)
def test_hostile_configs(folder, changes, words):
    edit(folder, **changes)
    refused(folder, "config.json", *words)


def test_the_largest_allowed_numbers_allocate_nothing(folder):
    edit(folder, hidden_size=65_536, intermediate_size=65_536, num_hidden_layers=200, num_attention_heads=64)
    start = time.perf_counter()
    refused(folder, "tensors match")
    assert time.perf_counter() - start < 30


def test_code_named_in_a_config_is_ignored_and_unknown_fields_are_listed(folder):
    edit(folder, auto_map={"AutoModel": "evil.Model"}, trust_remote_code=True)
    assert load(folder).card["ignored"] == ["auto_map", "trust_remote_code"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_damaged_json(folder, content):
    for name in ("config.json", "preprocessor_config.json"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        refused(folder, name)
        (folder / name).write_bytes(good)
    (folder / "config.json").unlink()
    refused(folder, "config.json", "no such file")


def test_weights_of_another_patch_size(folder):
    """Case C08."""

    def change(tensors):
        tensors["embeddings.patch_embeddings.weight"] = torch.randn(64, 3, 14, 14)
        return tensors

    edit_tensors(folder, change)
    message = refused(folder, "/14", "/16 is asked", "set patch_size to 14", "--resample-patch 16")
    total = len(load_file(folder / "model.safetensors"))
    assert f"{total - 1} of {total} tensors match" in message


def test_missing_unexpected_and_misshapen_tensors_are_counted_and_named(folder):
    total = len(load_file(folder / "model.safetensors"))
    good = load_file(folder / "model.safetensors")

    def without_norm(tensors):
        return {name: tensor for name, tensor in tensors.items() if name != "norm.weight"}

    edit_tensors(folder, without_norm)
    refused(folder, f"{total - 1} of {total} tensors match", "missing norm.weight")
    save_file({**good, "head.weight": torch.zeros(2)}, folder / "model.safetensors")
    refused(folder, f"{total} of {total}", "unexpected head.weight")
    save_file({**good, "norm.bias": torch.zeros(63)}, folder / "model.safetensors")
    refused(folder, f"{total - 1} of {total}", "norm.bias has [63], [64] is asked")
    save_file({"other": torch.zeros(2)}, folder / "model.safetensors")
    refused(folder, f"0 of {total}", "and ")
    save_file({**good, "module.norm.bias": torch.zeros(64)}, folder / "model.safetensors")
    refused(folder, "several models")
    save_file(good, folder / "model.safetensors")
    load(folder)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.pth"])
@pytest.mark.parametrize("form", ["torch", "legacy", "plain"])
def test_pickles_are_refused_and_never_executed(folder, tmp_path_factory, name, form):
    witness = tmp_path_factory.mktemp("w") / "executed"
    (folder / "model.safetensors").unlink()
    bomb = {"x": Bomb(str(witness))}
    if form == "plain":
        (folder / name).write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, folder / name, _use_new_zipfile_serialization=form == "torch")
    refused(folder, name, "pickle", "refused")
    refused(folder / name, name, "pickle", "refused")
    assert not witness.exists()


def header(text, data=b""):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 1000) + b"{}",
        header(b"[]"),
        header(b"not json"),
        header(b'{"a": 1}'),
        header({"a": F32}),  # the data is missing
        header({"a": F32}, b"\0" * 16),  # and here some is left over
        header({"a": {**F32, "dtype": "F33"}}, b"\0" * 8),
        header({"a": {**F32, "shape": [3]}}, b"\0" * 8),
        header({"a": {**F32, "shape": [2**40, 2**40]}}, b"\0" * 8),
        header({"a": {**F32, "shape": [1] * 8 + [2]}}, b"\0" * 8),
        header({"a": F32, "b": F32}, b"\0" * 8),
        header({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8),
        header({"a" * 600: F32}, b"\0" * 8),
        header(b'{"a": %s, "a": %s}' % ((json.dumps(F32).encode(),) * 2), b"\0" * 8),
        header(b"[" * 50_000),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"GGUF" + b"\0" * 64,
    ],
)
def test_damaged_safetensors(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors")


def test_a_truncated_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "model.safetensors", "safetensors")


def test_what_is_no_model(tmp_path):
    refused(tmp_path / "nowhere", "no such file or folder")
    refused(tmp_path, "model.safetensors")
    (tmp_path / "note.txt").write_text("hello")
    refused(tmp_path / "note.txt", "is no model")


def test_an_unreadable_transform(folder):
    path = folder / "preprocessor_config.json"
    good = json.loads(path.read_text())
    for change in ({"resample": 1}, {"size": "big"}, {"image_std": [0, 0, 0]}, {"image_mean": "x"}, {"opendino": 3}):
        path.write_text(json.dumps({**good, **change}))
        refused(folder, "preprocessor_config.json")
