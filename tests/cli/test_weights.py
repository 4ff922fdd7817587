"""`opendino weights` and `opendino doctor`: passports, conversions, what the machine has."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import opendino
from opendino.cli import doctor, main
from opendino.cli.model import ModelArgs, as_flags, choose_model
from opendino.cli.weights import run, weights
from opendino.data.transform import Transform
from opendino.errors import UsageError, WeightsError
from opendino.files import sha256_file
from opendino.models.family import FAMILY, build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, write_model, write_official
from tests.models.parity import images, randomise

CARD = {"name": "mine", "licence": "CC0-1.0", "source": "a test"}
TINY = ViTConfig(dim=64, depth=2, heads=1, hidden=96)


@pytest.fixture
def folder(tmp_path):
    model = randomise(build_from_config(TINY))
    write_model(tmp_path / "m", model, Transform(size=64, mean=(0.1, 0.2, 0.3)), CARD)
    return tmp_path / "m"


def test_the_passport_says_it_all(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["weights", str(folder)]) == 0
    out = capsys.readouterr().out
    total = len(load_file(folder / "model.safetensors"))
    digest = sha256_file(folder / "model.safetensors")
    for words in (
        f"{total}/{total} tensors, 0 unexpected",
        "safetensors, transformers names",
        "none of the family",
        "dim 64, depth 2, heads 1",
        "float32",
        "64 px, square, bilinear, mean (0.1, 0.2, 0.3)",
        "CC0-1.0",
        "a test",
        digest,
        "next: opendino",
    ):
        assert words in out, words


def test_json_is_one_object(folder, capsys):
    assert run([str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["whole"] and found["licence"] == "CC0-1.0" and found["transform"]["size"] == 64
    assert found["params"] == sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert opendino.read_passport(folder).digest == found["digest"]


def test_there_and_back_is_exact_and_licence_and_source_go_along(folder, tmp_path, capsys):
    assert run([str(folder), "--to", "official", "--out", str(tmp_path / "o")]) == 0
    assert "wrote" in capsys.readouterr().out
    card = json.loads((tmp_path / "o" / "mine.json").read_text())["opendino"]["card"]
    assert card["licence"] == "CC0-1.0" and card["source"] == "a test" and len(card["made_from_sha256"]) == 64
    assert run([str(tmp_path / "o"), "--to", "hf", "--out", str(tmp_path / "back")]) == 0
    left, right = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    again = load(tmp_path / "back")
    assert (again.card["licence"], again.card["source"]) == ("CC0-1.0", "a test")
    assert again.transform == load(folder).transform
    assert torch.equal(again(images(32, 32)).cls, load(folder)(images(32, 32)).cls)


def test_what_does_not_fit_gets_a_passport_and_is_not_converted_unless_asked(folder, tmp_path, capsys):
    tensors = load_file(folder / "model.safetensors")
    del tensors["norm.weight"]
    save_file({**tensors, "head.weight": torch.zeros(2)}, folder / "model.safetensors")
    assert run([str(folder)]) == 3
    out = capsys.readouterr().out
    assert "norm.weight" in out and "head.weight" in out and f"{len(tensors)}/{len(tensors) + 1} tensors, 1" in out
    with pytest.raises(WeightsError, match="refused"):
        weights(folder, to="hf", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert run([str(folder), "--to", "hf", "--out", str(tmp_path / "x"), "--partial"]) == 0
    assert "norm.weight" in load_file(tmp_path / "x" / "model.safetensors")
    capsys.readouterr()
    model = load(folder, partial=True)
    assert torch.equal(model.norm.weight, torch.ones(64)) and "1 unexpected" in model.card["coverage"]
    assert "random values for norm.weight" in capsys.readouterr().err and model.card["random"] == ["norm.weight"]
    assert run([str(tmp_path / "x")]) == 0
    assert "norm.weight" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("random"))


def test_random_values_are_the_same_each_time_and_every_command_takes_them(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    for name in ("layer.0.mlp.up_proj.weight", "embeddings.cls_token"):
        del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="--partial"):
        choose_model(folder)
    one, other = (choose_model(folder, partial=True).model for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(one.parameters(), other.parameters(), strict=True))
    assert as_flags("m", ModelArgs(partial=True, heads=2)) == "--model m --heads 2 --partial"


def test_weights_of_another_model_are_named(tmp_path):
    """A config of one size with the tensors of another says which model the tensors are of."""
    small = build_from_config(FAMILY["vits16"].config)
    write_model(tmp_path, small, Transform(), CARD)
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(hidden_size=768, num_attention_heads=12, intermediate_size=3072)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="look like vits16 in transformers names") as caught:
        load(tmp_path)
    assert "tensors match: refused" in str(caught.value) and "\n" not in str(caught.value)


def test_keys_of_no_known_library_are_shown(tmp_path):
    save_file({"encoder.conv1.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"keys look like encoder.conv1.weight.*known: official"):
        load(tmp_path / "a.safetensors")


def test_the_hash_in_an_official_name_is_compared(folder, tmp_path):
    file = write_official(tmp_path, load(folder), Transform(), {"name": "m"})
    digest = sha256_file(file)
    for prefix, word in ((digest[:8], "agrees"), ("0" * 8, "differs")):
        named = file.rename(tmp_path / f"dinov3_x_pretrain-{prefix}.pth")
        assert opendino.read_passport(named).digest_in_name == word
        file = named
    assert opendino.read_passport(folder).digest_in_name == ""


@pytest.mark.parametrize(("to", "file"), [("hf", "config.json"), ("official", "mine.pth")])
def test_a_conversion_writes_over_its_own_files_alone(folder, tmp_path, to, file):
    out = tmp_path / "out"
    weights(folder, to=to, out=out)
    (out / ".DS_Store").write_text("")
    weights(folder, to=to, out=out)
    before = (out / file).read_bytes()
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "norm.weight": tensors["norm.weight"] + 1}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"not from these weights .*choose another --out"):
        weights(folder, to=to, out=out)
    assert (out / file).read_bytes() == before
    with pytest.raises(UsageError, match="is a file"):
        weights(folder, to=to, out=folder / "config.json")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    if to == "hf":
        for place in (tmp_path / "notes", folder):
            with pytest.raises(UsageError, match="holds files that are not from these weights"):
                weights(folder, to=to, out=place)
    else:
        weights(folder, to=to, out=tmp_path / "notes")
        assert load(tmp_path / "notes" / "mine.pth").card["licence"] == "CC0-1.0"


def test_to_and_out_belong_together(folder):
    with pytest.raises(UsageError, match="belong together"):
        weights(folder, to="hf")


def test_official_writes_refuse_what_the_layout_lacks(tmp_path):
    with pytest.raises(UsageError, match="hf layout"):
        write_official(tmp_path, build_from_config(FAMILY["conv_mini"].config), Transform(), CARD)


def test_doctor_in_words_and_as_json(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_MEASURE_S", 0.1)
    monkeypatch.setattr(doctor, "_NEEDED_BYTES", 1 << 60)  # no machine has it: the smallest model is measured
    monkeypatch.setenv("OPENDINO_WEIGHTS", str(tmp_path))
    (tmp_path / "vitb16").mkdir()
    assert main(["doctor", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for words in (
        "device: cpu",
        "float32",
        "attention: ",
        f"torch {torch.__version__}",
        "GiB free",
        "images/s (vit_tiny",
    ):
        assert words in out, words
    assert f"vitb16 at {tmp_path / 'vitb16'}" in out and "next: opendino weights vitb16" in out
    assert doctor.run(["--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["speed"]["images_per_s"] > 0 and "float32" in found["dtypes"] and found["memory_bytes"] > 0
