"""Faults F62 to F66 in numbers: weights, shards and configs changed at random bring an error of ours or a model."""

from __future__ import annotations

import json
import os
import resource
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save

from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.family import build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, write_model
from opendino.weights.pickles import read_pickle
from opendino.weights.read import read_tensors
from tests.weights.test_pickles import STORED, rewritten


@pytest.fixture(autouse=True)
def bounded_memory():
    """No case of this file may need 300 MB more than the process had."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def one_line(error):
    assert "\n" not in str(error) and len(str(error)) < 900


def mutated(raw, generator):
    """Bytes flipped, cut out, doubled or overwritten by numbers that mean much."""
    broken = bytearray(raw)
    for _ in range(generator.integers(1, 4)):
        at = int(generator.integers(len(broken)))
        match int(generator.integers(5)):
            case 0:
                broken[at] ^= 1 << int(generator.integers(8))
            case 1:
                del broken[at : at + int(generator.integers(1, 40))]
            case 2:
                broken[at:at] = broken[at : at + int(generator.integers(1, 40))]
            case 3:
                broken[at : at + 8] = struct.pack("<Q", int(generator.choice([0, 1, 2**31, 2**32, 2**62, 2**63 - 1])))
            case _:
                broken[at:at] = generator.choice([b'"', b"{", b"]", b"0", b"-1", b"1e400", b"\x00", b"null"])
        if not broken:
            break
    return bytes(broken)


def try_safetensors(tmp_path, count):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b.weight": torch.zeros(0, 4), "c": torch.tensor(1)}
    whole, path = save(tensors), tmp_path / "model.safetensors"
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(count):
        path.write_bytes(mutated(whole, generator))
        try:
            found = read_tensors(path)
        except WeightsError as error:
            one_line(error)
            refused += 1
        else:
            assert sum(tensor.numel() * tensor.element_size() for tensor in found.values()) < len(whole)
    assert refused > count / 2


def try_pickles(tmp_path, count):
    generator = np.random.default_rng(1)
    raws = []
    for new in (True, False):
        torch.save({"model": {"a": torch.arange(8.0)}}, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        raws.append((tmp_path / "w.pth").read_bytes())
    for turn in range(count):
        (tmp_path / "w.pth").write_bytes(mutated(raws[turn % 2], generator))
        try:
            read_pickle(tmp_path / "w.pth")
        except WeightsError as error:
            one_line(error)


def try_configs(tmp_path, count):
    torch.manual_seed(0)
    write_model(tmp_path, build_from_config(ViTConfig(dim=32, depth=1, heads=2, hidden=48)), Transform(), {})
    whole, path = (tmp_path / "config.json").read_bytes(), tmp_path / "config.json"
    fields = json.loads(whole)
    generator = np.random.default_rng(2)
    odd = [None, True, -1, 0, 3, 10**9, 10**30, 1.5, float("nan"), float("inf"), "16", "", [], [16, 16], {}, "\u202e"]
    for turn in range(count):
        if turn % 2:
            path.write_bytes(mutated(whole, generator))
        else:
            key = str(generator.choice(list(fields)))
            path.write_text(json.dumps({**fields, key: odd[int(generator.integers(len(odd)))]}))
        try:
            load(tmp_path)
        except WeightsError as error:
            one_line(error)


def test_f64_safetensors(tmp_path):
    try_safetensors(tmp_path, 10_000)


def test_f62_pickles(tmp_path):
    try_pickles(tmp_path, 300)


def test_f66_configs(tmp_path):
    try_configs(tmp_path, 200)


def test_an_archive_over_several_disks_is_damage(tmp_path):
    """Found by 10^4 mutations: the locator of a 64-bit archive that names more than one disk."""
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    end = data.rindex(b"PK\x05\x06")
    start = end - 20 if data[end - 20 : end].startswith(b"PK\x06\x07") else end
    (tmp_path / "w.pth").write_bytes(data[:start] + b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 2) + data[end:])
    with pytest.raises(WeightsError, match="damaged zip archive"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_f64_a_million_safetensors(tmp_path):
    try_safetensors(tmp_path, 1_000_000)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_f62_ten_thousand_pickles(tmp_path):
    try_pickles(tmp_path, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_f66_two_thousand_configs(tmp_path):
    try_configs(tmp_path, 2000)


BIG = b"\x8a\x05\x00\x00\x00\x00\x01"  # 2^32
HUGE = {
    "legacy storage": (False, [(b"K\x04Nt", BIG + b"Nt")]),
    "legacy shape": (False, [(b"K\x00K\x04\x85", b"K\x00" + BIG + b"\x85")]),
    "zip shape": (True, [(b"K\x00K\x04\x85", b"K\x00" + BIG + b"\x85")]),
    "zip offset": (True, [(b"K\x00K\x04\x85", BIG + b"K\x04\x85")]),
    "zip storage and shape": (True, [(b"K\x04t", BIG + b"t"), (b"K\x00K\x04\x85", b"K\x00" + BIG + b"\x85")]),
}


@pytest.mark.parametrize("name", HUGE)
def test_f63_allowed_operations_that_ask_for_much(name, tmp_path):
    """2^32 numbers in a file of a few hundred bytes."""
    new, changes = HUGE[name]

    def enlarged(content):
        for small, huge in changes:
            content = content.replace(small, huge)
        return content

    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=new)
    assert all(small in path.read_bytes() for small, _ in changes)
    if new:
        rewritten(path, lambda name, content: [(name, enlarged(content), STORED)])
    else:
        path.write_bytes(enlarged(path.read_bytes()))
    with pytest.raises(WeightsError) as caught:
        read_pickle(path)
    one_line(caught.value)


def entry(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def packed(text, data):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * data


BROKEN = {
    "a hole": packed({"a": entry(0, 8), "b": entry(16, 24)}, 24),
    "overlap": packed({"a": entry(0, 8), "b": entry(4, 12)}, 12),
    "does not begin at 0": packed({"a": entry(8, 16)}, 16),
    "negative": packed({"a": entry(-8, 0)}, 8),
    "fractions": packed({"a": entry(0.0, 8.5)}, 8),
    "offsets beyond 2^64": packed({"a": entry(0, 2**65)}, 8),
    "negative shape": packed({"a": entry(0, 8, (-2,))}, 8),
    "shape of text": packed({"a": {**entry(0, 8), "shape": "2"}}, 8),
    "shape overflows": packed({"a": entry(0, 8, (2**33, 2**33))}, 8),
    "no dtype": packed({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8),
    "no offsets": packed({"a": {"shape": [2], "dtype": "F32"}}, 8),
    "three offsets": packed({"a": {**entry(0, 8), "data_offsets": [0, 8, 8]}}, 8),
    "metadata of numbers": packed({"__metadata__": {"a": 3}, "a": entry(0, 8)}, 8),
    "leading space": packed(b' {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', 8),
    "padded with zeros": packed(json.dumps({"a": entry(0, 8)}).encode() + b"\0\0", 8),
    "null": packed(b"null", 0),
    "not utf-8": packed(b'{"\xff": {}}', 0),
    "too many": packed({str(index): entry(0, 0, (0,)) for index in range(100_001)}, 0),
    "a header of 200 MB that is not there": struct.pack("<Q", 200_000_000) + b"{",
}


@pytest.mark.parametrize("name", BROKEN)
def test_f64_each_rule_broken_once(name, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(BROKEN[name])
    with pytest.raises(WeightsError) as caught:
        read_tensors(tmp_path / "model.safetensors")
    one_line(caught.value)


def test_f64_zero_size_and_scalar_tensors_are_legal(tmp_path):
    text = {"a": entry(0, 0, (0, 3)), "b": entry(0, 4, ()), "__metadata__": {"format": "pt"}}
    (tmp_path / "model.safetensors").write_bytes(packed(json.dumps(text).encode() + b"  ", 4))
    found = read_tensors(tmp_path / "model.safetensors")
    assert found["a"].shape == (0, 3) and found["b"].shape == ()


@pytest.mark.parametrize("case", ["up", "absolute", "missing", "a pipe", "a folder", "twice", "not text", "no map"])
def test_f65_shards(case, tmp_path):
    index, good = tmp_path / "m" / "model.safetensors.index.json", save({"a": torch.zeros(2)})
    index.parent.mkdir()
    (tmp_path / "x.safetensors").write_bytes(good)
    for name in ("one", "two"):
        (index.parent / f"{name}.safetensors").write_bytes(good)
    os.mkfifo(index.parent / "pipe.safetensors")
    (index.parent / "folder.safetensors").mkdir()
    maps = {
        "up": {"a": "../x.safetensors"},
        "absolute": {"a": str(tmp_path / "x.safetensors")},
        "missing": {"a": "none.safetensors"},
        "a pipe": {"a": "pipe.safetensors"},
        "a folder": {"a": "folder.safetensors"},
        "twice": {"a": "one.safetensors", "b": "two.safetensors"},
        "not text": {"a": 3},
        "no map": [1],
    }
    index.write_text(json.dumps({"weight_map": maps[case]}))
    with pytest.raises(WeightsError, match="shard"):
        read_tensors(index)


def test_f65_a_link_to_a_regular_file_is_followed(tmp_path):
    """Hugging Face's cache is made of them."""
    (tmp_path / "blob").write_bytes(save({"a": torch.zeros(2)}))
    (tmp_path / "one.safetensors").symlink_to(tmp_path / "blob")
    (tmp_path / "i.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    assert read_tensors(tmp_path / "i.index.json").keys() == {"a"}
