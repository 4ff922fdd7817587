"""Heads of a teacher out of the checkpoints of runs: found, equal, and refused for another backbone."""

import dataclasses

import pytest
import torch

from opendino.errors import DataError, UsageError
from opendino.models.frozen import Frozen
from opendino.train.checkpoint import list_checkpoints
from opendino.train.loop import train
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.run import RunDirectory, open_run
from opendino.train.teacher_heads import check_belongs, read_heads
from tests.train.runs import build, draw_pictures, run_to, tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny_config(draw_pictures(tmp_path_factory.mktemp("pictures"), count=10), steps=3)
    return dataclasses.replace(config, method=dataclasses.replace(config.method, head_batch_norm=True, queue=0))


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    method = run_to(config, out)
    RunDirectory(out).write_config(config)
    return out, method


def test_heads_of_a_run_are_those_of_its_average(trained):
    out, method = trained
    saved = read_heads(out)
    x = torch.randn(5, 64)
    assert torch.equal(saved.heads.dino(x), method.teacher["dino_head"](x))
    assert torch.equal(saved.heads.ibot(x), method.teacher["ibot_head"](x))
    assert saved.step == 3 and saved.heads.spread == 0.2
    check_belongs(saved, method.teacher["backbone"], out)
    assert not any(parameter.requires_grad for parameter in saved.heads.dino.parameters())


def test_heads_of_other_weights_or_widths_are_refused(trained):
    out, method = trained
    with pytest.raises(UsageError, match="learned with other weights"):
        check_belongs(read_heads(out), method.student["backbone"], out)
    other = torch.nn.Linear(2, 2)
    other.dim = 32
    with pytest.raises(UsageError, match="take 64 numbers, the teacher gives 32"):
        check_belongs(read_heads(out), other, out)


def test_no_run_no_heads(trained, tmp_path):
    assert read_heads(tmp_path / "nothing") is None and read_heads(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "dinov3_vit"}')
    assert read_heads(tmp_path) is None


def test_a_damaged_checkpoint_is_named(config, tmp_path):
    run_to(config, tmp_path)
    RunDirectory(tmp_path).write_config(config)
    (_, newest) = list_checkpoints(tmp_path / "checkpoints")[-1]
    file = newest / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged checkpoint"):
        read_heads(tmp_path)


def test_heads_are_trained_on_a_frozen_backbone_that_no_checkpoint_holds(config, tmp_path):
    method, loader = build(config)
    backbone = method.teacher["backbone"]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    fitted = SelfDistillation(Frozen(backbone), config.method, config.steps)
    start = {name: value.clone() for name, value in fitted.teacher.state_dict().items()}
    with open_run(tmp_path) as run:
        run.write_config(config)
        train(config, fitted, loader, run)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    saved = read_heads(tmp_path)
    assert not saved.backbone
    weight = saved.heads.dino.mlp[1].weight
    assert torch.equal(weight, fitted.teacher["dino_head"].mlp[1].weight)
    assert not torch.equal(weight, start["dino_head.mlp.1.weight"])
    check_belongs(saved, backbone, tmp_path)
